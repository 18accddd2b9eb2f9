"""What is known of files that came through the appliance, in SQLite: whose, in which lot, their digests; and the lots.

A record holds while size, time and inode are the file's; what was changed beside the appliance has none. Digests hold
while the time of the inode's last change is the file's too, which nobody can set: of a file that was written in place
and has its old time again it is still known whose it is, and no digest.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, NamedTuple

from serai.access.stores.bodies import SHA256, XXH3
from serai.data.appliance.lots import Hold, Ledger, Lot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from serai.access.stores.bodies import Digests
    from serai.clock import Clock
    from serai.data.appliance.paths import Parts

__all__ = ["Book", "Row"]

BATCH = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS files (
  path BLOB PRIMARY KEY, user TEXT NOT NULL, lot TEXT NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, ino INTEGER NOT NULL, sha256 BLOB, written REAL NOT NULL,
  xxh3 BLOB, ctime_ns INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_lot ON files (lot, written);
CREATE TABLE IF NOT EXISTS lots (name TEXT PRIMARY KEY, user TEXT NOT NULL, size INTEGER NOT NULL, until REAL NOT NULL);
"""


class Row(NamedTuple):
    """What is known of a file."""

    user: str
    lot: str
    size: int
    mtime_ns: int
    ino: int
    sha256: bytes | None = None
    xxh3: bytes | None = None
    ctime_ns: int | None = None  # when the digests were the file's

    def of(self, found: os.stat_result) -> bool:
        """Whether it is about the file that is there."""
        return (self.size, self.mtime_ns, self.ino) == (found.st_size, found.st_mtime_ns, found.st_ino)

    def digests(self, found: os.stat_result) -> Digests:
        """The digests that are known of the file that is there."""
        if not self.of(found) or self.ctime_ns != found.st_ctime_ns:
            return {}
        return {kind: digest for kind, digest in ((XXH3, self.xxh3), (SHA256, self.sha256)) if digest is not None}


_COLUMNS = "user, lot, size, mtime_ns, ino, sha256, xxh3, ctime_ns"


class Book:
    """The ledger, kept.

    Args:
        path: of the database.
        clock: tells the time.
        size: bytes that all files may have; None: what the disk has.
        disk_free: asks the disk.
        remove: takes a file away that is best effort; False when it is not there any more.
        quotas: the most bytes of each user.
    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        size: int | None,
        disk_free: Callable[[], int],
        remove: Callable[[Parts, Row], bool],
        quotas: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._clock, self._size, self._disk_free, self._remove, self._quotas = clock, size, disk_free, remove, quotas
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        os.chmod(path, 0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        have = {name for _, name, *_ in self._db.execute("PRAGMA table_info(files)")}
        for name, kind in (("xxh3", "BLOB"), ("ctime_ns", "INTEGER")):  # an earlier version's book has them not
            if name not in have:
                self._db.execute(f"ALTER TABLE files ADD COLUMN {name} {kind}")
        lots = [Lot(*row) for row in self._db.execute("SELECT name, user, size, until FROM lots")]
        used = {
            (u, lot): s for u, lot, s in self._db.execute("SELECT user, lot, SUM(size) FROM files GROUP BY user, lot")
        }
        self.ledger = Ledger(lots, used)

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._db.close()

    def reconcile(self, files: Iterable[tuple[Parts, os.stat_result]]) -> None:
        """Compare with what is there: records of files that have gone are dropped, files without one are summed up."""
        with self._lock:
            known = {path: row for path, *row in self._db.execute(f"SELECT path, {_COLUMNS} FROM files")}  # noqa: S608 - our own names
            other = 0
            for parts, found in files:
                row = known.get(b"/".join(parts))
                if row is not None and Row(*row).of(found):
                    del known[b"/".join(parts)]
                else:
                    other += found.st_size
            self._db.execute("BEGIN")
            for path, row in known.items():
                self._db.execute("DELETE FROM files WHERE path = ?", (path,))
                self.ledger.charge(row[0], row[1], -row[2])
            self._db.execute("COMMIT")
            self.ledger.other = other

    # ---- space

    def capacity(self) -> int:
        """Bytes that all files may have."""
        there = self.ledger.stored() + self._disk_free()
        return there if self._size is None else min(self._size, there)

    def hold(self, user: str, size: int, lot: str | None = None) -> Hold:
        """See `Ledger.hold`; what must go for it goes."""
        with self._lock:
            self.ledger.quotas = self._quotas()
            hold = self.ledger.hold(user, size, self.capacity(), self._clock.wall(), lot)
            self._evict(hold.evict)
            return hold

    def grow(self, hold: Hold, more: int) -> Hold:
        """See `Ledger.grow`."""
        with self._lock:
            grown = self.ledger.grow(hold, more, self.capacity(), self._clock.wall())
            self._evict(grown.evict)
            return grown

    def drop(self, hold: Hold) -> None:
        """See `Ledger.drop`."""
        with self._lock:
            self.ledger.drop(hold)

    def _evict(self, size: int) -> None:
        """Remove best-effort files: of the lots that ended first the files that were written first."""
        now = self._clock.wall()
        ended = sorted((lot.until, lot.name) for lot in self.ledger.lots.values() if not lot.live(now))
        for _, name in ended:
            while size > 0:
                rows = self._db.execute(
                    f"SELECT path, {_COLUMNS} FROM files WHERE lot = ? ORDER BY written LIMIT {BATCH}",  # noqa: S608 - our own names
                    (name,),
                ).fetchall()
                if not rows:
                    break
                for path, *columns in rows:
                    row = Row(*columns)
                    parts = tuple(path.split(b"/"))
                    if self._remove(parts, row):
                        size -= row.size
                    self.forget(parts)
                    if size <= 0:
                        return

    # ---- lots

    def reserve(self, name: str, user: str, size: int, until: float) -> Lot:
        """See `Ledger.reserve`."""
        with self._lock:
            self.ledger.quotas = self._quotas()
            lot, evict = self.ledger.reserve(name, user, size, until, self.capacity(), self._clock.wall())
            return self._kept(lot, evict)

    def renew(self, name: str, until: float) -> Lot:
        """See `Ledger.renew`."""
        with self._lock:
            lot, evict = self.ledger.renew(name, until, self.capacity(), self._clock.wall())
            return self._kept(lot, evict)

    def release(self, name: str) -> Lot:
        """See `Ledger.release`."""
        with self._lock:
            return self._kept(self.ledger.release(name, self._clock.wall()), 0)

    def _kept(self, lot: Lot, evict: int) -> Lot:
        self._evict(evict)
        self._db.execute("INSERT OR REPLACE INTO lots VALUES (?, ?, ?, ?)", (lot.name, lot.user, lot.size, lot.until))
        for name in self.ledger.prune(self._clock.wall()):
            self._db.execute("DELETE FROM lots WHERE name = ?", (name,))
        return lot

    def lots(self) -> list[tuple[Lot, int]]:
        """The lots, and how much is used of each."""
        with self._lock:
            return [(lot, self.ledger.in_lot(lot.name)) for lot in self.ledger.lots.values()]

    def sums(self) -> dict[str, int]:
        """Sizes in bytes: capacity, what is free, reserved, best effort and stored."""
        with self._lock:
            now, capacity = self._clock.wall(), self.capacity()
            return {
                "capacity": capacity,
                "free": max(0, capacity - self.ledger.taken(now)),
                "reserved": self.ledger.reserved(now),
                "best_effort": self.ledger.best_effort(now),
                "stored": self.ledger.stored(),
            }

    def usage(self) -> dict[str, int]:
        """Bytes of files by user."""
        with self._lock:
            found: dict[str, int] = {}
            for (user, _), size in self.ledger.used.items():
                found[user] = found.get(user, 0) + size
            return found

    # ---- files

    def settle(self, hold: Hold, parts: Parts, found: os.stat_result, digests: Digests) -> None:
        """A file was put in its place."""
        row = (hold.user, hold.lot, found.st_size, *_told(found, digests))
        with self._lock:
            old = self.row(parts)
            if old is not None:
                self.ledger.charge(old.user, old.lot, -old.size)
            self.ledger.settle(hold, found.st_size)
            self._db.execute(
                f"INSERT OR REPLACE INTO files (path, written, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
                (b"/".join(parts), self._clock.wall(), *row),
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context in which this thread's changes to files are written as one; others wait."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield
            finally:  # what was done with the files is done, whatever failed then
                self._db.execute("COMMIT")

    def paths(self) -> list[Parts]:
        """The files that are known."""
        with self._lock:
            return [tuple(path.split(b"/")) for (path,) in self._db.execute("SELECT path FROM files")]

    def row(self, parts: Parts) -> Row | None:
        """What is known of a file."""
        with self._lock:
            found = self._db.execute(
                f"SELECT {_COLUMNS} FROM files WHERE path = ?",  # noqa: S608 - our own names
                (b"/".join(parts),),
            ).fetchone()
        return None if found is None else Row(*found)

    def refresh(self, parts: Parts, found: os.stat_result, digests: Digests, before: os.stat_result) -> None:
        """A file that is known has another time, or a digest of it was taken.

        Args:
            parts: its path.
            found: what it is now.
            digests: those that are known.
            before: what it was; if the book knows of another file there by now, it keeps to that.
        """
        with self._lock:
            row = self.row(parts)
            if row is not None and row.of(before) and row.size == found.st_size:
                self._db.execute(
                    "UPDATE files SET mtime_ns = ?, ino = ?, sha256 = ?, xxh3 = ?, ctime_ns = ? WHERE path = ?",
                    (*_told(found, digests), b"/".join(parts)),
                )

    def forget(self, parts: Parts) -> None:
        """A file has gone; nothing is known of most."""
        with self._lock:
            row = self.row(parts)
            if row is not None:
                self._db.execute("DELETE FROM files WHERE path = ?", (b"/".join(parts),))
                self.ledger.charge(row.user, row.lot, -row.size)

    def forget_tree(self, parts: Parts) -> None:
        """A file or a directory has gone."""
        with self._lock:
            for path, *_ in list(self._below(parts)):
                self.forget(tuple(path.split(b"/")))

    def rename(self, source: Parts, target: Parts) -> None:
        """A file or a directory has another name; what was known of the place it took is forgotten first."""
        with self._lock:
            self.forget_tree(target)
            old, new = b"/".join(source), b"/".join(target)
            moved = [(new + path[len(old) :], path) for path, *_ in self._below(source)]
            self._db.execute("BEGIN")
            self._db.executemany("UPDATE files SET path = ? WHERE path = ?", moved)
            self._db.execute("COMMIT")

    def _below(self, parts: Parts) -> Iterator[tuple[bytes]]:
        path = b"/".join(parts)
        return iter(
            self._db.execute(
                "SELECT path FROM files WHERE path = ? OR (path >= ? AND path < ?)", (path, path + b"/", path + b"0")
            ).fetchall()
        )


def _told(found: os.stat_result, digests: Digests) -> tuple[int, int, bytes | None, bytes | None, int]:
    """The columns from ``mtime_ns`` on."""
    return found.st_mtime_ns, found.st_ino, digests.get(SHA256), digests.get(XXH3), found.st_ctime_ns
