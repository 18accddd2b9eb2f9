"""Which nodes the tasks of a work may have: what they need, what nodes tell of themselves, what ads say of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.match.feasible import why_not

if TYPE_CHECKING:
    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Node, Work
    from serai.match.matching import Matching

ASK_AGAIN_S = 10.0  # a probe that is not answered in this time is sent again


class Fitting:
    """Keeps `Work.fit` and `Work.unfit` true.

    Args:
        schedule: whose works and nodes these are.
        matching: answers for expressions.
    """

    def __init__(self, schedule: Schedule, matching: Matching) -> None:
        self._schedule = schedule
        self.matching = matching
        self._asked_at: dict[str, float] = {}  # when nodes were asked about programs that they have not told of

    def check(self, work: Work, node: Node, now: float) -> None:
        """Decide whether a node can ever run a work; asks for what is not known."""
        programs = (*work.needs.software, *self.matching.software(work.needs))
        unknown = [name for name in programs if name not in node.ad["software"]]
        fresh = tuple(name for name in unknown if name not in node.asked)
        if fresh:
            node.asked.update(fresh)
            self._asked_at[node.name] = now
            self._schedule.act(ev.Probe(node.name, fresh))
        reason = why_not(work.needs, node.ad, slots=node.slots, memory_bytes=node.memory_bytes)
        if node.leaving:
            reason = "it is about to go away"
        fits = False
        if not reason and not unknown:
            answer = self.matching.judge(work.needs, node.name, now)
            fits, reason = not answer.why, None if answer.for_now else answer.why
            work.ranks[node.name] = answer.rank
        work.unfit.pop(node.name, None)
        work.fit.discard(node.name)
        if reason:
            work.unfit[node.name] = reason
        elif fits:
            work.fit.add(node.name)
        if not fits and node.held_for is work:
            node.held_for = None
            work.holds.discard(node.name)
        work.settle(node)

    def _match_again(self, now: float) -> None:
        """Look again at all that may fit otherwise than it did: by the hour, by a store's ad."""
        for work in self._schedule.works.values():
            for node in self._schedule.nodes.values():
                self.check(work, node, now)

    def advertised(self, event: ev.Advertised, now: float) -> None:
        """The ads of stores are these now, and which of them is nearest to which node."""
        if self.matching.put_stores(event.stores, event.nearest):
            self._match_again(now)

    def probed(self, event: ev.Probed, now: float) -> None:
        """A node has told which programs it has."""
        node = self._schedule.nodes.get(event.node)
        if node is not None:
            node.ad["software"].update(event.software)
            node.asked.difference_update(event.software)
            if not node.asked:
                self._asked_at.pop(node.name, None)
            self.matching.put_node(node.name, node.ad)
            for work in self._schedule.works.values():
                self.check(work, node, now)

    def came(self, node: Node, now: float) -> None:
        """A node is there."""
        self.matching.put_node(node.name, node.ad)
        for work in self._schedule.works.values():
            self.check(work, node, now)

    def gone(self, node: str) -> None:
        """A node is there no longer."""
        self._asked_at.pop(node, None)
        self.matching.drop_node(node)

    def tick(self, now: float) -> None:
        """Ask again what was not answered, and look at what goes by the hour."""
        self._ask_again(now)
        if self.matching.tick(now):
            self._match_again(now)

    def wake_at(self) -> float:
        """When a `tick` is wanted."""
        return min(self.matching.look_at, min(self._asked_at.values(), default=float("inf")) + ASK_AGAIN_S)

    def _ask_again(self, now: float) -> None:
        for name, asked_at in list(self._asked_at.items()):
            if now >= asked_at + ASK_AGAIN_S:
                self._asked_at[name] = now
                self._schedule.act(ev.Probe(name, tuple(sorted(self._schedule.nodes[name].asked))))
