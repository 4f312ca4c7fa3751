"""Which channels matter: one criterion, and one paper, a file."""
