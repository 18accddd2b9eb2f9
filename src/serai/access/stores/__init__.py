"""Storage appliances as clients see them: their certificates and tokens, and their files over HTTP."""
