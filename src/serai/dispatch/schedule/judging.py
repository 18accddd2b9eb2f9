"""The part of the schedule that judges reports: done, to be tried again, failed, or too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.describe.task import Cause
from serai.dispatch.schedule import events as ev
from serai.match.movement import Access

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Bundle, Task

# How a task ends that moves its input away, or asks of it what only a file on a disk can do.
NOT_OF_A_MOUNT = frozenset({Cause.EXIT, Cause.MISSING_OUTPUT, Cause.INPUT, Cause.OUTPUT})
ELSEWHERE = frozenset({Cause.INPUT, Cause.OUTPUT, Cause.EXECUTOR, Cause.NODE_LOST})


class Judging:
    """Judges for a schedule.

    Args:
        schedule: whose tasks and bundles these are.
        random: where jitter comes from.
    """

    def __init__(self, schedule: Schedule, random: random.Random) -> None:
        self._schedule = schedule
        self._random = random

    def report(self, report: ev.Report, now: float) -> None:
        """Take in what a lane says of a bundle."""
        bundle = self._schedule.bundles.get(report.bundle)
        if bundle is None:
            if report.tasks:
                self._report_of_the_lost(report)
            return
        work, site = bundle.work, bundle.node.site
        if report.tasks:
            work.estimate.learn(sum(report.took_us) * 1e-6, len(report.tasks))
            if report.causes is None:
                site.score.success(len(report.tasks))
            verdicts = self._judge(report, bundle, now)
            self._schedule.act(ev.Settle(work.id, report, verdicts))
        self._take_back(bundle, report.returned)
        if report.last:
            left = [ident for ident in bundle.left if ident in self._schedule.tasks]
            if left:  # its lane says it is through, and these were never reported
                self._schedule.lanes.lose(bundle, "its lane did not report it", now, blame=False)
            else:
                self._schedule.lanes.close(bundle)

    def _take_back(self, bundle: Bundle, returned: Sequence[int]) -> None:
        """A lane gave back what it had not started."""
        for ident in reversed(returned):
            if ident not in bundle.left:
                continue  # this attempt was ended by us: the task is elsewhere, or waits already
            del bundle.left[ident]
            task = self._schedule.tasks.get(ident)
            if task is not None:
                task.bundles = tuple(one for one in task.bundles if one != bundle.id)
                if not task.bundles:
                    task.work.put(task, first=True)

    def _report_of_the_lost(self, report: ev.Report) -> None:
        """Judge what comes of a bundle that was given up, or of the run's earlier life: what ended well is welcome."""
        causes = report.causes or [Cause.OK] * len(report.tasks)
        verdicts, of_work = [], 0
        for ident, cause in zip(report.tasks, causes, strict=True):
            task = self._schedule.tasks.pop(ident, None) if cause == Cause.OK else None
            if task is None:
                verdicts.append(ev.Verdict.LATE)
                continue
            of_work = task.work.id
            task.work.forget(task)
            self._schedule.lanes.end_twins(task, "")
            self._schedule.done += 1
            verdicts.append(ev.Verdict.DONE)
        self._schedule.act(ev.Settle(of_work, report, verdicts))

    def _judge(self, report: ev.Report, bundle: Bundle, now: float) -> list[int] | None:
        """Return a verdict for each task of a report; None when all are done."""
        tasks, left = self._schedule.tasks, bundle.left
        if report.causes is None:
            for ident in report.tasks:
                left.pop(ident, None)
            found = [tasks.pop(ident, None) for ident in report.tasks]
            held = (bundle.id,)  # and no other: then nothing more is to be done about them
            if all(task is not None and task.bundles == held and not task.where for task in found):
                self._schedule.done += len(found)
                return None
            return [self._judge_done(task, bundle, now) for task in found]
        verdicts = []
        for ident, cause in zip(report.tasks, report.causes, strict=True):
            task = tasks.get(ident)
            expected = ident in left
            left.pop(ident, None)
            if cause == Cause.OK:
                tasks.pop(ident, None)
                bundle.node.site.score.success()
                verdicts.append(self._judge_done(task, bundle, now))
            elif task is None or not expected:  # it has ended, or this attempt was ended by us
                verdicts.append(ev.Verdict.LATE)
            else:
                verdicts.append(self._judge_failed(task, Cause(cause), bundle, report, now))
        return verdicts

    def _judge_done(self, task: Task | None, bundle: Bundle, now: float) -> int:
        if task is None:
            return ev.Verdict.LATE
        task.work.forget(task)
        task.bundles = tuple(one for one in task.bundles if one != bundle.id)
        if task.bundles:
            self._schedule.lanes.end_twins(task, "")
        for node in task.avoid:  # what failed there went well here: that node is to blame
            failed = self._schedule.nodes.get(node)
            if failed is not None:
                self._schedule.fault(failed.site, now)
        self._schedule.done += 1
        return ev.Verdict.DONE

    def _judge_failed(self, task: Task, cause: Cause, bundle: Bundle, report: ev.Report, now: float) -> int:
        task.bundles = tuple(one for one in task.bundles if one != bundle.id)
        node = bundle.node.name
        elsewhere = bool(task.work.fit - {node, *task.avoid})
        if cause in NOT_OF_A_MOUNT and bundle.reads and self._schedule.limits.access is Access.AUTO:
            return self._without_a_mount(task, bundle, now)
        if cause in ELSEWHERE and not report.final:
            self._schedule.fault(bundle.node.site, now)
            task.faults += 1
            again = elsewhere and task.faults <= self._schedule.limits.elsewhere
            delay = 0.0
        else:
            task.fails += 1
            again = task.fails <= task.work.retry.times and cause != Cause.CANCELLED
            delay = self._back_off(task)
        if task.bundles or task.where:
            return ev.Verdict.AGAIN  # another attempt is under way, or will be
        if not again:
            self._schedule.forget(task)
            self._schedule.failed += 1
            return ev.Verdict.FAILED
        if elsewhere:
            task.avoid = (*task.avoid, node)
        task.work.delay(task, now + delay)
        return ev.Verdict.AGAIN

    def _without_a_mount(self, task: Task, bundle: Bundle, now: float) -> int:
        """A task that was told to read from afar ended badly: it comes again with copies, as do all of its work."""
        task.work.copies_only = True
        words = "it ended badly while its inputs were read from afar: it is tried again with copies"
        self._schedule.act(ev.Note(words, bundle.node.name, task.id))
        if not task.bundles and not task.where:
            task.work.delay(task, now)
        return ev.Verdict.AGAIN

    def _back_off(self, task: Task) -> float:
        retry = task.work.retry
        wait = min(retry.most_s, retry.first_s * 2.0 ** max(0, task.fails - 1))
        return wait * (0.5 + 0.5 * self._random.random())
