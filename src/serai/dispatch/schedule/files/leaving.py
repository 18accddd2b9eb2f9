"""Nodes that go away: what only they have is copied to others first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Node

COPY_MOST_S = 60.0  # a copy that has not come in this time, or in ten times what it was thought to take, is given up


class Leaving:
    """Hands over for a schedule.

    Args:
        schedule: whose nodes and files these are.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._left: dict[str, list[int]] = {}  # node: files that only it has, what is wanted last
        self._under_way: dict[tuple[str, int], tuple[str, float]] = {}  # (to, file): from, and when to give it up

    def begin(self, event: ev.Leaving, now: float) -> None:
        """A node is given nothing new, and what only it has is looked for."""
        schedule = self._schedule
        node = schedule.nodes.get(event.node)
        if node is None or node.leaving:
            return
        node.leaving = True
        for work in schedule.works.values():
            schedule.fitting.check(work, node, now)
            schedule.send_picky_home(work)
        if node.held_for is not None:
            node.held_for.holds.discard(node.name)
            node.held_for = None
        self._recall(node)
        holdings = schedule.holdings
        sole = [
            file
            for file, coming in holdings.there(node.name).items()
            if coming is None and len(holdings.homes(file)) == 1
        ]
        self._left[node.name] = sorted(sole, key=lambda file: (holdings.is_wanted(file), -file))

    def _recall(self, node: Node) -> None:
        """Call back what others can run and a node that leaves has not begun."""
        for lane, bundles in enumerate(node.lanes):
            for position, bundle in enumerate(bundles):
                if bundle.work.fit and not bundle.recalled and (position or len(bundle.left) > 1):
                    bundle.recalled = True
                    self._schedule.act(ev.Recall(node.name, lane, bundle.id))

    def hand_over(self, now: float) -> None:
        """Order copies, as many at a time as a source may serve."""
        if not self._left and not self._under_way:
            return
        for to, (_, late_at) in list(self._under_way.items()):
            if now >= late_at:
                self._drop(*to)
        for name, left in self._left.items():
            while left and self._schedule.holdings.fetching_from(name) < self._schedule.limits.transfers:
                file = left.pop()
                target = self._target(name, file)
                if target is not None:
                    self._copy(file, target, name, now)

    def _target(self, source: str, file: int) -> Node | None:
        """The node that a file is copied to: where it comes soonest, of those that stay; of equals, where least is."""
        schedule = self._schedule
        holdings = schedule.holdings
        if not holdings.serves(source, file) or len(holdings.homes(file)) > 1:
            return None
        staying = [node for node in schedule.nodes.values() if not node.leaving]
        size = holdings.size(file)
        return min(
            staying,
            key=lambda node: (
                holdings.links.seconds(source, node.name, size),
                len(holdings.there(node.name)),
                node.name,
            ),
            default=None,
        )

    def _copy(self, file: int, target: Node, source: str, now: float) -> None:
        holdings = self._schedule.holdings
        thought_s = holdings.links.seconds(source, target.name, holdings.size(file), self._schedule.limits.transfers)
        self._under_way[target.name, file] = (source, now + max(COPY_MOST_S, 10.0 * thought_s))
        holdings.expect(target.name, file, source).bundles += 1
        self._schedule.act(ev.Copy(file, target.name, source))

    def _drop(self, target: str, file: int) -> None:
        del self._under_way[target, file]
        self._schedule.holdings.give_up(target, (file,))

    def came(self, node: str, files: Iterable[int]) -> None:
        """Files have come to a node."""
        if self._under_way:
            for file in files:
                self._under_way.pop((node, file), None)

    def gone(self, node: str) -> None:
        """A node is gone: what it was sent, and what it was to send."""
        self._left.pop(node, None)
        for (target, file), (source, _) in list(self._under_way.items()):
            if node == target:
                del self._under_way[target, file]
            elif node == source:
                self._drop(target, file)

    def left(self, node: str) -> int:
        """How many files that only it has are still to be on another node."""
        return len(self._left.get(node, ())) + sum(source == node for source, _ in self._under_way.values())

    def is_free(self, node: str) -> bool:
        """Whether a node that leaves has nothing to do any more."""
        there = self._schedule.nodes.get(node)
        if there is None:
            return True
        return (
            there.leaving
            and not self._left[node]
            and not any(there.lanes)
            and all(source != node for source, _ in self._under_way.values())
        )

    def wake_at(self) -> float:
        """When a copy is given up."""
        return min((late_at for _, late_at in self._under_way.values()), default=float("inf"))
