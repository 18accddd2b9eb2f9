"""A record of which parts of which files were read, in JSON lines: from it is learnt how much a program reads."""

from __future__ import annotations

import json
import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .contents import Use

MOST_RANGES = 1000


class Record:
    """Writes lines; the last one of a file holds for it, from the beginning of the mount on.

    Args:
        path: of the file that lines are added to; None for no record.
    """

    def __init__(self, path: str | None) -> None:
        self._lock = threading.Lock()
        self._fd = -1
        if path is not None:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, url: str, use: Use) -> None:
        """Note how a file was used so far, if it was read at all."""
        if self._fd < 0:
            return
        with use.lock:
            if not use.read.spans and not use.moved:
                return
            spans = joined(use.read.spans)
            line = {
                "url": url,
                "size": use.size,
                "read_bytes": use.read.total(),
                "ranges": spans,
                "moved_bytes": use.moved,
                "took_s": round(use.took_s, 6),
                "from": use.source,
                "missed": dict(use.missed),
            }
        data = (json.dumps(line) + "\n").encode("ascii")
        with self._lock:
            try:
                os.write(self._fd, data)
            except OSError as error:  # a task does not fail for want of it
                sys.stderr.write("mount: no record: %s\n" % error)

    def close(self) -> None:
        """End it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def joined(spans: list[tuple[int, int]]) -> list[list[int]]:
    """Spans as pairs [start, stop]; of too many the nearest ones become one."""
    if len(spans) <= MOST_RANGES:
        return [[start, stop] for start, stop in spans]
    gaps = sorted(range(1, len(spans)), key=lambda at: spans[at - 1][1] - spans[at][0])
    breaks = [0, *sorted(gaps[: MOST_RANGES - 1]), len(spans)]
    return [[spans[breaks[at]][0], spans[breaks[at + 1] - 1][1]] for at in range(len(breaks) - 1)]
