"""What carries bundles to executors."""
