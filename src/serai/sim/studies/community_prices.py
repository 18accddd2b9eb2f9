"""What ``auto`` does with a free machine of a community: by the price of each way, for all jobs that wait alike.

A single job would always rather read from afar than wait for a stage that serves hundreds. So a way is priced as the
last of the waiting jobs meets it: with all the others of its round on the same link.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serai.match.movement import Price, Way, cheapest, read_price, stage_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.match.movement import Links

__all__ = ["Choice", "Home", "Load", "decide"]


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs that wait and are alike.

    Attributes:
        waiting: how many.
        file_bytes: of the file that each reads from.
        read_bytes: that it reads of it.
        million_instructions: that it computes.
        shared: whether all read from one file.
        origin: the store that the file is from.
        readers: flows on the link between the communities as it is.
        link_share: of that link, which those use that run; may be over 1.
    """

    waiting: int
    file_bytes: int
    read_bytes: int
    million_instructions: float
    shared: bool
    origin: str
    readers: int
    link_share: float


@dataclass(frozen=True, slots=True)
class Home:
    """A community, as these jobs see it.

    Attributes:
        store: its name.
        frees_s: how long it takes until each machine is free; 0 for those that are.
        mips: of each.
        store_bytes_s: what its store gives.
        has: whether its store has what they read.
        to_come: bytes of it that are on their way; None when nobody has begun.
        store_share: of what its store gives, which those use that run; may be over 1.
    """

    store: str
    frees_s: Sequence[float]
    mips: int
    store_bytes_s: float
    has: bool
    to_come: float | None
    store_share: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do with a free machine.

    Attributes:
        way: `Way.HERE` or `Way.READ`: start a job; `Way.STAGE`: bring the file, and wait; None: leave it to others.
        gain_s: how much sooner the last job ends than without this machine's community.
        full: whether what it reads from is used up by those that run: it would take from them what it gets.
        prices: of the ways that were compared, with their parts.
    """

    way: Way | None
    gain_s: float
    full: bool
    prices: tuple[Price, ...]


def decide(load: Load, homes: Sequence[Home], store: str, links: Links) -> Choice:
    """Choose for a free machine of one community.

    Args:
        load: the jobs that wait.
        homes: all communities.
        store: of the community that has the free machine.
        links: measured rates between the stores.
    """
    here = next(home for home in homes if home.store == store)
    prices = _prices(load, here, links)
    best = cheapest(prices)
    ends_s = best.total_s + load.million_instructions / here.mips
    others_s = min((_without_s(load, home) for home in homes if home.store != store and home.has), default=math.inf)
    way = best.way if ends_s < others_s else None
    share = here.store_share if best.way is Way.HERE else load.link_share
    return Choice(way, others_s - ends_s, share >= 1.0, tuple(prices))


def _prices(load: Load, home: Home, links: Links) -> list[Price]:
    machines = len(home.frees_s)
    together = min(load.waiting, machines)
    compute_s = load.million_instructions / home.mips
    if home.has:
        transfer_s = load.read_bytes / home.store_bytes_s
        here = Price(Way.HERE, home.store, 0.0, transfer_s, transfer_s * (together - 1), load.read_bytes)
        return [_overlapped(here, compute_s)]
    fraction = load.read_bytes / load.file_bytes
    read = read_price(links, home.store, load.file_bytes, load.origin, fraction, together - 1 + load.readers)
    read = _overlapped(read, compute_s)
    # Each round of jobs reads again; a stage is paid for once.
    prices = [replace(read, busy_s=read.busy_s * math.ceil(load.waiting / machines))]
    if load.shared:
        left = load.file_bytes if home.to_come is None else math.ceil(home.to_come)
        prices.append(stage_price(links, home.store, left, load.origin, load.readers if home.to_come is None else 0))
    return prices


def _overlapped(price: Price, compute_s: float) -> Price:
    """Jobs read and compute in turn: while one computes the others read, and none waits until the link is full."""
    return replace(price, busy_s=max(0.0, price.busy_s - compute_s))


def _without_s(load: Load, home: Home) -> float:
    """When the last of the waiting jobs would end if another community ran them all."""
    run_s = load.million_instructions / home.mips
    free = list(home.frees_s)
    heapq.heapify(free)
    last_s = 0.0
    for _ in range(load.waiting):
        last_s = free[0] + run_s
        heapq.heapreplace(free, last_s)
    return last_s
