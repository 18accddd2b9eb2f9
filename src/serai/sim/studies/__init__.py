"""The published experiments again, on a virtual clock: data diffusion, communities, and traces of workflows.

What decides in them is what decides in production; what is modelled is the rest: nodes, links, disks and file systems.
"""
