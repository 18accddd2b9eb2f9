"""What travels to nodes: the standard library only, Python 3.8 or newer.

Each folder is a program that runs on nodes where nothing was installed: ``executor`` runs tasks. They share
``frames`` (what is said to them, and by them) and ``processes``. ``boot`` and ``stream`` stay at home: they pack a
program as source text and start it behind a byte stream. Modules import one another relatively, because on the node
their package has another name.
"""
