"""What to rent."""
