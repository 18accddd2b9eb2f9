"""The MapReduce worker: it travels to a node, asks the front end for orders and carries them out, one at a time.

The standard library only, Python 3.8 or newer. ``splits`` reads an input's share of lines, ``mapping`` runs the mapper
over it, ``gathering`` collects and combines what it gives within a limit of memory, ``runs`` writes and merges sorted
runs, ``reducing`` fetches and merges one partition of all map outputs, ``shuffle`` carries them between nodes,
``commands`` runs what is a program and no function, and ``worker`` holds it together.
"""
