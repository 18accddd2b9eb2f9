"""`serai store`."""
