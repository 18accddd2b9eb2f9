"""What a front end read of origins, for later runs: their digests, by which nodes' caches know them.

Only what a front end itself has read is remembered: a node that says something else than what it read would decide what
the tasks of later runs, and of other nodes, read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FILE = "digests.db"
MOST = 1_000_000  # origins; those learnt first are forgotten first
MOST_WAITING = 100_000  # learnt digests that wait to be written; further ones are not
ASKED = 500  # origins in one question
LOOK_S = 2.0  # between two times that what was learnt is written
YOUNG_S = 0.1  # a file that was just written may be written again without another time …
COARSE_S = 2.5  # … where times are whole seconds, for longer
READ_S = 0.05  # for others to let the database be read: what is not known is read, and no harm done
WAIT_S = 2.0  # … and be written to, by a thread that nobody waits for
Stamp = tuple[str, ...]


class Digests:
    """The digests of origins, in a database beside the runs. Any thread may call it.

    It only spares work: where it cannot be read at once, or not written, nothing is remembered. A thread of its own
    writes, so that nobody waits for that.

    Args:
        directory: the state directory.
        wall: seconds since the epoch.
    """

    def __init__(self, directory: Path, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._path = directory / FILE
        self._lock = threading.Lock()  # never held while the database is asked
        self._learnt: dict[str, tuple[Stamp, str]] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def get(self, asked: Sequence[tuple[str, Stamp]]) -> list[str]:
        """The digests of origins with their stamps, in that order; empty where nobody knows."""
        known: dict[str | bytes, tuple[str, str]] = {}
        with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(self._open("ro", READ_S)) as database:
            keys = [_key(origin) for origin, _ in asked]
            for at in range(0, len(keys), ASKED):
                some = keys[at : at + ASKED]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT origin, stamp, digest FROM seen WHERE origin IN ({marks})", some)  # noqa: S608 - question marks
                known.update((origin, (stamp, digest)) for origin, stamp, digest in rows)
        found = ((*known.get(_key(origin), ("", "")), stamp) for origin, stamp in asked)
        return [digest if text == "\n".join(stamp) else "" for text, digest, stamp in found]

    def is_settled(self, origin: str, stamp: Stamp) -> bool:
        """Whether who writes to an origin from now on gives it another stamp; to be asked before it is read."""
        if not os.path.isabs(origin):
            return True
        at_ns = int(stamp[-1])
        return self._wall() - at_ns * 1e-9 >= (YOUNG_S if at_ns % 1_000_000_000 else COARSE_S)

    def put(self, origin: str, stamp: Stamp, digest: str) -> None:
        """An origin was read, which `is_settled` when that began; returns at once."""
        if not tells(stamp):
            return
        with self._lock:
            if len(self._learnt) < MOST_WAITING:
                self._learnt[origin] = (stamp, digest)
            if self._thread is None and not self._end.is_set():
                self._thread = threading.Thread(target=self._work, name="digests", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what was learnt, if that can be done soon."""
        self._end.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(WAIT_S + 1.0)

    def _work(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(LOOK_S)
            with self._lock:
                learnt, self._learnt = self._learnt, {}
            try:
                self._write(learnt)
            except (sqlite3.Error, OSError):
                with self._lock:
                    self._learnt = {**learnt, **self._learnt}  # tried again

    def _write(self, learnt: dict[str, tuple[Stamp, str]]) -> None:
        if not learnt:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        rows = [(_key(origin), "\n".join(stamp), digest) for origin, (stamp, digest) in learnt.items()]
        with contextlib.closing(self._open("rwc", WAIT_S)) as database, database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")  # it only spares work
            database.execute("DROP TABLE IF EXISTS digest")  # in which earlier versions believed nodes
            database.execute("CREATE TABLE IF NOT EXISTS seen (origin TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
            database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)
            database.execute("DELETE FROM seen WHERE rowid <= (SELECT max(rowid) FROM seen) - ?", (MOST,))

    def _open(self, mode: str, wait_s: float) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode={mode}", wait_s, uri=True)


def _key(origin: str) -> str | bytes:
    """An origin as the database takes it: a name that is no UTF-8 has surrogates."""
    return origin if origin.isascii() else origin.encode("utf-8", "surrogateescape")


def tells(stamp: Stamp) -> bool:
    """Whether a stamp says more than a size, which a file may have again with other bytes in it."""
    return sum(one not in {"None", ""} for one in stamp) > 1


__all__ = ["Digests", "tells"]
