"""A fine-tune as the service sees it: what it was asked for, what it works on, and the plan before it starts."""
