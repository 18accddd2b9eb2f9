"""What copies need on nodes: facts of trees, files on their way, and the way from host to host."""
