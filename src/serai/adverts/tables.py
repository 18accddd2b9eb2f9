"""The advert service in two tables of an SQL database, whichever it is.

One table has a row per path. A row that is gone stays for an hour, so that watchers learn of it; the version of the
latest that was dropped is the *horizon*: who saw less than that begins again. The other table has one row with the last
version and the horizon; writers take their turns at it, so that versions become visible in order and no watcher passes
over one.

What has expired is gone for every reader at once, by the time alone. Its row is *swept* later: by whoever watches, at
that moment, because watchers are told; else by writers now and then.
"""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from serai.adverts import attributes as values
from serai.adverts import paths
from serai.adverts.service import LONGEST_LIFE_S, MOST_LISTED, PAGE, Adverts, Change, Entry, Kind, Watched
from serai.errors import QueueFull, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.adverts.attributes import Value
    from serai.clock import Clock

__all__ = ["SCHEMA", "SCHEMA_VERSION", "Bell", "TableAdverts", "Transaction"]

T = TypeVar("T")

SCHEMA_VERSION = 1
# {text} is a type of text that is ordered by its bytes. gone: '' for a row that is there, else how it went.
SCHEMA = """
CREATE TABLE serai_adverts (
  path {text} PRIMARY KEY, parent {text} NOT NULL, attributes TEXT NOT NULL, expires {real}, version BIGINT NOT NULL,
  created BIGINT NOT NULL, owner TEXT, owned_until {real}, gone TEXT NOT NULL DEFAULT '', gone_at {real});
CREATE INDEX serai_adverts_parent ON serai_adverts (parent, path);
CREATE INDEX serai_adverts_version ON serai_adverts (version);
CREATE INDEX serai_adverts_expires ON serai_adverts (expires) WHERE gone = '' AND expires IS NOT NULL;
CREATE INDEX serai_adverts_owned ON serai_adverts (owned_until) WHERE gone = '' AND owned_until IS NOT NULL;
CREATE INDEX serai_adverts_gone ON serai_adverts (gone_at) WHERE gone_at IS NOT NULL;
CREATE TABLE serai_adverts_turn (one INTEGER PRIMARY KEY, schema INTEGER NOT NULL, last BIGINT NOT NULL,
  horizon BIGINT NOT NULL);
INSERT INTO serai_adverts_turn VALUES (1, {version}, 1, 0)
"""
KEEP_GONE_S = 3600.0
SWEEP_EVERY_S = 5.0  # by writers; watchers sweep when it is due
MOST_SWEPT = 1000  # rows in one transaction
LONGEST_WAIT_S = 5.0  # between two looks of a watcher: the clock of the service may be set

_LAST = "/\U0010ffff"  # comes after every path below a directory: no path holds this character
_COLUMNS = "path, attributes, expires, version, owner, owned_until"
_THERE = "gone = '' AND (expires IS NULL OR expires > :now)"
_BELOW = "path >= :first AND path < :stop"
_UPSERT = """
INSERT INTO serai_adverts (path, parent, attributes, expires, version, created, owner, owned_until)
VALUES (:path, :parent, :attributes, :expires, :version, :created, :owner, :owned_until)
ON CONFLICT (path) DO UPDATE SET attributes = excluded.attributes, expires = excluded.expires,
  version = excluded.version, created = excluded.created, owner = excluded.owner, owned_until = excluded.owned_until,
  gone = '', gone_at = NULL
"""


class Bell:
    """Wakes those who wait for a change. It may ring for nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = 0
        self._waiting = 0

    @property
    def rung(self) -> int:
        """How often it rang: to be asked for before looking, and given to `wait` after it."""
        return self._rung

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    def ring(self) -> None:
        """Wake them all."""
        with self._changed:
            self._rung += 1
            self._changed.notify_all()

    def wait(self, rung: int, timeout_s: float) -> None:
        """Wait until it has rung since then."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._rung != rung, timeout_s)
            finally:
                self._waiting -= 1


class Transaction(Protocol):
    """A transaction of the database.

    Attributes:
        now: the time by the service's clock.
        last: the last version that was given; a writer's to increase.
        horizon: see this module.
    """

    now: float
    last: int
    horizon: int

    def execute(self, sql: str, **values: object) -> Sequence[Sequence[Any]]:
        """Run a statement, with values for its ``:names``, and return its rows."""
        ...


@dataclass(frozen=True, slots=True)
class _Look:
    """What a watcher sees."""

    changes: tuple[Change, ...]
    version: int
    due_s: float | None  # until the next entry or claim ends; it has, where this is not positive


class TableAdverts(Adverts):
    """The service over transactions, which a subclass gives.

    Args:
        bell: rings when somebody, here or elsewhere, may have changed something.
        clock: for waiting; what is written is by the clock of the transactions.
    """

    def __init__(self, bell: Bell, clock: Clock) -> None:
        self._bell = bell
        self._clock = clock
        self._closed = False
        self._swept_at = -SWEEP_EVERY_S

    @abstractmethod
    def _read(self, work: Callable[[Transaction], T]) -> T:
        """Run it in a transaction that sees one moment."""

    @abstractmethod
    def _write(self, work: Callable[[Transaction], T], *, repeatable: bool = True) -> T:
        """Run it while nobody else writes; then store `last` and ring, if it is greater than it was.

        Args:
            work: what is run, twice perhaps.
            repeatable: it may be done again where it is not known whether it was.
        """

    @abstractmethod
    def _renew(self, path: str, ttl_s: float | None) -> bool:
        """Set when an entry that is there expires, out of turn: renewals are many and no changes."""

    def now(self) -> float:
        """See `Adverts.now`."""
        return self._read(lambda tx: tx.now)

    # ---- entries

    def put(
        self, path: str, attributes: Mapping[str, Value], ttl_s: float | None = None, *, exclusive: bool = False
    ) -> int:
        """See `Adverts.put`."""
        path, text, ttl_s = paths.entry(path), values.packed(attributes), _life(ttl_s)

        def work(tx: Transaction) -> int:
            old = _find(tx, path)
            if old is not None and exclusive:
                raise FileExistsError(f"there is an entry {path}")
            expires = None if ttl_s is None else tx.now + ttl_s
            return _store(tx, path, text, expires, old)

        return self._change(work, repeatable=not exclusive)

    def update(self, path: str, attributes: Mapping[str, Value]) -> int:
        """See `Adverts.update`."""
        path = paths.entry(path)
        values.packed(attributes)

        def work(tx: Transaction) -> int:
            old = _found(tx, path)
            return _store(tx, path, values.packed({**old.entry.attributes, **attributes}), old.entry.expires, old)

        return self._change(work)

    def get(self, path: str) -> Entry | None:
        """See `Adverts.get`."""
        path = paths.entry(path)
        old = self._read(lambda tx: _find(tx, path))
        return None if old is None else old.entry

    def page(self, directory: str, *, recursive: bool = False, after: str = "", most: int = PAGE) -> list[Entry]:
        """See `Adverts.page`."""
        directory, most = paths.directory(directory), max(1, min(most, PAGE))
        first, stop = paths.span(directory)
        which = _BELOW if recursive else "parent = :directory"

        def work(tx: Transaction) -> list[Entry]:
            rows = tx.execute(
                f"SELECT {_COLUMNS} FROM serai_adverts WHERE {which} AND path > :after AND {_THERE} "  # noqa: S608 - no value is in the text
                "ORDER BY path LIMIT :most",
                directory=directory, first=first, stop=stop, after=after, most=most, now=tx.now,
            )  # fmt: skip
            return [_entry(row, tx.now) for row in rows]

        return self._read(work)

    def directories(self, directory: str = "/") -> list[str]:
        """See `Adverts.directories`."""
        directory = paths.directory(directory)
        first, stop = paths.span(directory)

        def work(tx: Transaction) -> list[str]:
            found: set[str] = set()
            after = first
            while len(found) < MOST_LISTED:  # from one directory to the next, past all that is below
                rows = tx.execute(
                    "SELECT parent FROM serai_adverts WHERE parent > :after AND parent < :stop "  # noqa: S608 - no value is in the text
                    f"AND {_THERE} ORDER BY parent LIMIT 1",
                    after=after, stop=stop, now=tx.now,
                )  # fmt: skip
                if not rows:
                    break
                after = rows[0][0]
                one = first + after[len(first) :].partition("/")[0]
                found.add(one)
                if after != one:  # "a-b" stands between "a" and "a/b"
                    after = one + _LAST
            return sorted(found)

        return self._read(work)

    def renew(self, path: str, ttl_s: float | None) -> None:
        """See `Adverts.renew`."""
        path = paths.entry(path)
        if not self._renew(path, _life(ttl_s)):
            raise FileNotFoundError(f"there is no entry {path}")

    def remove(self, path: str, *, recursive: bool = False) -> int:
        """See `Adverts.remove`."""
        path = paths.directory(path) if recursive else paths.entry(path)

        def work(tx: Transaction) -> int:
            first, stop = paths.span(path)
            which = f"(path = :path OR {_BELOW})" if recursive else "path = :path"
            rows = tx.execute(
                f"SELECT path FROM serai_adverts WHERE {which} AND {_THERE} ORDER BY path",  # noqa: S608 - the same
                path=path, first=first, stop=stop, now=tx.now,
            )  # fmt: skip
            for (one,) in rows:
                _end(tx, one, "removed")
            return len(rows)

        removed = self._change(work, repeatable=False)
        if not removed:
            raise FileNotFoundError(f"there is no entry {path or '/'}" + (" and none below" if recursive else ""))
        return removed

    # ---- claims

    def claim(self, path: str, owner: str, for_s: float) -> bool:
        """See `Adverts.claim`."""
        path, owner = paths.entry(path), _owner(owner)
        _life(for_s)

        def work(tx: Transaction) -> bool:
            old = _found(tx, path)
            if old.entry.owner not in {None, owner}:
                return False
            _own(tx, path, owner, tx.now + for_s)
            return True

        return self._change(work)

    def release(self, path: str, owner: str) -> None:
        """See `Adverts.release`."""
        path, owner = paths.entry(path), _owner(owner)

        def work(tx: Transaction) -> None:
            old = _found(tx, path)
            if old.entry.owner not in {None, owner}:
                raise PermissionError(f"{path} is claimed by {old.entry.owner}, not by {owner}")
            if old.entry.owner is not None:
                _own(tx, path, None, None)

        self._change(work)

    # ---- changes

    def watch(self, directory: str, since: int | None = None, deadline_s: float = 20.0) -> Watched:
        """See `Adverts.watch`."""
        directory = paths.directory(directory)
        end = self._clock.now() + deadline_s
        while True:
            rung = self._bell.rung
            look = self._read(lambda tx, since=since: _look(tx, directory, since))  # type: ignore[misc] # a default
            if look.due_s is not None and look.due_s <= 0:
                self._sweep()
                continue
            left_s = end - self._clock.now()
            if look.changes or left_s <= 0:
                return Watched(look.changes, look.version)
            since = look.version
            due_s = LONGEST_WAIT_S if look.due_s is None else look.due_s + 0.001
            self._bell.wait(rung, min(left_s, due_s, LONGEST_WAIT_S))

    def close(self) -> None:
        """See `Adverts.close`."""
        self._closed = True
        self._bell.ring()

    def _change(self, work: Callable[[Transaction], T], *, repeatable: bool = True) -> T:
        if self._clock.now() - self._swept_at > SWEEP_EVERY_S:
            self._swept_at = self._clock.now()
            self._sweep()
        return self._write(work, repeatable=repeatable)

    def _sweep(self) -> None:
        self._write(_sweep)


@dataclass(frozen=True, slots=True)
class _Row:
    entry: Entry
    created: int


def _find(tx: Transaction, path: str) -> _Row | None:
    rows = tx.execute(
        f"SELECT {_COLUMNS}, created FROM serai_adverts WHERE path = :path AND {_THERE}",  # noqa: S608 - no value is in the text
        path=path, now=tx.now,
    )  # fmt: skip
    return _Row(_entry(rows[0], tx.now), rows[0][6]) if rows else None


def _found(tx: Transaction, path: str) -> _Row:
    row = _find(tx, path)
    if row is None:
        raise FileNotFoundError(f"there is no entry {path}")
    return row


def _entry(row: Sequence[Any], now: float) -> Entry:
    path, text, expires, version, owner, owned_until = row[:6]
    if owned_until is not None and owned_until <= now:
        owner = owned_until = None
    return Entry(path, json.loads(text), expires, version, owner, owned_until)


def _store(tx: Transaction, path: str, text: str, expires: float | None, old: _Row | None) -> int:
    tx.last += 1
    tx.execute(
        _UPSERT, path=path, parent=paths.parent(path), attributes=text, expires=expires, version=tx.last,
        created=old.created if old else tx.last, owner=old.entry.owner if old else None,
        owned_until=old.entry.owned_until if old else None,
    )  # fmt: skip
    return tx.last


def _own(tx: Transaction, path: str, owner: str | None, until: float | None) -> None:
    tx.last += 1
    tx.execute(
        "UPDATE serai_adverts SET owner = :owner, owned_until = :until, version = :version WHERE path = :path",
        path=path, owner=owner, until=until, version=tx.last,
    )  # fmt: skip


def _end(tx: Transaction, path: str, how: str) -> None:
    tx.last += 1
    tx.execute(
        "UPDATE serai_adverts SET gone = :how, gone_at = :now, version = :version, attributes = '{}', expires = NULL, "
        "owner = NULL, owned_until = NULL WHERE path = :path",
        path=path, how=how, now=tx.now, version=tx.last,
    )  # fmt: skip


def _sweep(tx: Transaction) -> None:
    """Let what has expired be gone, and claims that have ended; drop what was gone long ago."""
    expired = tx.execute(
        "SELECT path FROM serai_adverts WHERE gone = '' AND expires <= :now ORDER BY expires, path LIMIT :most",
        now=tx.now, most=MOST_SWEPT,
    )  # fmt: skip
    for (path,) in expired:
        _end(tx, path, "expired")
    ended = tx.execute(
        "SELECT path FROM serai_adverts WHERE gone = '' AND owned_until <= :now ORDER BY owned_until, path LIMIT :most",
        now=tx.now, most=MOST_SWEPT,
    )  # fmt: skip
    for (path,) in ended:
        _own(tx, path, None, None)
    dropped = tx.execute(
        "SELECT path, version FROM serai_adverts WHERE gone_at < :before ORDER BY gone_at LIMIT :most",
        before=tx.now - KEEP_GONE_S, most=MOST_SWEPT,
    )  # fmt: skip
    for path, version in dropped:
        tx.execute("DELETE FROM serai_adverts WHERE path = :path", path=path)
        tx.horizon = max(tx.horizon, version)
    if dropped:
        tx.execute("UPDATE serai_adverts_turn SET horizon = :horizon", horizon=tx.horizon)


def _look(tx: Transaction, directory: str, since: int | None) -> _Look:
    first, stop = paths.span(directory)
    span = {"directory": directory, "first": first, "stop": stop, "now": tx.now}
    which = f"(path = :directory OR {_BELOW})" if directory else _BELOW
    due = [
        tx.execute(
            f"SELECT {column} FROM serai_adverts WHERE gone = '' AND {column} IS NOT NULL AND {which} "  # noqa: S608 - no value is in the text
            f"ORDER BY {column} LIMIT 1",
            **span,
        )
        for column in ("expires", "owned_until")
    ]
    due_s = min((rows[0][0] - tx.now for rows in due if rows), default=None)
    if since is None or (due_s is not None and due_s <= 0):
        return _Look((), tx.last, due_s)
    anew = not tx.horizon <= since <= tx.last  # greater than the last: of another database, before this one
    limit = MOST_LISTED if anew or not since else PAGE
    rows = tx.execute(
        f"SELECT {_COLUMNS}, created, gone FROM serai_adverts WHERE version > :since AND {which} "  # noqa: S608 - no value is in the text
        + ("AND gone = '' " if anew or not since else "")
        + "ORDER BY version LIMIT :most",
        since=0 if anew else since, most=limit + 1, **span,
    )  # fmt: skip
    if len(rows) > limit == MOST_LISTED:
        raise QueueFull(f"more than {MOST_LISTED} entries are in {directory or '/'}", hint="watch a smaller directory")
    changes = [Change("reset", directory or "/", tx.last)] if anew and since else []
    for row in rows[:limit]:
        *_, created, gone = row
        kind: Kind = gone or ("added" if created > since or anew else "changed")
        changes.append(Change(kind, row[0], row[3], None if gone else _entry(row, tx.now)))
    return _Look(tuple(changes), rows[limit - 1][3] if len(rows) > limit else tx.last, due_s)


def _life(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= LONGEST_LIFE_S:
        raise UsageError(f"{seconds!r} seconds is no life of an advert", hint="more than 0, and a year at most")
    return seconds


def _owner(owner: str) -> str:
    if not 0 < len(owner.encode("utf-8", "replace")) <= paths.LONGEST_PART or not owner.isprintable():
        raise UsageError(f"{owner[:60]!r} cannot be an owner")
    return owner
