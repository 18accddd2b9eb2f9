"""A short look at the nodes of a pool: each checks in, says what it has, and is left as it was."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.data.landing import Landing
from serai.describe.ads.software import evidence, well_known
from serai.dispatch.carrier import Beat, Came, Gone, Timing
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.roster import Roster
from serai.dispatch.run import expand
from serai.errors import NodeLost, SeraiError
from serai.match.communities import Grouping, group
from serai.pool.members import Patience
from serai.pool.nearness import closeness, places
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from serai.clock import Clock
    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.carrier import Carrier
    from serai.dispatch.schedule.events import Event

DEADLINE_S = 45.0
CLOSE_S = 15.0
BEAT_S = 0.5


@dataclass(slots=True)
class Survey:
    """What was seen.

    Attributes:
        ads: what nodes said, and their sites of them, by name.
        troubles: why other nodes are not there, by name.
        nearest: the store that was found nearest and the time of a connection to it, by node.
    """

    ads: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: dict[str, SeraiError] = field(default_factory=dict)
    nearest: dict[str, tuple[str, float]] = field(default_factory=dict)


def _unheard(_event: Event) -> None:
    """Nobody looks for files here."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked for.

    Attributes:
        name: of the look, as runs have one; no other may have it.
        scratch: a directory here, in which nothing is left.
        software: what nodes are asked for beside what every node is.
        stores: ads by name: nodes that name no store say how near these are.
    """

    name: str
    scratch: Path
    software: tuple[str, ...] = ()
    stores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def survey(sites: Sequence[SiteSpec], look: Look, clock: Clock) -> Survey:
    """Look at every node of some sites, all at the same time.

    Raises:
        UsageError: a site has an unknown scheme or option.
    """
    timing = Timing(beat_s=BEAT_S, check_in_s=DEADLINE_S)
    asked = sorted({*well_known(), *(program for one in look.software for program in evidence(one))})
    hello = {"run": look.name, "beat": timing.beat_s, "silence": timing.silence_s, "keep": 0, "software": asked}
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    roster = Roster(
        expand(sites), hello, Landing(look.name, look.scratch), clock, timing, Patience(tries=0), Catalogue(_unheard)
    )
    found, until = Survey(), clock.now() + DEADLINE_S
    waits = set(roster.specs)  # nodes that have not told all
    try:
        roster.start(lambda carrier, event: told.put((carrier, event)))
        while waits:
            try:
                carrier, event = told.get(timeout=max(0.0, until - clock.now()))
            except queue.Empty:
                break
            _take(found, roster, carrier, event, look, waits, clock.now())
    finally:
        roster.close(CLOSE_S)
    for node in waits - found.ads.keys():
        found.troubles[node] = NodeLost(f"it said nothing within {DEADLINE_S:g} s", host=node)
    return found


def _take(
    found: Survey, roster: Roster, carrier: Carrier, event: object, look: Look, waits: set[str], now: float
) -> None:
    """Take in what a node has told."""
    node = carrier.spec.name
    if isinstance(event, Came):
        roster.came(carrier, event, now)
        found.ads[node] = ad = dict(event.ad)
        wanted = {} if ad.get("nearest_storage") else places(look.stores, str(ad.get("host", "")))
        if wanted:
            carrier.control(wire.pack(wire.PROBE, head={"software": [], "reach": list(wanted.values())}))
        else:
            waits.discard(node)
    elif isinstance(event, Gone) and node not in found.ads:
        found.troubles[node] = event.error
        waits.discard(node)
    elif isinstance(event, Gone):
        waits.discard(node)
    elif isinstance(event, Beat) and "reach" in event.head:
        near = closeness(places(look.stores, str(found.ads[node].get("host", ""))), event.head["reach"])
        grouping = group(Grouping(), {(node, store): one for store, one in near.items()}, {}, 0.0)
        if node in grouping.at:
            found.nearest[node] = grouping.at[node], near[grouping.at[node]].rtt_s
        waits.discard(node)
