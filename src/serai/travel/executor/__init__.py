"""The executor: the agent that travels to a node. The standard library only, Python 3.8 or newer.

All modules but one travel as source text; the ones to begin with are ``wire`` (frames), ``lane`` (one process per slot,
which runs the tasks) and ``agent`` (one per node, which keeps the lanes and speaks with the front end). They import one
another relatively, because on the node their package has another name. ``boot`` stays at home and makes the text that
starts them.
"""
