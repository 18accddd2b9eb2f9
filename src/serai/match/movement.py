"""What it costs to bring a task and what it reads together: the job moves, the data moves, or it is read from afar.

The named policies are Falkon's (Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion", 2008) and those of Thain, Bent, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Gathering at the Well: Creating
Communities for Grid I/O" (2001). ``auto``, which chooses by price, is what the latter left as future work.

A price is seconds until the file can be read, and shows its parts, so that a choice can be explained.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Access", "Candidate", "Links", "Move", "Policy", "Price", "Way", "cheapest", "read_price", "stage_price"]

SMALL_BYTES = 100_000  # a transfer of less tells the latency of a pair, one of more its rate
READ_AHEAD_BYTES = 4_000_000  # what a mount asks for at a time once it reads ahead
WEIGHT = 0.3  # of the latest measurement
RATE_BYTES_S = 100e6  # of a pair when nothing was measured at all
LATENCY_S = 0.01
SHORTEST_S = 1e-6  # that a transfer takes, whatever a node says: rates are finite


class Policy(enum.StrEnum):
    """How the place of data counts when a lane is free."""

    FIRST_AVAILABLE = "first-available"  # the oldest task; caches are not used
    FIRST_CACHE_AVAILABLE = "first-cache-available"  # the oldest task; caches spare some transfers
    MAX_CACHE_HIT = "max-cache-hit"  # only a node that holds the file, where there is one
    MAX_COMPUTE_UTIL = "max-compute-util"  # never idle: the best holder among the free
    GOOD_CACHE_COMPUTE = "good-cache-compute"  # max-cache-hit while the pool is busy, else max-compute-util
    AUTO = "auto"  # by price


class Access(enum.StrEnum):
    """Which ways a task may come to what it reads."""

    AUTO = "auto"  # the cheapest
    STAGE = "stage"  # files are copied into the node's cache
    MOUNT = "mount"  # they are read from afar where the node can mount, else copied


class Way(enum.IntEnum):
    """How a task comes to what it reads."""

    HERE = 0  # the node has it: the job has moved to the data
    STAGE = 1  # it is copied into the node's cache
    READ = 2  # it is read from afar, through a mount


@dataclass(frozen=True, slots=True)
class Move:
    """How one file comes to the node of a task.

    Attributes:
        file: its number.
        way: see `Way`.
        source: the node that it comes from, or its origin where the node reads it there; "" for the front end.
        price_s: what this was thought to cost.
    """

    file: int
    way: Way
    source: str = ""
    price_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    """What one way to a file costs, in seconds, by its parts.

    Attributes:
        way: see `Way`.
        source: the node or the origin that the bytes come from; "" for the front end.
        latency_s: round trips.
        transfer_s: bytes over the rate of the pair, were it alone.
        busy_s: what is added since the source serves others, too.
        moved_bytes: that are thought to be moved.
    """

    way: Way
    source: str = ""
    latency_s: float = 0.0
    transfer_s: float = 0.0
    busy_s: float = 0.0
    moved_bytes: int = 0

    @property
    def total_s(self) -> float:
        """All parts together."""
        return self.latency_s + self.transfer_s + self.busy_s


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node for a task, with all that it would cost there.

    Attributes:
        node: its name.
        wait_s: until a lane there would come to the task.
        prices: of each file that it reads, by number.
    """

    node: str
    wait_s: float
    prices: dict[int, Price]

    @property
    def total_s(self) -> float:
        """Until the task has begun and its files are there, one after the other."""
        return self.wait_s + sum(price.total_s for price in self.prices.values())


class Links:
    """Measured rates (bytes per second) and latencies (seconds) between pairs.

    A source is a node, an origin that nodes read from, or "": the front end, which has or reads what no other does. A
    pair that nobody measured is thought to be as its source is on the average, else as all are.
    """

    def __init__(self, rate_bytes_s: float = RATE_BYTES_S, latency_s: float = LATENCY_S) -> None:
        self._rates: dict[tuple[str, str], float] = {}
        self._latencies: dict[tuple[str, str], float] = {}
        self._rate_of: dict[str, float] = {}  # by source
        self._latency_of: dict[str, float] = {}
        self._rate = rate_bytes_s
        self._latency = latency_s
        self._measured = False

    def learn(self, source: str, node: str, moved_bytes: int, took_s: float) -> None:
        """Take in a transfer that has ended."""
        if not 0 < took_s < math.inf or moved_bytes < 0:
            return
        took_s = max(took_s, SHORTEST_S)
        pair = (source, node)
        if moved_bytes < SMALL_BYTES:
            self._latencies[pair] = _blend(self._latencies.get(pair), took_s)
            self._latency_of[source] = _blend(self._latency_of.get(source), took_s)
            return
        moving_s = max(took_s - self.latency_s(source, node), 0.1 * took_s)
        rate = moved_bytes / moving_s
        self._rates[pair] = _blend(self._rates.get(pair), rate)
        self._rate_of[source] = _blend(self._rate_of.get(source), rate)
        self._rate = _blend(self._rate if self._measured else None, rate)
        self._measured = True

    def rate_bytes_s(self, source: str, node: str) -> float:
        """How fast bytes go from a source to a node."""
        return self._rates.get((source, node)) or self._rate_of.get(source) or self._rate

    def latency_s(self, source: str, node: str) -> float:
        """How long a request takes when there is next to nothing to move."""
        return self._latencies.get((source, node)) or self._latency_of.get(source) or self._latency

    def knows(self, source: str) -> bool:
        """Whether the rate from a source to any node was measured."""
        return source in self._rate_of

    def measured_bytes_s(self, source: str, node: str) -> float:
        """How fast bytes went from a source to a node; 0 where that was not measured."""
        return self._rates.get((source, node), 0.0)

    def seconds(self, source: str, node: str, size: int, busy: int = 0) -> float:
        """How long a file of a size takes, when the source serves so many others."""
        return self.latency_s(source, node) + size * (1 + busy) / self.rate_bytes_s(source, node)

    def forget(self, node: str) -> None:
        """A node is gone: what comes back under its name may lie elsewhere."""
        for table in (self._rates, self._latencies):
            for pair in [pair for pair in table if node in pair]:
                del table[pair]
        self._rate_of.pop(node, None)
        self._latency_of.pop(node, None)


def stage_price(links: Links, node: str, size: int, source: str, busy: int = 0) -> Price:
    """What it costs to copy a file into a node's cache."""
    transfer_s = size / links.rate_bytes_s(source, node)
    return Price(Way.STAGE, source, links.latency_s(source, node), transfer_s, transfer_s * busy, size)


def read_price(links: Links, node: str, size: int, source: str, fraction: float, busy: int = 0) -> Price:
    """What it costs to read a fraction of a file from afar, in blocks that are read ahead."""
    wanted = int(size * fraction)
    trips = 1 + wanted // READ_AHEAD_BYTES
    transfer_s = wanted / links.rate_bytes_s(source, node)
    return Price(Way.READ, source, trips * links.latency_s(source, node), transfer_s, transfer_s * busy, wanted)


def cheapest(prices: Iterable[Price]) -> Price:
    """The lowest price; of equals, the first."""
    return min(prices, key=lambda price: price.total_s)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
