"""The schedule: a state machine without I/O. Events in, actions out; `now` and randomness are parameters.

A late decision is a good decision: tasks stay here until a lane has room, so that whatever becomes free first takes
what is next. What was sent and not started can be called back when others have nothing to do.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.files.diffusion import Queue
from serai.dispatch.schedule.files.holdings import Holdings
from serai.dispatch.schedule.files.leaving import Leaving
from serai.dispatch.schedule.files.nearness import Nearness
from serai.dispatch.schedule.fitting import Fitting
from serai.dispatch.schedule.judging import Judging
from serai.dispatch.schedule.lanes import Lanes
from serai.dispatch.schedule.placing import Placing
from serai.dispatch.schedule.records import Bundle, Node, Site, Task, Where, Work
from serai.match.matching import Matching
from serai.match.movement import Policy

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from serai.match.movement import Candidate


class Schedule:
    """Which task goes where, and what becomes of it.

    Args:
        limits: its limits and times.
        random: where jitter comes from.
        first_bundle: the number of the first bundle; higher than any that the run had in an earlier life.
        matching: answers for expressions of tasks and nodes.
    """

    def __init__(
        self, limits: ev.Limits, random: random.Random, first_bundle: int = 1, matching: Matching | None = None
    ) -> None:
        self.limits = limits
        self._works: dict[int, Work] = {}
        self._tasks: dict[int, Task] = {}
        self._nodes: dict[str, Node] = {}
        self._sites: dict[str, Site] = {}
        self._actions: list[ev.Action] = []
        self._ticked_at = float("-inf")
        self.done = 0
        self.failed = 0
        self.cancelled = 0
        self.holdings = Holdings(limits.transfers, peers=limits.policy is not Policy.FIRST_AVAILABLE)
        self.nearness: dict[int, Nearness] = {}  # of works whose tasks read files
        self.busy: dict[int, Work] = {}  # works with tasks that wait, or will again; some others, too
        self._closed: dict[str, Site] = {}  # sites that may be closed after a fault
        self._leaving = Leaving(self)
        self.fitting = Fitting(self, matching or Matching())
        self._placing = Placing(self)
        self.lanes = Lanes(self, first_bundle, self._placing.has_idle, self._placing.has_thin)
        self._judging = Judging(self, random)
        self._handlers: dict[type, Callable[..., None]] = {
            ev.WorkAdded: self._work_added,
            ev.TasksAdded: self._tasks_added,
            ev.Hurried: self._hurried,
            ev.NodeUp: self._node_up,
            ev.NodeDown: self._node_down,
            ev.LaneDown: self.lanes.down,
            ev.Heard: self._heard,
            ev.Probed: self.fitting.probed,
            ev.Advertised: self.fitting.advertised,
            ev.Report: self._judging.report,
            ev.Cancelled: self._cancel,
            ev.Tick: self._tick,
            ev.FilesAdded: lambda event, _now: self.holdings.add(event.files, event.sizes, event.origins),
            ev.Cached: self._cached,
            ev.Evicted: self._evicted,
            ev.Moved: self._moved,
            ev.Unreached: lambda event, now: self.holdings.cut(event.origin, event.node, now),
            ev.NoMount: self._no_mount,
            ev.Leaving: self._leaving.begin,
        }

    # ---- the two calls

    def tell(self, event: ev.Event, now: float) -> None:
        """Take in an event."""
        self._handlers[type(event)](event, now)

    def decide(self, now: float) -> list[ev.Action]:
        """Place what can be placed, and return all actions since the last call, in order."""
        self.holdings.mend(now)
        self._leaving.hand_over(now)
        self._placing.place(now)
        actions, self._actions = self._actions, []
        return actions

    def act(self, action: ev.Action) -> None:
        """Add an action; for the parts of the schedule only."""
        self._actions.append(action)

    # ---- looking

    @property
    def works(self) -> dict[int, Work]:
        """By number."""
        return self._works

    @property
    def tasks(self) -> dict[int, Task]:
        """Those that have not ended, by number."""
        return self._tasks

    @property
    def nodes(self) -> dict[str, Node]:
        """Those that are up, by name."""
        return self._nodes

    @property
    def sites(self) -> dict[str, Site]:
        """By name."""
        return self._sites

    @property
    def bundles(self) -> dict[int, Bundle]:
        """On their way or on a lane, by number."""
        return self.lanes.bundles

    def statistics(self) -> ev.Statistics:
        """A look at the whole."""
        assigned = sum(len(bundle.left) for bundle in self.lanes.bundles.values())
        return ev.Statistics(
            queued=sum(work.waiting for work in self._works.values()),
            delayed=sum(len(work.delayed) for work in self._works.values()),
            assigned=assigned,
            nodes=len(self._nodes),
            slots=sum(node.slots for node in self._nodes.values()),
            busy=sum(site.active for site in self._sites.values()),
            done=self.done,
            failed=self.failed,
            cancelled=self.cancelled,
            sites={site.name: (site.score.value, site.score.closed_until) for site in self._sites.values()},
        )

    def explain_moves(self, task: int) -> list[Candidate]:
        """What a task that has not ended would cost on each node that fits it, the cheapest first. Changes nothing."""
        known = self._tasks.get(task)
        if known is None:
            return []
        return self._nearness(known.work).explain(known)

    def may_leave(self, node: str) -> bool:
        """Whether a node that was told to go away has nothing to do any more, and nothing that only it has."""
        return self._leaving.is_free(node)

    def to_hand_over(self, node: str) -> int | None:
        """How many files a node that was told to go away has still to hand over; None where it was not told."""
        there = self._nodes.get(node)
        return self._leaving.left(node) if there is not None and there.leaving else None

    def wake_at(self, now: float) -> float:
        """When a `Tick` is wanted if nothing else happens."""
        marks = [work.delayed[0][0] for work in self.busy.values() if work.delayed]
        if any(work.waiting for work in self.busy.values()):
            marks += [site.score.closed_until for site in self._closed.values() if not site.score.is_open(now)]
            marks.append(self._placing.look_at)
        if self.lanes.bundles:
            marks.append(self._placing.recalling.wake_at(now))
        return max(now, min(*marks, self._leaving.wake_at(), self.fitting.wake_at(), now + 60.0))

    # ---- files

    def _cached(self, event: ev.Cached, now: float) -> None:
        if event.node in self._nodes:
            self.holdings.cached(event.node, event.files)
            self._leaving.came(event.node, event.files)

    def _evicted(self, event: ev.Evicted, now: float) -> None:
        if event.node in self._nodes:
            self.holdings.evicted(event.node, event.files)

    def _moved(self, event: ev.Moved, now: float) -> None:
        """A transfer has ended: its pair is known better now, and how much of its files a work reads."""
        if event.node not in self._nodes:
            return
        self.holdings.links.learn(event.source, event.node, event.moved_bytes, event.took_s)
        if event.read_bytes is None:
            self.holdings.cached(event.node, (event.file,))
            self._leaving.came(event.node, (event.file,))
            return
        work, size = self._works.get(event.work), self.holdings.size(event.file)
        if work is not None and size:
            seen = min(1.0, event.read_bytes / size)
            work.fraction = seen if work.fraction is None else work.fraction + 0.3 * (seen - work.fraction)

    def _no_mount(self, event: ev.NoMount, now: float) -> None:
        node = self._nodes.get(event.node)
        if node is not None:
            node.ad["mount"] = False

    # ---- works and tasks

    def _work_added(self, event: ev.WorkAdded, now: float) -> None:
        work = Work(event.work, event.needs, event.retry, busy=self.busy)
        self._works[event.work] = work
        for node in self._nodes.values():
            self.fitting.check(work, node, now)

    def _tasks_added(self, event: ev.TasksAdded, now: float) -> None:
        work = self._works[event.work]
        tasks = self._tasks
        self.busy[work.id] = work
        for ident in event.tasks:
            tasks[ident] = Task(ident, work)
        if event.inputs is not None:
            self._nearness(work)
            for ident, files in zip(event.tasks, event.inputs, strict=True):
                tasks[ident].inputs = files
        if event.delay_s:
            for ident in event.tasks:
                work.delay(tasks[ident], now + event.delay_s)
        elif event.inputs is not None:
            for ident in event.tasks:
                work.put(tasks[ident])
        else:
            for ident in event.tasks:
                tasks[ident].where = Where.QUEUE
            work.queue.extend(event.tasks)
            work.waiting += len(event.tasks)

    def _nearness(self, work: Work) -> Nearness:
        """Prices for the tasks of a work, which may read files from now on."""
        found = self.nearness.get(work.id)
        if found is None:
            limits = self.limits
            found = self.nearness[work.id] = Nearness(self, work)
            work.files = Queue(limits.policy, most_replicas=limits.replicas, holdings=self.holdings, around=found)
            for node in self._nodes.values():
                work.settle(node)
            self._placing.mind_files()
        return found

    def _hurried(self, event: ev.Hurried, now: float) -> None:
        for ident in event.tasks:
            task = self._tasks.get(ident)
            if task is not None and task.where == Where.DELAYED:
                task.where = Where.NONE
                task.work.put(task)

    def _cancel(self, event: ev.Cancelled, now: float) -> None:
        kills: dict[int, list[int]] = {}
        stopped: dict[int, list[int]] = {}
        for ident in event.tasks:
            task = self._tasks.pop(ident, None)
            if task is None:
                continue
            stopped.setdefault(task.work.id, []).append(ident)
            self.cancelled += 1
            for number in task.bundles:
                kills.setdefault(number, []).append(ident)
            task.work.forget(task)
        for number, tasks in kills.items():
            bundle = self.lanes.bundles[number]
            self.act(ev.Kill(bundle.node.name, bundle.lane, number, tasks))
        for work, tasks in stopped.items():
            self.act(ev.Stopped(work, tasks))

    # ---- nodes

    def _node_up(self, event: ev.NodeUp, now: float) -> None:
        if event.node in self._nodes:
            self._node_down(ev.NodeDown(event.node, "it checked in again"), now)
        site = self._sites.setdefault(event.site, Site(event.site))
        site.nodes += 1
        node = Node(event.node, site, event.slots, event.memory_bytes, dict(event.ad), event.rtt_s)
        node.ad["software"] = dict(event.ad.get("software", {}))
        self._nodes[event.node] = node
        self.lanes.came(node)
        self.fitting.came(node, now)

    def _heard(self, event: ev.Heard, now: float) -> None:
        node = self._nodes.get(event.node)
        if node is None:
            return
        node.running = event.running
        if event.rtt_s is not None:
            node.rtt_s += 0.3 * (event.rtt_s - node.rtt_s)
        for ident, _ in event.running.values():
            task = self._tasks.get(ident)
            if task is None or not task.bundles or (len(task.bundles) == 1 and not task.where):
                continue
            if all(self.lanes.bundles[number].node is not node for number in task.bundles):
                continue  # an attempt that was ended by us already
            self.lanes.end_twins(task, node.name)
            if task.where:  # a copy of it waits
                task.work.picky.remove(ident)
                task.work.forget(task)

    def _node_down(self, event: ev.NodeDown, now: float) -> None:
        node = self._nodes.pop(event.node, None)
        if node is None:
            return
        self.holdings.gone(node.name)
        self._leaving.gone(node.name)
        self.fitting.gone(node.name)
        site = node.site
        site.nodes -= 1
        if not node.leaving or any(node.lanes):
            self.fault(site, now)
        self.lanes.gone(node, event.why, now)
        for work in self._works.values():
            work.fit.discard(node.name)
            work.unfit.pop(node.name, None)
            work.ranks.pop(node.name, None)
            work.holds.discard(node.name)
            work.settle(node)
            self.send_picky_home(work)

    def send_picky_home(self, work: Work) -> None:
        """Tasks that avoid every node that is left may go anywhere again."""
        waiting = list(work.picky)
        work.picky.clear()
        for ident in waiting:
            task = self._tasks.get(ident)
            if task is not None and task.where == Where.PICKY:
                work.forget(task)
                work.put(task)

    def forget(self, task: Task) -> None:
        """A task has ended."""
        self._tasks.pop(task.id, None)
        task.work.forget(task)

    def fault(self, site: Site, now: float) -> None:
        """A site has failed a task that was not to blame, or has lost an executor."""
        site.score.fault(now)
        self._closed[site.name] = site

    # ---- time

    def _tick(self, event: ev.Tick, now: float) -> None:
        for work in self.busy.values():
            while work.delayed and work.delayed[0][0] <= now:
                _, ident = heapq.heappop(work.delayed)
                task = self._tasks.get(ident)
                if task is not None and task.where == Where.DELAYED:  # else it was hurried since
                    task.where = Where.NONE
                    work.put(task)
        self.fitting.tick(now)
        if now - self._ticked_at >= 1.0:
            self._ticked_at = now
            self._closed = {name: site for name, site in self._closed.items() if not site.score.is_open(now)}
            self._placing.replicate(now)
