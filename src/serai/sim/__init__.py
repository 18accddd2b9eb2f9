"""The world on a virtual clock, driving the schedule unchanged.

Nothing here is real: time is a heap of happenings, chance comes from a seed, nodes are models. `World` plays the part
of the dispatcher exactly: it tells the schedule what arrives, carries out what it decides, and ticks when that wants to
be woken.
"""
