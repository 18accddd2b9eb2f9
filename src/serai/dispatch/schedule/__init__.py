"""The schedule: a state machine without I/O, and its parts."""
