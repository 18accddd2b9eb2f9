"""What the schedule knows of files: how large they are, who has them, and what is on its way to whom.

A file that a node was told to fetch counts as there for the tasks that follow, so that they go where it comes to; as a
source it counts only once the node has said that it has it.

What no node has comes from the front end, or straight from its origin where nodes may read there. Each origin is a
source of its own, with its own rates and its own limit. The front end takes its place only for a node that cannot reach
it, or where that is known to be clearly quicker, though bytes go two ways then; and never because it is busy, since the
front end would only read there, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from serai.match.movement import Access, Links, Move, Price, Way, cheapest, read_price, stage_price

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SOURCES_LOOKED_AT = 8  # holders of a file that are compared for one transfer
ORIGIN = ""  # of all that the front end has, or reads for nodes
LEGS = 2.0  # ways that go through the front end
MEND_S = 1.0
CUT_S = 300.0  # an origin that a node could not read from is not advised to it for so long


class Watcher(Protocol):
    """Who wants to know where some files are."""

    def gained(self, node: str, file: int) -> None:
        """A node has a file, or soon will."""
        ...

    def lost(self, node: str, file: int) -> None:
        """A node has a file no longer, nor will."""
        ...


class Coming:
    """A file on its way to a node: from where, for how many bundles, and whether its source is known to serve it."""

    __slots__ = ("bundles", "counted", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.bundles = 0
        self.counted = True


class Holdings:
    """The files that tasks read, the nodes that have them, and the transfers that were ordered.

    Args:
        transfers: nodes that fetch from one source at a time. What one node fetches from one source is one transfer.
        peers: whether nodes may fetch from one another, and not only from the origin.
    """

    def __init__(self, transfers: int = 8, *, peers: bool = True) -> None:
        self.links = Links()
        self.transfers = transfers
        self.peers = peers
        self._sizes: dict[int, int] = {}
        self._origins: dict[int, str] = {}  # that nodes may read from; of files that have one
        self._named: set[str] = set()
        self._cut: dict[tuple[str, str], float] = {}  # (origin, node): until when there is no way
        self._mend_at = float("-inf")
        self._holders: dict[int, dict[str, None]] = {}  # nodes that have a file, or soon will
        self._held: dict[str, dict[int, Coming | None]] = {}  # None: it is there
        self._flows: dict[str, dict[str, int]] = {}  # source: files on their way, by node
        self._coming: dict[str, int] = {}  # files on their way to a node
        self._watchers: dict[int, dict[Watcher, None]] = {}

    # ---- what is told

    def add(self, files: Sequence[int], sizes: Sequence[int], origins: Sequence[str] = ()) -> None:
        """Files are known; sizes are in bytes; of origins see `FilesAdded`."""
        self._sizes.update(zip(files, sizes, strict=True))
        if origins:
            self._origins.update({file: origin for file, origin in zip(files, origins, strict=True) if origin})
            self._named.update(filter(None, origins))

    def cut(self, origin: str, node: str, now: float) -> None:
        """A node cannot read from an origin."""
        self._cut[origin, node] = now + CUT_S

    def mend(self, now: float) -> None:
        """Time has passed: what could not be reached may be by now."""
        if self._cut and now >= self._mend_at:  # there may be many, and this is asked at each turn
            self._mend_at = now + MEND_S
            self._cut = {pair: until for pair, until in self._cut.items() if now < until}

    def cached(self, node: str, files: Iterable[int]) -> None:
        """A node has files."""
        held = self._held.setdefault(node, {})
        for file in files:
            if file in held:
                coming = held[file]
                held[file] = None
                if coming is not None:
                    self._coming[node] -= 1
                    self._end_flow(coming, node)
            else:
                held[file] = None
                self._gained(node, file)

    def evicted(self, node: str, files: Iterable[int]) -> None:
        """A node has files no longer. One that was ordered since then still comes."""
        held = self._held.get(node, {})
        for file in files:
            if file in held and held[file] is None:
                del held[file]
                self._lost(node, file)

    def gone(self, node: str) -> None:
        """A node is gone with all it had."""
        held = self._held.pop(node, {})
        self._coming.pop(node, None)
        for file, coming in held.items():
            if coming is not None:
                self._end_flow(coming, node)
            self._lost(node, file)
        for target in self._flows.pop(node, ()):  # who fetched from it goes on with another source by itself
            for coming in self._held[target].values():
                if coming is not None and coming.source == node:
                    coming.source, coming.counted = ORIGIN, False
        self.links.forget(node)

    def _gained(self, node: str, file: int) -> None:
        self._holders.setdefault(file, {})[node] = None
        for watcher in self._watchers.get(file, ()):
            watcher.gained(node, file)

    def _lost(self, node: str, file: int) -> None:
        holders = self._holders[file]
        holders.pop(node, None)
        if not holders:
            del self._holders[file]
        for watcher in self._watchers.get(file, ()):
            watcher.lost(node, file)

    # ---- who wants to know

    def watch(self, file: int, watcher: Watcher) -> None:
        """Tell somebody where a file comes to and where it goes from."""
        self._watchers.setdefault(file, {})[watcher] = None

    def unwatch(self, file: int, watcher: Watcher) -> None:
        """Tell them no longer."""
        watchers = self._watchers[file]
        del watchers[watcher]
        if not watchers:
            del self._watchers[file]

    def is_wanted(self, file: int) -> bool:
        """Whether somebody waits for it."""
        return file in self._watchers

    # ---- looking

    def size(self, file: int) -> int:
        """In bytes; 0 when nobody knows."""
        return self._sizes.get(file, 0)

    def has(self, node: str, file: int) -> bool:
        """Whether a node has a file, or soon will."""
        return file in self._held.get(node, ())

    def there(self, node: str) -> dict[int, Coming | None]:
        """What a node has, or soon will. For looking only."""
        return self._held.get(node, {})

    def holders(self, file: int) -> frozenset[str]:
        """The nodes that have a file, or soon will."""
        return frozenset(self._holders.get(file, ()))

    def homes(self, file: int) -> dict[str, None]:
        """As `holders`, without a copy: for looking only."""
        return self._holders.get(file, NOBODY)

    def sources(self, file: int) -> list[str]:
        """The nodes that have said that they have a file."""
        return [name for name in self._holders.get(file, ()) if self._held[name][file] is None]

    def missing_bytes(self, node: str, files: Iterable[int]) -> int:
        """How much of some files a node lacks."""
        held, sizes = self._held.get(node, {}), self._sizes
        return sum(sizes.get(file, 0) for file in files if file not in held)

    def coming(self, node: str) -> int:
        """How many files are on their way to a node."""
        return self._coming.get(node, 0)

    def fetching_from(self, source: str) -> int:
        """How many nodes fetch from a source now, as far as is known."""
        return len(self._flows.get(source, ()))

    def is_quiet(self, node: str) -> bool:
        """Whether nothing is on its way to a node."""
        return all(coming is None for coming in self._held.get(node, {}).values())

    # ---- prices and orders

    def _far(self, node: str, origin: str) -> str:
        """Where files of an origin come from when no other node gives them: straight from there, or the front end."""
        if not origin or (origin, node) in self._cut:
            return ORIGIN
        links = self.links
        if not links.knows(origin) or not links.knows(ORIGIN):
            return origin
        straight, by_here = links.rate_bytes_s(origin, node), links.rate_bytes_s(ORIGIN, node)
        return ORIGIN if by_here > straight * LEGS else origin

    def _measured(self, source: str) -> str:
        """Whose rates count for a source."""
        return ORIGIN if source in self._named and not self.links.knows(source) else source

    def far_rate_bytes_s(self, node: str, origin: str) -> float:
        """How fast files come to a node that have an origin, or none ("") but the front end."""
        return self.links.rate_bytes_s(self._measured(self._far(node, origin)), node)

    def origin(self, file: int) -> str:
        """Where nodes may read a file without the front end; empty where they may not."""
        return self._origins.get(file, ORIGIN)

    def _is_open(self, source: str, node: str) -> bool:
        flows = self._flows.get(source)
        return flows is None or len(flows) < self.transfers or node in flows

    def stage_price(self, node: str, file: int) -> Price | None:
        """The best way to copy a file to a node; None while every source serves as many as it may."""
        size, links = self._sizes.get(file, 0), self.links
        best: Price | None = None
        looked = 0
        for source in self._holders.get(file, ()) if self.peers else ():
            if source == node or self._held[source][file] is not None:
                continue
            looked += 1
            if looked > SOURCES_LOOKED_AT:
                break
            if self._is_open(source, node):
                price = stage_price(links, node, size, source, self._others(source, node))
                if best is None or price.total_s < best.total_s:
                    best = price
        far = self._far(node, self._origins.get(file, ORIGIN))
        if self._is_open(far, node):
            price = self._stage_far(node, size, far)
            if best is None or price.total_s < best.total_s:
                best = price
        return best

    def origin_price(self, node: str, file: int) -> Price:
        """What it costs to copy a file that no other node gives, however many do so."""
        return self._stage_far(node, self._sizes.get(file, 0), self._far(node, self._origins.get(file, ORIGIN)))

    def _stage_far(self, node: str, size: int, far: str) -> Price:
        rated = self._measured(far)
        price = stage_price(self.links, node, size, rated, self._others(far, node))
        return price if rated == far else replace(price, source=far)

    def _others(self, source: str, node: str) -> int:
        flows = self._flows.get(source)
        return 0 if flows is None else len(flows) - (node in flows)

    def price(self, node: str, file: int, access: Access, fraction: float | None) -> Price | None:
        """The cheapest way for a node to come to a file; None while every source serves as many as it may.

        Args:
            node: where it is read.
            file: that is read.
            access: the ways that the node offers.
            fraction: of the file that is thought to be read; None when nobody knows.
        """
        held = self._held.get(node)
        if held is not None and file in held:
            coming = held[file]
            return Price(Way.HERE) if coming is None else Price(Way.STAGE, coming.source)
        stage = None if access is Access.MOUNT else self.stage_price(node, file)
        if access is Access.STAGE or (access is Access.AUTO and fraction is None):
            return stage
        size, far = self._sizes.get(file, 0), self._far(node, self._origins.get(file, ORIGIN))
        part, rated = 1.0 if fraction is None else fraction, self._measured(far)
        reads = [
            read_price(self.links, node, size, source, part, self._others(source, node))
            for source in (self.sources(file)[:SOURCES_LOOKED_AT] if self.peers else ())
        ]
        price = read_price(self.links, node, size, rated, part, self._others(far, node))
        reads.append(price if rated == far else replace(price, source=far))
        return cheapest(reads if stage is None else [stage, *reads])

    def fetch_s(self, node: str, files: Iterable[int], access: Access, fraction: float | None) -> float:
        """What a node pays for what it lacks of some files; infinity while no source is open."""
        total = 0.0
        held = self._held.get(node, {})
        for file in files:
            if file not in held:
                price = self.price(node, file, access, fraction)
                if price is None:
                    return float("inf")
                total += price.total_s
        return total

    def order(self, node: str, files: Iterable[int], access: Access, fraction: float | None) -> list[Move]:
        """How files come to a node, each once; what must be fetched is on its way from now on."""
        moves = []
        held = self._held.setdefault(node, {})
        for file in dict.fromkeys(files):
            if file in held:
                coming = held[file]
                if coming is None:
                    moves.append(Move(file, Way.HERE))
                else:
                    coming.bundles += 1
                    moves.append(Move(file, Way.STAGE, self._still(coming.source, file)))
                continue
            price = self.price(node, file, access, fraction)
            if price is None:  # who may not wait (a copy of a late task, one that is tried again) asks the origin
                price = self.origin_price(node, file)
            moves.append(Move(file, price.way, price.source, price.total_s))
            if price.way == Way.STAGE:
                self.expect(node, file, price.source).bundles += 1
        return moves

    def _still(self, source: str, file: int) -> str:
        """A source, if it is one yet; else the front end."""
        return source if source == self._origins.get(file) or self.serves(source, file) else ORIGIN

    def serves(self, source: str, file: int) -> bool:
        """Whether a node has said that it has a file, and has not given it up since."""
        held = self._held.get(source)
        return held is not None and file in held and held[file] is None

    def expect(self, node: str, file: int, source: str) -> Coming:
        """A file is on its way to a node."""
        coming = Coming(source)
        held = self._held.setdefault(node, {})
        if held.get(file) is None:
            self._coming[node] = self._coming.get(node, 0) + 1
        held[file] = coming
        flows = self._flows.setdefault(source, {})
        flows[node] = flows.get(node, 0) + 1
        self._gained(node, file)
        return coming

    def give_up(self, node: str, files: Iterable[int]) -> None:
        """A bundle waits for files no longer: what is not there, and no other waits for, does not come."""
        held = self._held.get(node, {})
        for file in files:
            coming = held.get(file)
            if coming is None:
                continue
            coming.bundles -= 1
            if coming.bundles <= 0:
                del held[file]
                self._coming[node] -= 1
                self._end_flow(coming, node)
                self._lost(node, file)

    def _end_flow(self, coming: Coming, node: str) -> None:
        if not coming.counted:
            return
        flows = self._flows[coming.source]
        flows[node] -= 1
        if not flows[node]:
            del flows[node]
            if not flows:
                del self._flows[coming.source]


NOBODY: dict[str, None] = {}
