"""`serai study`: the published experiments again, simulated and in the laboratory."""
