"""Which task fits which node: pure functions."""
