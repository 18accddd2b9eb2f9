"""File systems, one module per scheme; `offers` is what those of Serai do over what fsspec asks for."""
