"""Many boards profiled side by side, into one table for each kind of them."""
