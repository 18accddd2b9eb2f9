"""Bundles on the lanes of nodes: they are sent there, come back or are lost, and leave room for the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.describe.task import Cause
from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.records import Bundle
from serai.match.movement import Access, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Node, Task, Work
    from serai.match.movement import Move


class Lanes:
    """What is on its way or on a lane.

    Args:
        schedule: whose nodes these are.
        first_bundle: the number of the first bundle.
        has_idle: is told of a node that has a lane with nothing on it.
        has_thin: is told of one that has a lane with little on it.

    Attributes:
        bundles: by number.
        there: how many lanes there are.
        used: how many of them have something to do.
    """

    def __init__(
        self,
        schedule: Schedule,
        first_bundle: int,
        has_idle: Callable[[Node], object],
        has_thin: Callable[[Node], object],
    ) -> None:
        self._schedule = schedule
        self._next_bundle = first_bundle
        self._has_idle = has_idle
        self._has_thin = has_thin
        self.bundles: dict[int, Bundle] = {}
        self.there = 0
        self.used = 0

    # ---- nodes and their lanes

    def came(self, node: Node) -> None:
        """A node is there."""
        node.lanes = [[] for _ in range(node.slots)]
        self.there += node.slots
        for lane in range(node.slots):
            self._classify(node, lane)

    def gone(self, node: Node, why: str, now: float) -> None:
        """A node is there no longer, and what it had is lost."""
        self.there -= node.slots
        for lane, bundles in enumerate(node.lanes):
            node.site.idle.pop((node.name, lane), None)
            node.site.thin.pop((node.name, lane), None)
            for position, bundle in enumerate(list(bundles)):
                self.lose(bundle, why, now, blame=position == 0 and node.suspect in {None, bundle})

    def down(self, event: ev.LaneDown, now: float) -> None:
        """A lane has ended, with what it had."""
        node = self._schedule.nodes.get(event.node)
        if node is None:
            return
        held = {bundle.id: bundle for bundle in node.lanes[event.lane]}
        # The lane had them in another order than they were sent in, where one waited for its files.
        gone = list(held) if event.bundles is None else [number for number in event.bundles if number in held]
        for position, bundle in enumerate(held[number] for number in gone):
            self.lose(bundle, event.why, now, blame=event.blame and position == 0)

    def _classify(self, node: Node, lane: int) -> None:
        """Put a lane on the list it belongs to: idle, thin or neither."""
        site, key, bundles = node.site, (node.name, lane), node.lanes[lane]
        site.idle.pop(key, None)
        site.thin.pop(key, None)
        if lane in node.lent:
            return
        if not bundles:
            site.idle[key] = None
            self._has_idle(node)
        elif (
            len(bundles) < self._schedule.limits.depth
            and bundles[0].work.needs.cores == 1
            and node.suspect not in bundles
        ):
            site.thin[key] = None
            self._has_thin(node)

    # ---- bundles

    def open(self, work: Work, node: Node, lanes: Sequence[int], tasks: list[int], now: float) -> None:
        """Send tasks to the first of some lanes; for the placing only."""
        number = self._next_bundle
        self._next_bundle += 1
        lane = lanes[0]
        bundle = Bundle(number, work, node, lane, tuple(lanes[1:]), dict.fromkeys(tasks), now)
        self.bundles[number] = bundle
        held, known = (number,), self._schedule.tasks
        for ident in tasks:
            task = known[ident]
            task.bundles = held if not task.bundles else (*task.bundles, number)
        site = node.site
        used = len(bundle.borrowed) + (not node.lanes[lane])
        site.active += used
        self.used += used
        node.lanes[lane].append(bundle)
        for other in bundle.borrowed:
            node.lent[other] = bundle
            site.idle.pop((node.name, other), None)
            site.thin.pop((node.name, other), None)
        node.memory_used += work.needs.memory_bytes
        if self.is_suspect(known[tasks[0]]):
            node.suspect = bundle
        self._classify(node, lane)
        moves = self._order(bundle, tasks) if work.files is not None else ()
        work.sent_at = work.sent_at or now
        self._schedule.act(ev.Assign(number, node.name, lane, work.id, tasks, moves))

    def _order(self, bundle: Bundle, tasks: list[int]) -> list[Move]:
        """How the files that a bundle's tasks read come to its node."""
        known = self._schedule.tasks
        files = [file for ident in tasks for file in known[ident].inputs]
        nearness = self._schedule.nearness[bundle.work.id]
        access = nearness.access(bundle.node.name)
        if access is Access.AUTO and nearness.wants_to_look(bundle.node.name, files):
            access = Access.MOUNT
            bundle.work.look, bundle.work.looks = bundle.id, bundle.work.looks + 1
        moves = self._schedule.holdings.order(bundle.node.name, files, access, bundle.work.fraction)
        bundle.coming = tuple(move.file for move in moves if move.way == Way.STAGE)
        bundle.reads = any(move.way == Way.READ for move in moves)
        return moves

    def close(self, bundle: Bundle) -> None:
        """Take a bundle off its lane."""
        if self.bundles.pop(bundle.id, None) is None:
            return
        self._schedule.act(ev.Closed(bundle.id))
        node = bundle.node
        node.lanes[bundle.lane].remove(bundle)
        node.memory_used -= bundle.work.needs.memory_bytes
        if node.suspect is bundle:
            node.suspect = None
        used = len(bundle.borrowed) + (not node.lanes[bundle.lane])
        node.site.active -= used
        self.used -= used
        if bundle.coming:
            self._schedule.holdings.give_up(node.name, bundle.coming)
        for other in bundle.borrowed:
            node.lent.pop(other, None)
        if self._schedule.nodes.get(node.name) is node:
            for lane in (*bundle.borrowed, bundle.lane):
                self._classify(node, lane)

    def lose(self, bundle: Bundle, why: str, now: float, *, blame: bool) -> None:
        """A bundle is gone with its lane: what it held is queued again, first in line.

        Any task of it that was not reported may be to blame: results of the first ones may be lost with the lane. So
        each of them is suspected, travels alone from now on, and has its last chance as the only suspect of a node.
        """
        self.close(bundle)
        for ident in reversed(bundle.left):
            task = self._schedule.tasks.get(ident)
            if task is None:
                continue
            task.bundles = tuple(one for one in task.bundles if one != bundle.id)
            if blame:
                task.losses += 1
                if task.losses >= self._schedule.limits.losses and not task.bundles:
                    self._schedule.forget(task)
                    self._schedule.failed += 1
                    words = f"it was running when {task.losses} executors ended; the last: {why}"
                    self._schedule.act(ev.GiveUp(task.work.id, ident, Cause.NODE_LOST, bundle.node.name, words))
                    continue
            if not task.bundles:
                task.work.put(task, first=True)

    def end_twins(self, task: Task, keep: str) -> None:
        """One attempt at a task is under way or done: end the others."""
        kept = []
        for number in task.bundles:
            bundle = self.bundles[number]
            if bundle.node.name == keep:
                kept.append(number)
            else:
                bundle.left.pop(task.id, None)
                self._schedule.act(ev.Kill(bundle.node.name, bundle.lane, bundle.id, [task.id]))
        task.bundles = tuple(kept)

    def is_suspect(self, task: Task) -> bool:
        """Whether the next executor that a task loses is its last."""
        return 0 < task.losses >= self._schedule.limits.losses - 1
