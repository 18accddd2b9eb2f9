"""Communities: nodes grouped around the store that is nearest to them, found by measuring; they follow the load.

The I/O communities of Thain, Bent, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Gathering at the Well: Creating
Communities for Grid I/O" (2001), were declared by hand. Here a node joins the store that it reaches soonest, stays
until another is clearly nearer, and is lent to the next store for as long as its own has more waiting than it can
serve. Pure: measurements, loads and `now` in, a new grouping out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Closeness", "Community", "Grouping", "Rules", "communities", "group"]

_LEAST_RTT_S = 1e-5  # below it, differences are noise


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near a node and a store are.

    Attributes:
        rtt_s: a message there and back.
        rate: bytes a second; 0 when nobody knows.
    """

    rtt_s: float
    rate: float = 0.0

    def cost_s(self, size: int) -> float:
        """Seconds to get so many bytes; where no rate is known, of the way alone."""
        return max(self.rtt_s, _LEAST_RTT_S) + (size / self.rate if self.rate > 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """When nodes change their store.

    Attributes:
        nearer: another store must be nearer by this factor.
        stay_s: a node that changed stays at least so long.
        size: the bytes that closeness is judged by where the rates of all stores are known.
        busy_s: a store with so many seconds of work waiting gives nodes to the next.
        idle_s: one with no more than this has its nodes back.
        lent: the part of a community that may be lent at a time.
        farthest: a node is lent only to a store that is at most so many times as far as its own.
    """

    nearer: float = 1.5
    stay_s: float = 60.0
    size: int = 64 << 20
    busy_s: float = 60.0
    idle_s: float = 10.0
    lent: float = 0.5
    farthest: float = 100.0


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which store each node belongs to.

    Attributes:
        home: the nearest store, by node.
        at: the store that it works with now, by node; another than its home while it is lent.
        since: when that changed last, by node.
    """

    home: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Community:
    """A store and its nodes.

    Attributes:
        lent: nodes of its own that work with other stores now.
        guests: nodes of others that work with it now.
    """

    store: str
    nodes: tuple[str, ...]
    lent: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()


def group(
    before: Grouping,
    measured: Mapping[tuple[str, str], Closeness],
    waiting_s: Mapping[str, float],
    now: float,
    rules: Rules = Rules(),
) -> Grouping:
    """Group nodes anew.

    Args:
        before: the last grouping.
        measured: closeness of (node, store) pairs; a pair that is missing cannot reach each other.
        waiting_s: seconds of work that wait at stores, by store; one that is missing has none.
        now: seconds.
        rules: when nodes change their store.
    """
    near: dict[str, dict[str, Closeness]] = {}
    for (node, store), one in measured.items():
        near.setdefault(node, {})[store] = one
    costs = {node: _costs(known, rules.size) for node, known in near.items()}
    home, at, since = {}, {}, {}
    for node, known in sorted(costs.items()):
        nearest = min(known, key=lambda store: (known[store], store))
        old, changed = before.home.get(node), before.since.get(node, now)
        if old in known:
            stays = now - changed < rules.stay_s or known[nearest] * rules.nearer > known[old]
            nearest = old if stays else nearest
        home[node] = nearest
        kept = before.at.get(node)
        at[node] = kept if old == nearest and kept in known else nearest
        since[node] = changed if at[node] == kept else now
    _lend(home, at, since, costs, waiting_s, now, rules)
    return Grouping(home, at, since)


def _costs(near: Mapping[str, Closeness], size: int) -> dict[str, float]:
    """What each store costs a node; by their rates where all are known, else by the way: the two do not compare."""
    size = size if all(one.rate > 0 for one in near.values()) else 0
    return {store: one.cost_s(size) for store, one in near.items()}


def _lend(
    home: Mapping[str, str],
    at: dict[str, str],
    since: dict[str, float],
    costs: Mapping[str, Mapping[str, float]],
    waiting_s: Mapping[str, float],
    now: float,
    rules: Rules,
) -> None:
    """Take nodes back whose store is idle again, then lend some of those whose store has too much to do."""
    for node, store in at.items():
        gone_home = waiting_s.get(home[node], 0.0) <= rules.idle_s or waiting_s.get(store, 0.0) >= rules.busy_s
        if store != home[node] and gone_home and now - since[node] >= rules.stay_s:
            at[node], since[node] = home[node], now
    for store in sorted(set(home.values())):
        if waiting_s.get(store, 0.0) < rules.busy_s:
            continue
        own = [node for node in home if home[node] == store]
        room = int(len(own) * rules.lent) - sum(at[node] != store for node in own)
        offers = []
        for node in own:
            if at[node] != store or now - since[node] < rules.stay_s:
                continue
            free = {
                other: cost
                for other, cost in costs[node].items()
                if other != store
                and waiting_s.get(other, 0.0) <= rules.idle_s
                and cost <= rules.farthest * costs[node][store]
            }
            if free:
                nearest = min(free, key=lambda other: (free[other], other))
                offers.append((free[nearest], node, nearest))
        for _, node, other in sorted(offers)[: max(0, room)]:
            at[node], since[node] = other, now


def communities(grouping: Grouping, stores: Iterable[str] = ()) -> list[Community]:
    """The communities of a grouping, by store; stores without nodes too."""
    found = []
    for store in sorted({*stores, *grouping.home.values(), *grouping.at.values()}):
        own = sorted(node for node, one in grouping.home.items() if one == store)
        found.append(
            Community(
                store,
                tuple(own),
                tuple(node for node in own if grouping.at[node] != store),
                tuple(
                    sorted(node for node, one in grouping.at.items() if one == store and grouping.home[node] != store)
                ),
            )
        )
    return found
