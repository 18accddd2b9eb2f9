"""How another process of the same user reaches a run that goes on: a unix socket beside its journal."""
