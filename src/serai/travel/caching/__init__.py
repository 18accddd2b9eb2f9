"""The cache of a node: what is kept of inputs, who throws out what, and how nodes give each other what they have.

Runs on nodes: standard library only, Python 3.8.
"""
