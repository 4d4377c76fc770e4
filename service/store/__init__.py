"""The only SQL. Sessions are synchronous and used in threads; the store writes what it is given."""
