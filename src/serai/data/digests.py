"""What was learnt of origins, for later runs: their digests, by which nodes' caches know them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = "digests.db"
MOST = 1_000_000  # origins; those learnt first are forgotten first
AT_ONCE = 200  # learnt digests that wait to be written
YOUNG_S = 0.1  # a file that was just written may be written again without another time …
COARSE_S = 2.5  # … where times are whole seconds, for longer
WAIT_S = 2.0
Stamp = tuple[str, ...]


class Digests:
    """The digests of origins, in a database beside the runs. Any thread may call it.

    It only spares work: where it cannot be read or written, nothing is remembered.

    Args:
        directory: the state directory.
        wall: seconds since the epoch.
    """

    def __init__(self, directory: Path, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._learnt: dict[str, tuple[Stamp, str]] = {}
        self._path = directory / FILE
        self._database: sqlite3.Connection | None = None

    def get(self, origin: str, stamp: Stamp) -> str:
        """The digest of an origin with a stamp; empty where nobody knows."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError):
            row = self._open().execute("SELECT stamp, digest FROM digest WHERE origin = ?", (_key(origin),)).fetchone()
            if row is not None and row[0] == "\n".join(stamp):
                return str(row[1])
        return ""

    def put(self, origin: str, stamp: Stamp, digest: str) -> None:
        """An origin was read."""
        if not _tells(stamp):
            return
        if os.path.isabs(origin):
            at_ns = int(stamp[-1])
            if self._wall() - at_ns * 1e-9 < (YOUNG_S if at_ns % 1_000_000_000 else COARSE_S):
                return
        with self._lock:
            self._learnt[origin] = (stamp, digest)
            if len(self._learnt) >= AT_ONCE:
                self._flush()

    def close(self) -> None:
        """Write what was learnt."""
        with self._lock:
            self._flush()
            if self._database is not None:
                self._database.close()
                self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = sqlite3.connect(self._path, WAIT_S, check_same_thread=False)
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = OFF")  # it only spares work
            found.execute("CREATE TABLE IF NOT EXISTS digest (origin TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
            self._database = found
        return self._database

    def _flush(self) -> None:
        learnt, self._learnt = self._learnt, {}
        if not learnt:
            return
        rows = [(_key(origin), "\n".join(stamp), digest) for origin, (stamp, digest) in learnt.items()]
        with contextlib.suppress(sqlite3.Error, OSError), self._open() as database:
            database.executemany("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", rows)
            database.execute("DELETE FROM digest WHERE rowid <= (SELECT max(rowid) FROM digest) - ?", (MOST,))


def _key(origin: str) -> str | bytes:
    """An origin as the database takes it: a name that is no UTF-8 has surrogates."""
    return origin if origin.isascii() else origin.encode("utf-8", "surrogateescape")


def _tells(stamp: Stamp) -> bool:
    """Whether a stamp says more than a size, which a file may have again with other bytes in it."""
    return sum(one not in {"None", ""} for one in stamp) > 1


__all__ = ["Digests"]
