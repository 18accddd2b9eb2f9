"""The files that tasks of a run read: a number for each, who has it, and how a node comes to it.

An origin is an absolute path on this machine, or a URL. With its stamp (size and time) it has one number, which is what
the schedule knows. The digest is learnt when somebody reads the file; from then on it is found in nodes' caches, of
this run and of later ones.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from serai.data.digests import tells
from serai.dispatch.files.holders import Holders, is_digest
from serai.dispatch.files.origins import File, Found, look, measured, version_key
from serai.dispatch.schedule import events as ev
from serai.match.movement import Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from serai.dispatch.files.origins import Granting, Stamp
    from serai.dispatch.reading.gate import Gate
    from serai.match.movement import Move

MOST_SOURCES = 4  # peers that a node is told of for one file
MOST_TRIED = 4 * MOST_SOURCES  # that are looked at for this
SIZE_ALONE = "it tells neither ETag nor time of some inputs: one that changes and keeps its size is taken for the same"
MOST_SAID = 100  # servers of which it is said that they tell little
MOST_SHARED = 1000  # files in one frame
GRANT_S = 5.0  # for what lets a node read files at their origins


class Catalogue:
    """The files of a run. Any thread may call it.

    Args:
        tell: takes events for the schedule; any thread.
        remembered: gives the digests that an earlier run's front end read of (origin, stamp) pairs, in their order;
            empty for others. Nobody else waits for it.
        learnt: is told (origin, stamp, digest) of what this front end has read.
        settled: whether who writes to an origin from now on gives it another stamp; else it is not told of.
    """

    def __init__(
        self,
        tell: Callable[[ev.Event], object],
        remembered: Callable[[Sequence[tuple[str, Stamp]]], Sequence[str]] = lambda asked: [""] * len(asked),
        learnt: Callable[[str, Stamp, str], object] = lambda _origin, _stamp, _digest: None,
        settled: Callable[[str, Stamp], bool] = lambda _origin, _stamp: True,
    ) -> None:
        self._tell = tell
        self._remembered = remembered
        self._learnt = learnt
        self._settled = settled
        self._lock = threading.RLock()
        self._making = threading.Lock()
        self._files: dict[int, File] = {}
        self._numbers: dict[str, int] = {}  # of origins as they are now
        self._who = Holders(lambda *replica: self.on_replica(*replica))  # noqa: PLW0108 - the run sets it later
        self._secrets: dict[str, str] | None = None
        self._make_secrets: Callable[[], dict[str, str]] | None = None
        self.gate: Gate | None = None  # by which tasks read from afar; the run sets it
        self.grants: Granting | None = None  # what lets nodes read files at their origins; the run sets it
        self.origin_of: Callable[[str], str] = lambda _url: ""  # which origin that is
        self.on_replica: Callable[[str, str, int | None], object] = lambda _digest, _node, _size: None
        self.say: Callable[[str], object] = lambda _words: None
        self._size_alone: set[str] = set()  # servers of which it was said
        self.reader: Callable[[str, Stamp], Iterator[bytes | None]] | None = None
        self.to_node: Callable[[str, bytes], object] = lambda _node, _frame: None
        self.read_from: Callable[[str, str, int, int], bytes] = lambda _node, _name, _at, _length: b""

    # ---- files

    def add(self, found: Iterable[Found]) -> list[int]:
        """Number files.

        Args:
            found: what was seen of each.

        Returns:
            Their numbers, in that order; that of an origin known with this stamp is what it was.
        """
        seen = list(found)
        with self._lock:
            strange = [(one.origin, one.stamp) for one in seen if self._known(one) is None]
        digests = dict(zip(strange, self._remembered(strange), strict=True)) if strange else {}
        numbers: list[int] = []
        fresh: list[File] = []
        with self._lock:
            for one in seen:
                known = self._known(one)
                if known is None:
                    digest = digests.get((one.origin, one.stamp), "")
                    digest = digest if is_digest(digest) else ""
                    known = File(len(self._files) + 1, one.origin, one.size, one.stamp, digest, one.host, one.path)
                    known.read_here = bool(digest)
                    if not os.path.isabs(one.origin):
                        known.version, known.place = one.version, self.origin_of(one.origin)
                    self._files[known.number] = known
                    self._numbers[one.origin] = known.number
                    fresh.append(known)
                numbers.append(known.number)
            if fresh:
                self._announce(fresh)
        self._warn(fresh)
        return numbers

    def _warn(self, fresh: Sequence[File]) -> None:
        """Say, once for each web server, that nothing but their size tells versions of its files."""
        for file in fresh:
            if file.origin.startswith(("http:", "https:")) and not tells(file.stamp):
                server = file.origin.partition("://")[2].partition("/")[0].rpartition("@")[2]
                if server not in self._size_alone and len(self._size_alone) < MOST_SAID:
                    self._size_alone.add(server)
                    self.say(f"{server}: {SIZE_ALONE}")

    def _known(self, one: Found) -> File | None:
        known = self._files.get(self._numbers.get(one.origin, 0))
        return known if known is not None and known.stamp == one.stamp else None

    def _announce(self, fresh: Sequence[File]) -> None:
        """Tell the schedule of new files, and who has them. With the lock."""
        numbers, sizes = [file.number for file in fresh], [file.size for file in fresh]
        origins = [file.place for file in fresh]
        self._tell(ev.FilesAdded(numbers, sizes, origins if any(origins) else ()))
        if self.grants is not None:
            self.grants.expect(file.origin for file in fresh if file.place)
        held: dict[str, list[int]] = {}
        for file in fresh:
            for node in self._who.add(file):
                held.setdefault(node, []).append(file.number)
        for node, numbers in held.items():
            self._tell(ev.Cached(node, numbers))
            self._share(node, numbers)

    def _share(self, node: str, numbers: Iterable[int]) -> None:
        """Let peers read what lies on a node."""
        if node in self._who.peers and node not in self._who.here:
            files = [file for file in map(self._files.__getitem__, numbers) if node in file.lies]
            for some in batched(files, MOST_SHARED):
                seen = {file.number: [file.lies[node], file.size, file.modified] for file in some}
                self.to_node(node, wire.pack(wire.SHARE, head={"files": seen}))

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._files)

    def number(self, origin: str) -> int | None:
        """The number of an origin, if it is catalogued."""
        return self._numbers.get(origin)

    def number_now(self, path: str) -> int | None:
        """The number of a path on this machine, if it is catalogued; another than before if it has changed since."""
        number = self._numbers.get(path)
        if number is None:
            return None
        try:
            found = look(path)
        except OSError:
            return None  # said where it is read
        if found is None:
            return None
        return number if self._files[number].stamp == found[1] else self.add([Found(path, *found)])[0]

    def file(self, number: int) -> File:
        """A file by its number."""
        return self._files[number]

    def is_settled(self, number: int) -> bool:
        """Whether who writes to a file from now on gives it another stamp; to be asked before it is read."""
        file = self._files[number]
        return self._settled(file.origin, file.stamp)

    def learn(self, number: int, digest: str, *, read_here: bool = True, settled: bool = True) -> None:
        """The digest of a file is known.

        Args:
            number: which.
            digest: BLAKE2b-256 in hex.
            read_here: the front end has read it at its origin; else it is known to this run only.
            settled: as `is_settled` said before that; else it is not remembered.

        Raises:
            ValueError: it is none.
        """
        if not is_digest(digest):
            raise ValueError(f"{digest!r} is no digest")
        with self._lock:
            file = self._files[number]
            if read_here and not (file.read_here and file.digest == digest):
                file.read_here = True
                if settled:
                    self._learnt(file.origin, file.stamp, digest)
            if file.digest != digest:
                came, went = self._who.know(file, digest)
                for node in came:
                    self._tell(ev.Cached(node, [number]))
                for node in went:
                    self._tell(ev.Evicted(node, [number]))

    # ---- nodes

    def here(self, node: str) -> None:
        """A node is this machine: what lies here lies there."""
        with self._lock:
            numbers = self._who.is_here(node)
            if numbers:
                self._tell(ev.Cached(node, numbers))

    def came(self, node: str, ad: Mapping[str, Any], has: Iterable[str], tell: Callable[[list[int]], object]) -> None:
        """A node has checked in.

        Args:
            node: its name.
            ad: what it says of itself.
            has: digests of what its cache has.
            tell: tells the schedule of the node, and of the files that are there: in its cache, or since they lie
                there. Nothing else is told of it before.

        Raises:
            ValueError: one of these is no digest.
        """
        with self._lock:
            numbers = self._who.came(node, ad, has)
            tell(numbers)
            self._share(node, numbers)

    def lost(self, node: str) -> None:
        """A node is gone; the schedule knows."""
        with self._lock:
            self._who.lost(node)

    def serves(self, node: str, addresses: Sequence[str], port: int) -> None:
        """Peers find a node there."""
        with self._lock:
            peer = self._who.peer(node)
            peer.addresses, peer.port = tuple(addresses), port

    def holds(self, node: str, has: Iterable[str], gone: Iterable[str]) -> None:
        """A node's cache has changed.

        Raises:
            ValueError: one of these is no digest.
        """
        with self._lock:
            went = [number for digest in gone for number in self._who.gone(node, digest)]
            came = [number for digest in has for number in self._who.has(node, digest)]
            if went:
                self._tell(ev.Evicted(node, went))
            if came:
                self._tell(ev.Cached(node, came))

    def moved(self, node: str, number: int, head: Mapping[str, Any]) -> None:
        """A node says how a file came: see the frame CAME.

        Raises:
            ValueError: the digest that it names is none, or what it measured cannot be.
        """
        for origin in head.get("missed", ()):
            self.missed(node, number, origin)
        if "why" in head:
            return
        digest, (moved, took_s) = str(head["digest"]), measured(head.get("bytes", 0), head.get("took", 0.0))
        with self._lock:
            file = self._files[number]
            cached = head["way"] == "cached"
            if self._who.say(node, file, digest, read=not cached):
                self.learn(number, digest, read_here=False)
            well = file.digest in {"", digest}  # else it came by something else than the others
            others = self._who.keeps(node, file, digest) if well and (cached or head.get("kept")) else []
            if others:
                self._tell(ev.Cached(node, others))
            if not cached:
                source = str(head.get("from", ""))
                self._tell(ev.Moved(node, number, source, moved, took_s))
            if node not in file.holders and node not in file.lies:
                self._tell(ev.Evicted(node, [number]))
            elif cached:
                self._tell(ev.Cached(node, [number]))

    def missed(self, node: str, number: int, origin: str) -> None:
        """A node says that it could not read a file straight from its origin."""
        if origin == self._files[number].place:
            self._tell(ev.Unreached(node, origin))

    # ---- how a node comes to files

    def grant(self, number: int, *, anew: bool = False, wait_s: float = GRANT_S) -> dict[str, Any]:
        """What lets a node read a file at its origin; empty where nothing does.

        Args:
            number: of the file.
            anew: what was given before was refused.
            wait_s: how long this may take.
        """
        file, grants = self._files[number], self.grants
        if grants is None or not file.place:
            return {}
        found = grants.grant(file.origin, file.version, anew=anew, wait_s=wait_s)
        key = version_key(file)
        return {**found, "key": key} if found and key else found

    def needs(self, node: str, numbers: Collection[int], moves: Iterable[Move]) -> dict[str, Any]:
        """The head of the frame that tells a node what a bundle reads, and where it is to be had.

        It takes a moment where files are to be read at their origins.
        """
        advice = {move.file: move for move in moves}
        until = time.monotonic() + GRANT_S  # for all of them: whoever sends this says nothing else to the node
        grants = {one: self._granted(one, advice.get(one), until) for one in numbers}
        with self._lock:
            return {"files": [self._need(node, self._files[one], advice.get(one), grants[one]) for one in numbers]}

    def _granted(self, number: int, move: Move | None, until: float) -> dict[str, Any]:
        """What lets a node read a file at its origin, if that is to be tried before the front end is asked."""
        first = move.source if move is not None and move.way != Way.HERE else None
        if first == "":
            return {}
        wanted = first == self._files[number].place
        return self.grant(number, wait_s=max(0.0, until - time.monotonic()) if wanted else 0.0)

    def afar(self, node: str, number: int) -> dict[str, Any]:
        """A file that a node reads from afar: what a mount there must know of it.

        Returns:
            ``file`` (its number), ``origin``, ``size``, ``digest`` (empty where nobody has read it), ``sources``: peers
            as [name, addresses, port, path on its server].
        """
        with self._lock:
            file = self._files[number]
            sources = self._need(node, file, None)[-1]
            facts = {"file": number, "origin": file.origin, "size": file.size, "digest": file.digest}
            return facts | {"sources": sources}

    def _need(self, node: str, file: File, move: Move | None, grant: dict[str, Any] | None = None) -> list[Any]:
        first = move.source if move is not None and move.way != Way.HERE else ""
        names = [first] if first else []
        names += heapq.nsmallest(MOST_TRIED, file.holders - {first, node})
        names += [name for name in itertools.islice(file.lies, MOST_TRIED) if name not in {first, node}]
        sources = [found for name in names if (found := self._source(name, file)) is not None]
        front_first = not first and (move is None or move.way != Way.HERE)
        digest = file.digest or file.said.get(node, "")
        ways: list[Any] = sources[:MOST_SOURCES]
        if grant:
            ways.insert(0 if first == file.place else len(ways), grant)
            front_first = False
        return [file.number, file.size, digest, int(front_first), ways]

    def _source(self, node: str, file: File) -> list[Any] | None:
        peer = self._who.peers.get(node)
        if peer is None or not peer.port:
            return None
        if file.digest and node in file.holders:
            return [node, list(peer.addresses), peer.port, f"objects/{file.digest}"]
        if node in file.lies and node not in self._who.here:
            return [node, list(peer.addresses), peer.port, f"files/{file.number}"]
        return None

    def holders(self, number: int, but: str) -> list[tuple[str, str]]:
        """Nodes that have a file, but one, with the name under which they give it."""
        with self._lock:
            file = self._files[number]
            found = [(node, f"objects/{file.digest}") for node in sorted(file.holders - {but}) if file.digest]
            return found + [(node, f"files/{number}") for node in file.lies if node not in {but, *self._who.here}]

    def peers_with(self, make: Callable[[], dict[str, str]]) -> None:
        """Nodes may speak with one another, with a certificate and a key that are made when the first of them does."""
        self._make_secrets = make

    def secrets(self) -> dict[str, str] | None:
        """What nodes prove to each other that they are of this run with; None where they do not speak."""
        with self._making:  # it takes its time, and others want to know of files
            if self._secrets is None and self._make_secrets is not None:
                self._secrets = self._make_secrets()
            return self._secrets


def batched(values: Iterable[File], most: int) -> Iterator[list[File]]:
    """Cut into lists of at most so many."""
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, most)):
        yield batch
