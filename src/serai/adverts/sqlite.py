"""The advert service in an SQLite file, for the processes of one machine.

It is in WAL mode: readers hold up nobody, and a commit waits for no disk. (After a power cut the last may be missing;
then those who made them are gone too.) Processes on other machines must not share the file, also not over NFS: its name
says whose it is, where a home directory is shared.

Who waits for a change is woken at once by its own process. What other processes commit is seen by
``PRAGMA data_version``, which reads a number in shared memory: looked at after 2 ms, then less and less often, down to
every 20 ms, and only while somebody waits.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from serai.adverts.tables import SCHEMA, SCHEMA_VERSION, Bell, TableAdverts, Transaction
from serai.clock import SystemClock
from serai.errors import DeadlineExceeded, HostUnreachable, SeraiError, UsageError
from serai.session.home import state_directory
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serai.clock import Clock

__all__ = ["SqliteAdverts", "default_path", "from_url"]

T = TypeVar("T")

BUSY_S = 20.0  # how long to wait for one's turn
SHORTEST_POLL_S = 0.002
LONGEST_POLL_S = 0.02
IDLE_S = 1.0  # how long to go on looking when nobody waits
PAUSE_S = 0.5
_TOO_NEW = "it was written by another version of Serai"


def default_path(environment: Mapping[str, str]) -> Path:
    """Where adverts are kept when nobody says."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename) or "localhost"
    return state_directory(environment) / f"adverts-{host}.sqlite"


def from_url(url: str, environment: Mapping[str, str]) -> SqliteAdverts:
    """Open ``sqlite:`` (the usual place), ``sqlite:///absolute/path`` or ``sqlite:relative/path``."""
    parsed = Url.parse(url)
    parsed.options(frozenset())
    if parsed.host is not None:
        raise UsageError(f"{url} names a host", hint="three slashes: sqlite:///path")
    path = parsed.path
    if path.startswith("/"):  # three slashes or, as some write it, four: both are absolute
        path = "/" + path.lstrip("/")
    return SqliteAdverts(Path(path) if path else default_path(environment), SystemClock())


class _WalBell(Bell):
    """Rings when any process has changed the file; the objects of one process share it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()
        self._looking = False

    def wait(self, rung: int, timeout_s: float) -> None:
        """See `Bell.wait`."""
        with self._lock:
            if not self._looking:
                self._looking = True
                threading.Thread(target=self._look, name="adverts-poll", daemon=True).start()
                rung = -1  # what was committed before the first look at the file would be passed over: look again
        super().wait(rung, timeout_s)

    def _look(self) -> None:
        step_s, seen, idle_s = SHORTEST_POLL_S, None, 0.0
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(self._path, "ro")) as connection:
            while idle_s < IDLE_S:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen, step_s = version, SHORTEST_POLL_S
                    self.ring()
                threading.Event().wait(step_s)
                step_s = min(step_s * 1.5, LONGEST_POLL_S)
                idle_s = 0.0 if self.waiting else idle_s + step_s
        if self.waiting:  # the file cannot be read: not so soon again
            threading.Event().wait(PAUSE_S)
        with self._lock:
            self._looking = False
        self.ring()  # whoever came to wait meanwhile looks again, and starts another


_BELLS: weakref.WeakValueDictionary[str, _WalBell] = weakref.WeakValueDictionary()
_BELLS_LOCK = threading.Lock()


def _bell(path: str) -> _WalBell:
    with _BELLS_LOCK:
        bell = _BELLS.get(path)
        if bell is None:
            bell = _BELLS[path] = _WalBell(path)
        return bell


def _make(path: Path) -> None:
    """Make an empty file for this user only, unless it is there.

    One that is there is not even opened: to close it would drop the locks of this process's other connections (fcntl's,
    see sqlite.org/howtocorrupt.html, 2.2). Another process would then take itself for the last one, and throw away the
    log that they go on reading.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class SqliteAdverts(TableAdverts):
    """See this module.

    Args:
        path: the file; it and its directory are made, for this user only, where they are missing.
        clock: what tells the time; the same for all who share the file.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path.expanduser().absolute()
        super().__init__(_bell(os.path.realpath(self.path)), clock)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(self.path)
            self._connection = _connect(str(self.path), "rw")
        except (OSError, sqlite3.Error) as error:
            raise SeraiError(f"the adverts in {self.path} cannot be opened: {error}") from error
        try:
            self._make()
        except SeraiError:
            self._connection.close()
            raise

    def close(self) -> None:
        """See `Adverts.close`."""
        super().close()
        with self._lock:
            self._connection.close()

    def _make(self) -> None:
        with self._turn():
            (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise SeraiError(f"the adverts in {self.path} cannot be shared: SQLite's journal is {mode!r} there")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("BEGIN IMMEDIATE")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.format(text="TEXT", real="REAL", version=SCHEMA_VERSION).split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("COMMIT")
            if version not in {0, SCHEMA_VERSION}:
                raise SeraiError(f"the adverts in {self.path} cannot be used: {_TOO_NEW}", hint="name another file")

    def _read(self, work: Callable[[Transaction], T]) -> T:
        with self._turn():
            self._connection.execute("BEGIN")
            done = work(_SqliteTransaction(self._connection, self._clock.wall()))
            self._connection.execute("COMMIT")
            return done

    def _write(self, work: Callable[[Transaction], T], *, repeatable: bool = True) -> T:
        with self._turn():
            self._connection.execute("BEGIN IMMEDIATE")
            transaction = _SqliteTransaction(self._connection, self._clock.wall())
            before = transaction.last
            done = work(transaction)
            if transaction.last != before:
                transaction.execute("UPDATE serai_adverts_turn SET last = :last", last=transaction.last)
            self._connection.execute("COMMIT")
        if transaction.last != before:
            self._bell.ring()
        return done

    def _renew(self, path: str, ttl_s: float | None) -> bool:
        now = self._clock.wall()
        with self._turn():
            cursor = self._connection.execute(
                "UPDATE serai_adverts SET expires = ? WHERE path = ? AND gone = '' "
                "AND (expires IS NULL OR expires > ?)",
                (None if ttl_s is None else now + ttl_s, path, now),
            )  # fmt: skip
            return cursor.rowcount == 1

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only thread that uses the connection, leave no transaction open, and say errors in our own words."""
        if not self._lock.acquire(timeout=BUSY_S):
            raise DeadlineExceeded(f"other threads held the adverts in {self.path} for {BUSY_S:g} s")
        try:
            if self._closed:
                raise HostUnreachable("the advert service was closed here")
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                what = f"other processes held the adverts in {self.path} for {BUSY_S:g} s"
                raise DeadlineExceeded(what, hint=f"who has it open: fuser {self.path}") from error
            raise SeraiError(f"the adverts in {self.path} cannot be used: {error}") from error
        finally:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._lock.release()


class _SqliteTransaction:
    """See `Transaction`."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self.now = now
        self.last, self.horizon = connection.execute("SELECT last, horizon FROM serai_adverts_turn").fetchone()

    def execute(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """See `Transaction.execute`."""
        return self._connection.execute(sql, values).fetchall()


def _connect(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,  # transactions begin where it is said
        check_same_thread=False,  # a lock sees to it
    )
