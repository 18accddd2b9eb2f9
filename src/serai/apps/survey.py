"""A short look at the nodes of a pool: each checks in, says what it has, and is left as it was."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.data.landing import Landing
from serai.describe.ads.software import evidence, well_known
from serai.dispatch.carrier import Came, Gone, Timing
from serai.dispatch.catalogue import Catalogue
from serai.dispatch.roster import Roster
from serai.dispatch.run import expand
from serai.dispatch.schedule.events import Probed
from serai.errors import NodeLost, SeraiError
from serai.pool.members import Patience

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from serai.clock import Clock
    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.schedule.events import Event

DEADLINE_S = 45.0
CLOSE_S = 15.0


@dataclass(slots=True)
class Survey:
    """What was seen.

    Attributes:
        ads: what nodes said, and their sites of them, by name.
        troubles: why other nodes are not there, by name.
    """

    ads: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: dict[str, SeraiError] = field(default_factory=dict)


def _unheard(_event: Event) -> None:
    """Nobody looks for files here."""


def survey(sites: Sequence[SiteSpec], name: str, scratch: Path, clock: Clock, software: Iterable[str] = ()) -> Survey:
    """Look at every node of some sites, all at the same time.

    Args:
        sites: which.
        name: of the look, as runs have one; no other may have it.
        scratch: a directory here, in which nothing is left.
        clock: tells the time.
        software: what nodes are asked for beside what every node is.

    Raises:
        UsageError: a site has an unknown scheme or option.
    """
    timing = Timing(check_in_s=DEADLINE_S)
    asked = sorted({*well_known(), *(program for one in software for program in evidence(one))})
    hello = {"run": name, "beat": timing.beat_s, "silence": timing.silence_s, "keep": 0, "software": asked}
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    roster = Roster(expand(sites), hello, Landing(name, scratch), clock, timing, Patience(tries=0), Catalogue(_unheard))
    found, until = Survey(), clock.now() + DEADLINE_S
    try:
        roster.start(lambda carrier, event: told.put((carrier, event)))
        while len(found.ads) + len(found.troubles) < len(roster.specs):
            try:
                carrier, event = told.get(timeout=max(0.0, until - clock.now()))
            except queue.Empty:
                break
            node = carrier.spec.name
            if isinstance(event, Came):
                roster.came(carrier, event, clock.now())
                found.ads[node] = dict(event.ad)
            elif isinstance(event, Gone) and node not in found.ads:
                found.troubles[node] = event.error
            elif isinstance(event, Probed):
                found.ads[node] = roster.probed(node, event.software)
    finally:
        roster.close(CLOSE_S)
    for node in roster.specs.keys() - found.ads.keys() - found.troubles.keys():
        found.troubles[node] = NodeLost(f"it said nothing within {DEADLINE_S:g} s", host=node)
    return found
