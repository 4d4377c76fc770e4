"""The command line. Modules here import what they need when a command runs: `turnout --help` is instant."""
