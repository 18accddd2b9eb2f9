"""Bringing files into a node's cache: each once, however many want it; from a peer, its origin, or the front end.

Threads of its own do the waiting. What comes from the front end is handed in piece by piece (`Fetches.piece`), by
whoever reads what it says.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

from ..peers import Gone, Unreachable
from ..reading.direct import SILENT_S, Direct, Unreached
from ..reading.sources import OF_THE_FILE
from .objects import Altered, Filling, NoRoom, stamp_of
from .recalled import Recalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..peers import Peers
    from .objects import Cache, Stamp

AT_ONCE = 4  # files that come at a time
STALL_S = 60.0  # without a byte from the front end
LOOK_S = 0.5
GRANT_S = 15.0  # for the front end to let this node read a file at its origin, again
MOST_BREAKS = 3  # of one file from its origin, each after …
WORTH = 1 << 16  # … so many bytes
MOST_WAITING = 1_000_000
CACHED, FROM, SENT = "cached", "from", "sent"  # how a file came


class Source:
    """A peer that may have a file."""

    def __init__(self, node: str, addresses: Sequence[str], port: int, name: str) -> None:
        self.node = node
        self.addresses = [str(one) for one in addresses]
        self.port = int(port)
        self.name = name


class Origin:
    """Where a file is read without the front end.

    Args:
        grant: what is shown there, see `Direct`, with the origin's ``name``.
    """

    def __init__(self, grant: Mapping[str, Any]) -> None:
        self.node = str(grant["name"])
        self.key = str(grant.get("key", ""))  # what the front end calls this version of the file
        self.grant = grant
        self.tells = bool(grant.get("etag") or grant.get("modified"))  # whether other versions are told from this one


class Wanted:
    """A file that a bundle reads.

    Args:
        number: that the front end gave it.
        size: bytes.
        digest: empty when nobody has read it yet.
        sources: peers and its origin, to be tried in this order.
        front_first: the front end is asked before them.
    """

    def __init__(
        self, number: int, size: int, digest: str, sources: Sequence[Source | Origin] = (), *, front_first: bool = False
    ) -> None:
        self.number = number
        self.size = size
        self.digest = digest
        self.sources = list(sources)
        self.front_first = front_first


class Fetched:
    """What became of a file.

    Attributes:
        stamp: of the file, while it is what it should be; None when it could not be had.
        why: why not.
        way: `CACHED`, `FROM` or `SENT`.
        source: the peer, or the origin.
        moved: bytes that came over the network.
        kept: whether the cache has it.
        missed: origins that it did not come from, and why; but those that are known for it.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.number = wanted.number
        self.size = wanted.size
        self.digest = wanted.digest
        self.stamp: Stamp | None = None
        self.why = ""
        self.way = CACHED
        self.source = ""
        self.moved = 0
        self.took_s = 0.0
        self.kept = True
        self.missed: dict[str, str] = {}
        self.lost_s = 0.0  # of the time, with those that gave nothing


class _Stream:
    """A file that the front end sends."""

    def __init__(self, into: Filling) -> None:
        self.into = into
        self.changed = threading.Condition()
        self.ended = False
        self.why = ""
        self.full: NoRoom | None = None
        self.left = False  # nobody waits for it any more
        self.came_at = time.monotonic()

    def take(self, head: Mapping[str, Any], body: bytes) -> None:
        with self.changed:
            if self.left or self.ended:
                return
            self.came_at = time.monotonic()
            try:
                if body:
                    self.into.write(body)
                self.why = str(head.get("bad") or "")
            except Altered as error:
                self.why = str(error)
            except NoRoom as error:
                self.full = error
            self.ended = bool(self.full or self.why or head.get("end"))
            self.changed.notify_all()

    def wait(self) -> None:
        with self.changed:
            try:
                while not self.ended:
                    self.changed.wait(LOOK_S)
                    if time.monotonic() - self.came_at > STALL_S:
                        self.ended, self.why = True, "nothing came from the front end for %g s" % STALL_S
            finally:
                self.left = True


class Fetches:
    """The files that come to a node.

    Args:
        cache: where they are kept.
        held: a directory in the same file system; files that are in use have names there, by their numbers.
        ask: asks the front end for a file: (number, attempt); attempt 0 for what lets it be read at its origin.
        told: called with each `Fetched`, on a thread of this.
        unreached: a directory of what origins could not be reached.
    """

    def __init__(
        self,
        cache: Cache,
        held: str,
        ask: Callable[[int, int], object],
        told: Callable[[Fetched], object],
        unreached: str,
    ) -> None:
        self._unreached = Unreached(unreached)
        self._recalled = Recalled(os.path.join(cache.directory, "origins"))
        self._granting = threading.Condition()
        self._grants: dict[int, Mapping[str, Any] | None] = {}  # that are waited for, and those that came
        self.peers: Peers | None = None
        self._cache = cache
        self._held = held
        self._ask = ask
        self._told = told
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: deque[Wanted] = deque()
        self._busy: set[int] = set()
        self._threads = 0
        self._idle = 0
        self._streams: dict[int, tuple[int, _Stream]] = {}
        self._attempt = 0
        self._fillings: set[Filling] = set()
        self._ended = ""
        os.makedirs(held, mode=0o700, exist_ok=True)

    def path(self, number: int) -> str:
        """Where a file is while it is in use."""
        return os.path.join(self._held, str(int(number)))

    def want(self, wanted: Wanted) -> Fetched | None:
        """Bring a file, unless it is coming already; returns what became of it if that needs no waiting."""
        with self._lock:
            if wanted.number in self._busy:
                return None
            digest = wanted.digest or self._recall(wanted)
            if digest:
                found = self._at_once(wanted, digest)
                if found is not None:
                    return found
            self._busy.add(wanted.number)
            self._waiting.append(wanted)
            if not self._idle and self._threads < AT_ONCE:
                self._threads += 1
                threading.Thread(target=self._run, name="fetch", daemon=True).start()
            self._work.notify()
        return None

    def _recall(self, wanted: Wanted) -> str:
        """The digest of a file that this node has read at its origin once; empty where nobody knows."""
        keys = [source.key for source in wanted.sources if isinstance(source, Origin)]
        return self._recalled.digest(keys[0]) if keys else ""

    def _at_once(self, wanted: Wanted, digest: str) -> Fetched | None:
        stamp = None
        with contextlib.suppress(OSError, ValueError):
            self.let_go(wanted.number)
            stamp = self._cache.pin(digest, self.path(wanted.number), quickly=True)
        if stamp is None:
            return None
        found = Fetched(wanted)
        found.digest, found.stamp = digest, stamp
        return found

    def let_go(self, number: int) -> None:
        """A file is in use no longer."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(number))

    def piece(self, number: int, attempt: int, head: Mapping[str, Any], body: bytes) -> None:
        """A piece of a file has come from the front end: ``end`` or ``bad`` in its head say that it is the last."""
        known = self._streams.get(number)
        if known is not None and known[0] == attempt:
            known[1].take(head, body)

    def granted(self, number: int, grant: Mapping[str, Any]) -> None:
        """The front end lets a file be read at its origin; empty where it does not."""
        with self._granting:
            if number in self._grants:
                self._grants[number] = grant
                self._granting.notify_all()

    def cut_off(self, why: str) -> None:
        """Nothing more will come from the front end."""
        self._ended = why
        with self._granting:
            self._granting.notify_all()
        for _, stream in list(self._streams.values()):
            stream.take({"bad": why}, b"")

    def close(self) -> None:
        """Leave nothing half done."""
        self.cut_off("the executor ends")
        for filling in list(self._fillings):
            filling.remove()  # and no more: its thread closes it

    # ---- the threads

    def _run(self) -> None:
        while True:
            with self._work:
                self._idle += 1
                while not self._waiting:
                    self._work.wait()
                self._idle -= 1
                wanted = self._waiting.popleft()
            found = Fetched(wanted)
            began = time.monotonic()
            try:
                self._bring(wanted, found)
            except Exception as error:  # noqa: BLE001 - whatever it was, tasks wait to be told
                found.stamp, found.why = None, getattr(error, "strerror", None) or str(error) or repr(error)
            found.took_s = time.monotonic() - began - found.lost_s
            with self._lock:
                self._busy.discard(wanted.number)
            self._told(found)

    def _bring(self, wanted: Wanted, found: Fetched) -> None:
        target = self.path(wanted.number)
        self.let_go(wanted.number)
        digest = wanted.digest or self._recall(wanted)
        if digest:
            with contextlib.suppress(OSError):  # what is wrong with the cache keeps nobody from the file
                found.stamp = self._cache.pin(digest, target)
            if found.stamp is not None:
                found.digest = digest
                return
        for last in (False, True):
            self.let_go(wanted.number)
            filling = self._begun(wanted, found)
            self._fillings.add(filling)
            try:
                self._fill(wanted, filling, found)
            except (NoRoom, OSError) as error:  # it is this node's: there may be room now, or beside the cache
                if last or self._ended:
                    raise
                found.kept = found.kept and isinstance(error, NoRoom)
            else:
                return
            finally:
                self._fillings.discard(filling)
                if found.stamp is None:
                    filling.abandon()

    def _begun(self, wanted: Wanted, found: Fetched) -> Filling:
        """Where a file comes to: the cache, or a place from which it is of use to this bundle, and no other.

        Raises:
            OSError: nothing can be written.
        """
        if found.kept:
            try:
                return self._cache.begin(wanted.size)
            except (NoRoom, OSError):
                found.kept = False
        return Filling(self.path(wanted.number) + ".coming", wanted.size)

    def _fill(self, wanted: Wanted, filling: Filling, found: Fetched) -> None:
        """Try the sources one after the other.

        Raises:
            NoRoom, OSError: this node cannot take it; what is wrong with sources stands in `Fetched.why`.
        """
        tried: list[str] = []
        ways: list[Source | Origin | None] = [*wanted.sources]
        ways.insert(0 if wanted.front_first else len(ways), None)
        for source in ways:
            began = time.monotonic()
            try:
                if source is None:
                    self._from_front_end(wanted, filling)
                elif isinstance(source, Origin):
                    self._from_origin(wanted, source, filling, found)
                else:
                    self._from_peer(wanted, source, filling)
            except (OSError, ValueError, Gone, Altered, _Refused) as error:
                words = getattr(error, "strerror", None) or str(error) or repr(error)
                # What is wrong with an origin says whose it is.
                tried.append("%s: %s" % (source.node, words) if isinstance(source, Source) else words)
                found.moved += filling.at
                found.lost_s += 0.0 if filling.at else time.monotonic() - began
                continue
            found.moved += filling.at
            try:
                self._keep(wanted, filling, found)
            except Altered as error:
                tried.append("%s: %s" % (source.node if source is not None else "the front end", error))
                continue
            if isinstance(source, Origin) and found.kept:
                self._recalled.note(source.key, found.digest)
            found.way, found.source = (SENT, "") if source is None else (FROM, source.node)
            return
        found.why = "; ".join(tried)

    def _from_peer(self, wanted: Wanted, source: Source, filling: Filling) -> None:
        if self.peers is None:
            raise Unreachable("this node speaks with no peers")
        ask = {"path": source.name, "start": 0, "size": wanted.size}
        self.peers.fetch(source.addresses, source.port, ask, filling)

    def _from_origin(self, wanted: Wanted, source: Origin, filling: Filling, found: Fetched) -> None:
        filling.seek(0)
        why = self._unreached.why(source.node)
        if why:
            raise Unreachable(why)
        one = Direct(
            source.node,
            wanted.size,
            lambda _anew: self._renewed(wanted.number),
            source.grant,
            memory=self._unreached,
            silent_s=SILENT_S,
        )
        for last in (*[False] * MOST_BREAKS, True):
            began = filling.at
            try:
                for data in one.read("/", "", filling.at, wanted.size - filling.at):
                    filling.write(data)
            except OSError as error:
                if filling.at - began >= WORTH and not last and error.errno not in OF_THE_FILE:
                    if not source.tells:
                        filling.seek(0)
                    continue  # it goes on where that broke off, if what follows is of the same version
                if error.errno not in OF_THE_FILE:
                    found.missed[source.node] = str(error.strerror)
                raise Unreachable(str(error.strerror)) from error
            else:
                return

    def _renewed(self, number: int) -> Mapping[str, Any]:
        """Ask the front end to let a file be read at its origin; empty where it does not."""
        until = time.monotonic() + GRANT_S
        with self._granting:
            self._grants[number] = None
        try:
            self._ask(number, 0)
            with self._granting:
                while self._grants[number] is None and not self._ended and time.monotonic() < until:
                    self._granting.wait(LOOK_S)
                return self._grants[number] or {}
        finally:
            with self._granting:
                del self._grants[number]

    def _from_front_end(self, wanted: Wanted, filling: Filling) -> None:
        filling.seek(0)
        with self._lock:
            self._attempt = self._attempt % 0xFFFF + 1
            attempt, stream = self._attempt, _Stream(filling)
            self._streams[wanted.number] = (attempt, stream)
        try:
            if self._ended:
                raise _Refused(self._ended)
            self._ask(wanted.number, attempt)
            stream.wait()
        finally:
            stream.left = True
            del self._streams[wanted.number]
        if stream.full is not None:
            raise stream.full
        if stream.why:
            raise _Refused(stream.why)

    def _keep(self, wanted: Wanted, filling: Filling, found: Fetched) -> None:
        target = self.path(wanted.number)
        if found.kept:
            found.digest = self._cache.keep(filling, wanted.digest, target)
        else:
            found.digest = filling.finish(wanted.digest)
            os.rename(filling.path, target)
        found.stamp = stamp_of(target)


class _Refused(Exception):
    """The front end cannot give a file."""


__all__ = ["AT_ONCE", "CACHED", "FROM", "SENT", "Fetched", "Fetches", "Origin", "Source", "Wanted"]
