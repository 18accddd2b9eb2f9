"""Which files leave a full cache: pure, so that the simulator replays the same choice.

The four are those of Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion" (2008). The order in which files would leave is kept while they come and are used, so that a choice costs by
what leaves, and not by what there is.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random
    from typing import Any

LRU = "lru"
LFU = "lfu"
FIFO = "fifo"
RANDOM = "random"
KINDS = (LRU, LFU, FIFO, RANDOM)
STALE = 64  # places in the order that count no more are thrown out when there are so many more of them than of others


class Entry(NamedTuple):
    """A file in a cache.

    Attributes:
        key: what it is known by; any sortable value.
        size: bytes.
        came: when it came, by any clock.
        used: when it was last asked for, by the same clock.
        uses: how often it was asked for.
    """

    key: Any
    size: int
    came: float
    used: float
    uses: int = 1


def _by_use(entry: Entry) -> tuple[Any, ...]:
    return (entry.used, entry.came, entry.key)


def _by_uses(entry: Entry) -> tuple[Any, ...]:
    return (entry.uses, entry.used, entry.came, entry.key)


def _by_age(entry: Entry) -> tuple[Any, ...]:
    return (entry.came, entry.key)


_ORDERS: dict[str, Callable[[Entry], tuple[Any, ...]]] = {LRU: _by_use, LFU: _by_uses, FIFO: _by_age}


class Replacement:
    """A rule for what leaves first, and the files that it is about.

    Args:
        kind: one of `KINDS`.
        random: of which ``random`` draws, for the rule of that name.

    Raises:
        ValueError: there is no such rule.
    """

    def __init__(self, kind: str, random: Random) -> None:
        if kind not in KINDS:
            raise ValueError("%r is no rule of replacement: there are %s" % (kind, ", ".join(KINDS)))
        self.kind = kind
        self._queue: _Ordered | _Shuffled = _Shuffled(random) if kind == RANDOM else _Ordered(_ORDERS[kind])
        self._sizes: dict[Any, int] = {}
        self.held_bytes = 0

    def note(self, entry: Entry) -> None:
        """A file has come, or was used."""
        self.held_bytes += entry.size - self._sizes.get(entry.key, 0)
        self._sizes[entry.key] = entry.size
        self._queue.put(entry)

    def forget(self, key: Any) -> None:
        """A file is not there any more, if it was."""
        size = self._sizes.pop(key, None)
        if size is not None:
            self.held_bytes -= size
            self._queue.remove(key)

    def victims(self, need_bytes: int, is_pinned: Callable[[Any], bool]) -> list[Any] | None:
        """Choose the files that leave. They are forgotten only when `forget` says so.

        Args:
            need_bytes: how much must become free by this.
            is_pinned: whether a file is in use, and stays; asked of those whose turn it is.

        Returns:
            Their keys, in the order in which they leave; None when even all that may leave is not enough: then
            nothing should.
        """
        if need_bytes > self.held_bytes:
            return None
        leave: list[Any] = []
        try:
            while need_bytes > 0 and (key := self._queue.take()) is not None:
                if not is_pinned(key):
                    leave.append(key)
                    need_bytes -= self._sizes[key]
        finally:
            self._queue.give_back()
        return None if need_bytes > 0 else leave


class _Ordered:
    """Keys by an order that changes as they are used: a heap, in which former places are passed over."""

    def __init__(self, order: Callable[[Entry], tuple[Any, ...]]) -> None:
        self._order = order
        self._places: dict[Any, tuple[Any, ...]] = {}  # the last part of each is the key
        self._taken: dict[Any, tuple[Any, ...]] = {}
        self._heap: list[tuple[Any, ...]] = []

    def put(self, entry: Entry) -> None:
        place = self._order(entry)
        if self._places.get(entry.key) != place:
            self._places[entry.key] = place
            heapq.heappush(self._heap, place)
            if len(self._heap) > 2 * len(self._places) + STALE:
                self._heap = list(self._places.values())
                heapq.heapify(self._heap)

    def remove(self, key: Any) -> None:
        self._places.pop(key, None)

    def take(self) -> Any:
        """The first, which is out until it is given back; None when there is none left."""
        while self._heap:
            place = heapq.heappop(self._heap)
            if self._places.get(place[-1]) == place:
                self._taken[place[-1]] = self._places.pop(place[-1])
                return place[-1]
        return None

    def give_back(self) -> None:
        """All that were taken."""
        for key, place in self._taken.items():
            self._places[key] = place
            heapq.heappush(self._heap, place)
        self._taken.clear()


class _Shuffled:
    """Keys in no order."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._keys: list[Any] = []
        self._at: dict[Any, int] = {}
        self._taken: list[Any] = []

    def put(self, entry: Entry) -> None:
        self._add(entry.key)

    def _add(self, key: Any) -> None:
        if key not in self._at:
            self._at[key] = len(self._keys)
            self._keys.append(key)

    def remove(self, key: Any) -> None:
        at = self._at.pop(key)
        last = self._keys.pop()
        if last != key:
            self._keys[at] = last
            self._at[last] = at

    def take(self) -> Any:
        """Any, which is out until it is given back; None when there is none left."""
        if not self._keys:
            return None
        key = self._keys[self._random.randrange(len(self._keys))]
        self.remove(key)
        self._taken.append(key)
        return key

    def give_back(self) -> None:
        """All that were taken."""
        for key in self._taken:
            self._add(key)
        self._taken.clear()
