"""What `shrinkc profile` and `shrinkc bench` show."""
