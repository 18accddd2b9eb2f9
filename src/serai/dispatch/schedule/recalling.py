"""What lanes hold and have not started: called back where others have nothing to do, or doubled where it waits long."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.match.movement import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Bundle, Site

RECALL_EVERY_S = 0.05


class Recalling:
    """Looks after the bundles of a schedule. Sites that it is given may have idle lanes."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._again_at = 0.0
        self._wanted = False

    def wake_at(self, now: float) -> float:
        """When a lane may be looked at again, while there are bundles."""
        return self._again_at if self._wanted else now + 1.0

    def recall(self, sites: Iterable[Site], now: float) -> None:
        """Where lanes have nothing to do, call back what others have not started."""
        schedule = self._schedule
        if self._wanted and now < self._again_at and schedule.bundles:
            return  # it is looked at again then
        self._wanted = False
        if not schedule.bundles or any(work.plain and work.fit for work in schedule.busy.values()):
            return
        idle = [site for site in sites if site.idle and site.score.is_open(now)]
        spare = sum(min(len(site.idle), site.score.allowed() - site.active) for site in idle)
        if spare <= 0:
            return
        self._wanted = True
        if now < self._again_at:
            return
        self._again_at = now + RECALL_EVERY_S
        names = {name: None for site in idle for name, _ in site.idle}
        for bundle in self._loaded(now, names):
            bundle.recalled = True
            schedule.act(ev.Recall(bundle.node.name, bundle.lane, bundle.id))
            spare -= len(bundle.left)
            if spare <= 0:
                return

    def _loaded(self, now: float, idle: dict[str, None]) -> list[Bundle]:
        """Bundles with tasks that wait behind others, the longest wait first."""
        found = []
        useful: dict[int, bool] = {}
        for bundle in self._schedule.bundles.values():
            behind = len(bundle.left) > 1 or bundle.node.lanes[bundle.lane][0] is not bundle
            if bundle.recalled or not bundle.left or not behind:
                continue
            if bundle.work.id not in useful:
                useful[bundle.work.id] = not bundle.work.fit.isdisjoint(idle)
                nearness = self._schedule.nearness.get(bundle.work.id)
                if nearness is not None:
                    nearness.refresh(now)  # what runs for long is thought to last: nobody may have asked since it began
            if not useful[bundle.work.id] or not self._is_better_elsewhere(bundle, idle):
                continue
            wait = bundle.work.estimate.mean_s * len(bundle.left)
            age = now - bundle.sent_at
            if age > max(RECALL_EVERY_S, 2.0 * bundle.node.rtt_s) and (
                wait < 0 or wait > RECALL_EVERY_S or age > 2 * wait
            ):
                found.append(bundle)
        found.sort(key=lambda bundle: bundle.sent_at)
        return found

    def _is_better_elsewhere(self, bundle: Bundle, idle: dict[str, None]) -> bool:
        """Whether an idle node would have what a bundle's tasks read before the bundle is through."""
        schedule = self._schedule
        nearness = schedule.nearness.get(bundle.work.id)
        if nearness is None:
            return True
        if schedule.limits.policy is Policy.MAX_CACHE_HIT:
            return False
        last = schedule.tasks.get(next(reversed(bundle.left)))
        others = (name for name in idle if name in bundle.work.fit and name != bundle.node.name)
        return (
            last is None
            or not last.inputs
            or any(nearness.is_worth(name, last.inputs, len(bundle.left)) for name in islice(others, 4))
        )

    def replicate(self, sites: Iterable[Site], now: float) -> None:
        """Queue copies of tasks that wait on a node for too long (Swift): the first to start ends the others."""
        schedule, limits = self._schedule, self._schedule.limits
        if not any(site.idle for site in sites):
            return
        for bundle in list(schedule.bundles.values()):
            if now - bundle.sent_at < limits.replicate_after_s:
                continue
            started = {task for task, _ in bundle.node.running.values()}
            for ident in bundle.left:
                task = schedule.tasks.get(ident)
                if task is None or ident in started or len(task.bundles) >= limits.copies:
                    continue
                others = task.work.fit - {schedule.bundles[number].node.name for number in task.bundles}
                if others and not task.where:
                    task.work.put(task)
                    schedule.act(
                        ev.Note(f"waited {now - bundle.sent_at:.0f} s: a copy is queued", bundle.node.name, ident)
                    )
