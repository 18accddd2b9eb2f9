"""Reading files from afar, in parts: where they come from, which parts are kept, and how far ahead is read.

``sources`` is the port and ``web`` and ``relayed`` what has it over a network; ``careful`` gives every call a deadline;
``contents`` asks for what is missing, ``blocks`` keeps it for all programs of this user, ``ahead`` learns how a program
reads, and ``record`` tells which parts it read.
"""
