"""What happened in a run, as JSON lines in its directory and in memory: who did what, and when."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from serai.clock import Clock

NAME = "events.jsonl"


class Record:
    """Keeps events in the order in which they happened.

    Args:
        path: the file they are written to.
        clock: tells the time; an event's ``t`` is in seconds since this was made.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)  # whole lines, also when we are killed
        self.events: list[dict[str, Any]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return self._clock.now() - self._began

    def note(self, what: str, **facts: Any) -> dict[str, Any]:
        """Note an event; returns it."""
        with self._lock:
            event = {"t": round(self.elapsed_s, 4), "what": what, **facts}
            self.events.append(event)
            if not self._file.closed:
                self._file.write(json.dumps(event, separators=(",", ":"), default=str) + "\n")
        return event

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Reads a record; a last line that was cut off is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events
