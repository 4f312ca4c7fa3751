"""Networks for smaller images than they were given for."""
