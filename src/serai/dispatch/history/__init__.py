"""Looking at runs: what their journals say, while they run and after they ended, however they ended."""

from __future__ import annotations

from serai.dispatch.history.archive import Archive, find_run, parse_task
from serai.dispatch.history.liveness import front_end_facts
from serai.dispatch.history.reading import History

__all__ = ["Archive", "History", "find_run", "front_end_facts", "parse_task"]
