"""Ways into a resource: one file per scheme."""
