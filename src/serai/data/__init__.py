"""Where files are, and how they come home."""
