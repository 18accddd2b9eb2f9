"""What a queue of tasks that read files asks of the schedule: prices of transfers, waits for lanes, who is free."""

from __future__ import annotations

from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING

from serai.dispatch.schedule.files.holdings import ORIGIN
from serai.match.movement import Access, Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Task, Work
    from serai.match.movement import Price

LEAST_TASK_S = 0.05  # how long a task is thought to take before any has ended
LANES_LOOKED_AT = 4
RATE_AGAIN_S = 1.0
MOST_LOOKS = 2  # bundles of a work that read from afar for it to be seen how much they read
WORTH_LOOKING_S = 2.0  # files that are copied sooner are copied
NEAREST = 4  # nodes that are nearest to the origin, kept for comparison
MUCH_FARTHER = 2.0  # a node whose rate from the origin is so many times lower is compared with those


class Nearness:
    """Answers for the queue of one work.

    Args:
        schedule: whose nodes and files these are.
        work: whose tasks read them.
    """

    def __init__(self, schedule: Schedule, work: Work) -> None:
        self._schedule = schedule
        self._work = work
        self._now = 0.0
        self._rated: dict[str, tuple[list[str], float]] = {}  # by origin: the nodes nearest to it, and the best rate
        self._rate_again_at = float("-inf")

    def refresh(self, now: float) -> None:
        """Take in the time, and what was learnt since."""
        self._now = now
        work = self._work
        if work.files is not None:
            known = work.estimate.mean_s
            unknown = max(LEAST_TASK_S, now - work.sent_at if work.sent_at else 0.0)
            work.files.prices.task_s = known if known >= 0 else unknown
        if now >= self._rate_again_at:
            self._rate_again_at = now + RATE_AGAIN_S
            self._rated.clear()

    def _nearest(self, origin: str) -> tuple[list[str], float]:
        """The nodes that are nearest to an origin, and the rate of the best of them."""
        known = self._rated.get(origin)
        if known is None:
            rate = self._schedule.holdings.far_rate_bytes_s
            rated = nlargest(NEAREST, ((rate(name, origin), name) for name in self._work.fit))
            known = self._rated[origin] = ([name for _, name in rated], rated[0][0] if rated else 0.0)
        return known

    def access(self, node: str) -> Access:
        """The ways that a node offers."""
        access = self._schedule.limits.access
        if access is Access.STAGE or not self._schedule.nodes[node].ad.get("mount"):
            return Access.STAGE
        if access is Access.AUTO and self._work.copies_only:
            return Access.STAGE
        return access

    def wants_to_look(self, node: str, files: Sequence[int]) -> bool:
        """Whether tasks should read from afar so that it is seen how much of their files this work reads.

        One bundle of a work does, and another if nothing came of it; the others do not wait for what it finds.
        """
        work, holdings = self._work, self._schedule.holdings
        if work.fraction is not None or work.looks >= MOST_LOOKS or work.look in self._schedule.bundles:
            return False
        rate = min((holdings.far_rate_bytes_s(node, one) for one in set(map(holdings.origin, files))), default=1.0)
        return holdings.missing_bytes(node, files) / rate >= WORTH_LOOKING_S

    def fetch_s(self, node: str, files: Sequence[int]) -> float:
        """See `Surroundings`."""
        return self._schedule.holdings.fetch_s(node, files, self.access(node), self._work.fraction)

    def elsewhere_s(self, node: str, files: Sequence[int]) -> float:
        """See `Surroundings`: only for a node that is much farther from the files' origin than others."""
        schedule, work = self._schedule, self._work
        holdings = schedule.holdings
        origin = holdings.origin(files[0]) if files else ORIGIN
        nearest, best = self._nearest(origin)
        if work.files is None or holdings.far_rate_bytes_s(node, origin) * MUCH_FARTHER > best:
            return float("inf")
        lanes = sum(len(schedule.nodes[name].lanes) for name in nearest if name in schedule.nodes)
        backlog_s = work.waiting * work.files.prices.task_s / max(1, lanes)
        return min(
            (
                self.lane_s(name) + backlog_s + self.fetch_s(name, files)
                for name in nearest
                if name != node and name in work.fit
            ),
            default=float("inf"),
        )

    def lane_s(self, node: str) -> float:
        """See `Surroundings`. What runs for a time already is thought to run for as long again."""
        there = self._schedule.nodes[node]
        closed_s = max(0.0, there.site.score.closed_until - self._now)
        shortest = float("inf")
        for held in islice(there.lanes, LANES_LOOKED_AT):
            if not held:
                return closed_s
            first = held[0]
            mean_s = first.work.estimate.mean_s
            left_s = mean_s * len(first.left) if mean_s >= 0 else self._now - first.sent_at
            shortest = min(shortest, left_s if first.work is not self._work else 0.0)
        return max(closed_s, shortest)

    def is_free(self, node: str) -> bool:
        """See `Surroundings`."""
        there = self._schedule.nodes[node]
        site = there.site
        if there.held_for is not None or not site.score.is_open(self._now) or site.active >= site.score.allowed():
            return False
        return any(not held and lane not in there.lent for lane, held in enumerate(there.lanes))

    def is_busy(self) -> bool:
        """See `Surroundings`."""
        schedule = self._schedule
        return schedule.lanes.used >= schedule.limits.busy_share * schedule.lanes.there

    def is_worth(self, node: str, files: Sequence[int], others: int) -> bool:
        """Whether a node would have some files before another has come to that many tasks that wait on it."""
        work = self._work
        wait_s = others * work.files.prices.task_s if work.files is not None else 0.0
        return self.fetch_s(node, files) < wait_s

    def explain(self, task: Task) -> list[Candidate]:
        """What a task would cost on each node that fits it, the cheapest first."""
        found = [Candidate(name, self._wait_s(name, task), self._prices(name, task)) for name in self._work.fit]
        return sorted(found, key=lambda candidate: (candidate.total_s, candidate.node))

    def _prices(self, node: str, task: Task) -> dict[int, Price]:
        holdings, access, fraction = self._schedule.holdings, self.access(node), self._work.fraction
        return {
            file: holdings.price(node, file, access, fraction) or holdings.origin_price(node, file)
            for file in dict.fromkeys(task.inputs)
        }

    def _wait_s(self, node: str, task: Task) -> float:
        files = self._work.files
        wait_s = self.lane_s(node)
        if files is not None and files.waiting and all(self._schedule.holdings.has(node, file) for file in task.inputs):
            wait_s += files.turn_s(node)
        return wait_s
