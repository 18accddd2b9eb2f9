"""Which files leave a full cache: pure, so that the simulator replays the same choice.

The four are those of Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion" (2008).
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random
    from typing import Any

LRU = "lru"
LFU = "lfu"
FIFO = "fifo"
RANDOM = "random"
KINDS = (LRU, LFU, FIFO, RANDOM)


class Entry(NamedTuple):
    """A file in a cache.

    Attributes:
        key: what it is known by; any sortable value.
        size: bytes.
        came: when it came, by any clock.
        used: when it was last asked for, by the same clock.
        uses: how often it was asked for.
        pinned: it is in use, and stays.
    """

    key: Any
    size: int
    came: float
    used: float
    uses: int = 1
    pinned: bool = False


def _by_use(entry: Entry) -> tuple[Any, ...]:
    return (entry.used, entry.came, entry.key)


def _by_uses(entry: Entry) -> tuple[Any, ...]:
    return (entry.uses, entry.used, entry.came, entry.key)


def _by_age(entry: Entry) -> tuple[Any, ...]:
    return (entry.came, entry.key)


_ORDERS: dict[str, Callable[[Entry], tuple[Any, ...]]] = {LRU: _by_use, LFU: _by_uses, FIFO: _by_age}


class Replacement:
    """A rule for what leaves first.

    Args:
        kind: one of `KINDS`.

    Raises:
        ValueError: there is no such rule.
    """

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise ValueError("%r is no rule of replacement: there are %s" % (kind, ", ".join(KINDS)))
        self.kind = kind

    def victims(self, entries: Iterable[Entry], need_bytes: int, random: Random) -> list[Any] | None:
        """Choose the files that leave.

        Args:
            entries: all that is in the cache.
            need_bytes: how much must become free by this.
            random: of which ``random`` is drawn, for the rule of that name.

        Returns:
            Their keys, in the order in which they leave; None when even all that may leave is not enough: then
            nothing should.
        """
        if need_bytes <= 0:
            return []
        free = [entry for entry in entries if not entry.pinned]
        if sum(entry.size for entry in free) < need_bytes:
            return None
        if self.kind == RANDOM:
            free.sort(key=_by_age)  # one seed, one choice
            random.shuffle(free)
        else:
            free.sort(key=_ORDERS[self.kind])
        leave: list[Any] = []
        for entry in free:
            leave.append(entry.key)
            need_bytes -= entry.size
            if need_bytes <= 0:
                break
        return leave
