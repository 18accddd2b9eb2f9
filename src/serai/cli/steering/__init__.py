"""Commands that reach into a run that goes on."""
