"""A look at nodes as of a moment ago, made on the dispatcher's thread for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serai.dispatch.roster import Roster
    from serai.dispatch.schedule.machine import Schedule


@dataclass(frozen=True, slots=True)
class NodeNow:
    """A node, a moment ago.

    Attributes:
        standing: see `serai.pool.members.Standing`.
        why: what was wrong last, if anything.
        slots: lanes it has; 0 while it is not up.
        busy: of them.
        tasks: the first task of each busy lane: it runs, or is about to.
        held: tasks that are on the node.
        leaving: files that it has still to hand over before it is let go of; None while it is to stay.
    """

    name: str
    standing: str
    why: str
    slots: int = 0
    busy: int = 0
    tasks: tuple[int, ...] = ()
    held: int = 0
    leaving: int | None = None


def take(schedule: Schedule, roster: Roster) -> tuple[NodeNow, ...]:
    """Look at every node of a pool."""
    found = []
    for name, member in roster.members.items():
        node = schedule.nodes.get(name)
        if node is None:
            found.append(NodeNow(name, member.standing, member.why))
            continue
        busy = [lane for lane in node.lanes if lane]
        tasks = tuple(next(iter(lane[0].left), 0) for lane in busy)
        held = sum(len(bundle.left) for lane in busy for bundle in lane)
        use, leaving = len(busy) + len(node.lent), schedule.to_hand_over(name)
        found.append(NodeNow(name, member.standing, member.why, node.slots, use, tasks, held, leaving))
    return tuple(found)
