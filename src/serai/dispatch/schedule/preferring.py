"""The order in which idle lanes are offered where a work wants some nodes more than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serai.dispatch.schedule.records import Site, Work


def leader(works: Iterable[Work]) -> Work | None:
    """The work whose wishes count in this turn: the first that waits and has any. The turn is another's next time."""
    return next((work for work in works if work.waiting and work.needs.rank), None)


def best_first(lead: Work, sites: Sequence[Site], *, thin: bool) -> list[tuple[Site, str, int]]:
    """The lanes of some sites, those on nodes that a work ranks highest first; else in their order."""
    ranks = lead.ranks
    lanes = [(site, name, lane) for site in sites for name, lane in (site.thin if thin else site.idle)]
    lanes.sort(key=lambda one: -ranks.get(one[1], 0.0))
    return lanes


def best_names(lead: Work, names: Iterable[str]) -> list[str]:
    """Nodes, those that a work ranks highest first; else in their order."""
    ranks = lead.ranks
    return sorted(names, key=lambda name: -ranks.get(name, 0.0))
