"""Tasks that read from afar, seen from the front end: the way to it, and what they read."""
