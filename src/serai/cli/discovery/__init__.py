"""The commands that find: nodes, stores, communities."""
