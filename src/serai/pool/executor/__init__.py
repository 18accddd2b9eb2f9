"""The agent that travels to a node: the standard library only, Python 3.8 or newer."""
