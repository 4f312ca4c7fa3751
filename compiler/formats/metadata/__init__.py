"""What a file says of itself, for those who use it without the report."""
