"""The porter: what a front end keeps on a host for jobs and files, one process behind one session of the connection.

``calls`` runs what is asked, many at a time; ``jobs`` and ``files`` are what can be asked; ``serve`` begins.
"""
