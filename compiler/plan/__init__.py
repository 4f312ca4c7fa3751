"""One plan for depth, width and precision: made, kept in a file, replayed."""
