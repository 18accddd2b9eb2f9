"""What helps to test Serai and what is built on it; shipped."""
