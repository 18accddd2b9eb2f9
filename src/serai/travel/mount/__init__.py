"""Remote data as files: the kernel's FUSE protocol, spoken over ``/dev/fuse`` by a program that travels.

Nothing is installed for it: no libfuse, no fusermount. ``namespace`` makes the mount inside a user and mount namespace
of the program's own, ``session`` answers the kernel, ``tree`` and ``serving`` know names and files, ``contents`` and
``blocks`` fetch and keep parts of files, ``drafts`` holds what is written until it is closed, and ``sources`` with its
kin say where all of it comes from. ``wrap`` puts them together for a task or a command.
"""
