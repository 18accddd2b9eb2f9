"""What is said of nodes, tasks and stores for matching: expressions, attributes, names of software."""
