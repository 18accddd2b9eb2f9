"""How copies are carried out: the two ends, what lies there, the ways between, and who carries."""
