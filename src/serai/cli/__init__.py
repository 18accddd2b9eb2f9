"""The command. What a subcommand needs is imported when it is called: `serai --help` is quick."""

from __future__ import annotations

from serai.cli.main import main

__all__ = ["main"]
