"""What must hold in every world: a ledger kept from outside, and a look inside the schedule."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.placing import LOOK
from serai.dispatch.schedule.records import Where
from serai.sim.filebook import FileBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Node, Site, Work
    from serai.sim.executor import Executor
    from serai.sim.models import NodeModel, Truth


class Broken(AssertionError):
    """Something that must hold does not."""


def must(holds: bool, what: str, *facts: object) -> None:
    """Raise `Broken` unless something holds."""
    if not holds:
        raise Broken(f"{what} {' '.join(map(str, facts))}".rstrip())


@dataclass(slots=True, eq=False)
class Out:
    """A bundle that was sent: attempts that nobody has ended yet."""

    node: str
    lane: int
    tasks: set[int]
    cores: int
    memory_bytes: int


class Ledger:
    """The book of what was sent and what ended, kept from events and actions alone."""

    def __init__(self, schedule: Schedule, models: Mapping[str, NodeModel], truth: Mapping[int, Truth]) -> None:
        self._schedule = schedule
        self._models = models
        self._truth = truth
        self._out: dict[int, Out] = {}
        self._of_task: dict[int, set[int]] = {}
        self._of_node: dict[str, dict[int, Out]] = {}
        self._up: set[str] = set()
        self.files = FileBook(schedule.limits, models, truth)
        self.final: dict[int, str] = {}
        self.ended_at: dict[int, float] = {}
        self.done_on: Counter[str] = Counter()  # tasks that ended well, by node
        self.now = 0.0
        self.counts: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        """Whether every task has ended."""
        return len(self.final) == len(self._truth)

    # ---- events

    def told(self, event: ev.Event) -> None:
        """Take in what the schedule is about to be told."""
        self.files.told(event)
        if isinstance(event, ev.Report):
            out = self._out.get(event.bundle)
            if out is not None:
                self._off(event.bundle, out, (*event.tasks, *event.returned))
                if event.last:
                    self._drop(event.bundle)
        elif isinstance(event, ev.NodeUp):
            self._up.add(event.node)
            self._of_node.setdefault(event.node, {})
        elif isinstance(event, ev.NodeDown):
            self._up.discard(event.node)
            for number in list(self._of_node[event.node]):
                self._drop(number)
        elif isinstance(event, ev.LaneDown):
            for number, out in list(self._of_node.get(event.node, {}).items()):
                if out.lane == event.lane and (event.bundles is None or number in event.bundles):
                    self._drop(number)

    def _off(self, number: int, out: Out, tasks: Iterable[int]) -> None:
        for task in tasks:
            if task in out.tasks:
                out.tasks.remove(task)
                self._of_task[task].discard(number)

    def _drop(self, number: int) -> None:
        out = self._out.pop(number)
        self._off(number, out, tuple(out.tasks))
        del self._of_node[out.node][number]

    # ---- actions

    def decided(self, actions: Sequence[ev.Action], now: float) -> None:
        """Take in all that the schedule decided at once."""
        self.now = now
        ended: list[int] = []
        for action in actions:
            self.counts[type(action).__name__] += 1
            wrong = self.files.decided(action)
            must(not wrong, wrong, action)
            if isinstance(action, ev.Assign):
                self._assigned(action)
            elif isinstance(action, ev.Kill):
                self._killed(action)
            elif isinstance(action, ev.Settle):
                self._settled(action, ended)
            elif isinstance(action, ev.GiveUp):
                self._end(action.task, "failed", ended)
            elif isinstance(action, ev.Stopped):
                for task in action.tasks:
                    self._end(task, "cancelled", ended)
        for task in ended:
            must(not self._of_task.get(task), "a task has ended and runs on without a Kill:", task)

    def _killed(self, kill: ev.Kill) -> None:
        for number, out in self._of_node.get(kill.node, {}).items():
            if out.lane == kill.lane:
                self._off(number, out, kill.tasks)

    def _settled(self, settle: ev.Settle, ended: list[int]) -> None:
        tasks = settle.report.tasks
        verdicts = settle.verdicts or [ev.Verdict.DONE] * len(tasks)
        must(len(verdicts) == len(tasks), "a verdict for each task:", settle)
        self.done_on[settle.report.node] += verdicts.count(ev.Verdict.DONE)
        for task, verdict in zip(tasks, verdicts, strict=True):
            if verdict in {ev.Verdict.DONE, ev.Verdict.FAILED}:
                self._end(task, "done" if verdict == ev.Verdict.DONE else "failed", ended)

    def _end(self, task: int, how: str, ended: list[int]) -> None:
        must(task not in self.final, "a task ends twice:", task, self.final.get(task), how)
        self.final[task] = how
        self.ended_at[task] = self.now
        self.counts[how] += 1
        ended.append(task)

    def _assigned(self, action: ev.Assign) -> None:
        limits, node = self._schedule.limits, action.node
        must(node in self._up, "sent to an unknown node:", action)
        must(0 < len(action.tasks) <= limits.bundle_tasks, "size of a bundle:", action)
        must(len(set(action.tasks)) == len(action.tasks), "a task twice in a bundle:", action)
        model, needs = self._models[node], self._truth[action.tasks[0]].needs
        must(needs.cores <= model.slots, "too many cores:", action)
        must(not model.memory_bytes or needs.memory_bytes <= model.memory_bytes, "too much memory:", action)
        must(model.software.issuperset(needs.software), "no such software:", action)
        here = self._of_node[node]
        must(sum(out.lane == action.lane for out in here.values()) < limits.depth, "depth of a lane:", action)
        for task in action.tasks:
            must(task not in self.final, "an ended task is sent:", task)
            others = self._of_task.setdefault(task, set())
            must(len(others) < limits.copies, "copies of a task:", task, others)
            must(all(self._out[number].node != node for number in others), "twice on a node:", task, node)
            others.add(action.bundle)
        out = Out(node, action.lane, set(action.tasks), needs.cores, needs.memory_bytes)
        self._out[action.bundle] = here[action.bundle] = out
        by_lane: dict[int, int] = {}
        for one in here.values():
            by_lane[one.lane] = max(by_lane.get(one.lane, 0), one.cores)
        must(sum(by_lane.values()) <= model.slots, "cores of a node are over-committed:", action)
        memory = sum(one.memory_bytes for one in here.values())
        must(not model.memory_bytes or memory <= model.memory_bytes, "memory of a node is over-committed:", action)

    def started(self, executor: Executor, task: int) -> None:
        """An attempt is started: what really runs must fit, too."""
        running = [self._truth[lane.task].needs for lane in executor.lanes if lane.task]
        must(sum(needs.cores for needs in running) <= executor.model.slots, "more runs than fits:", task)
        memory, most = sum(needs.memory_bytes for needs in running), executor.model.memory_bytes
        must(not most or memory <= most, "more memory is in use than there is:", task)

    def check_end(self) -> None:
        """Check that all is over."""
        must(self.over, "tasks are lost:", sorted(self._truth.keys() - self.final.keys())[:10])
        schedule = self._schedule
        counted = (schedule.done, schedule.failed, schedule.cancelled)
        mine = tuple(self.counts[how] for how in ("done", "failed", "cancelled"))
        must(counted == mine, "the counts differ:", counted, mine)


# ---- inside the schedule


def sanity(schedule: Schedule, now: float) -> None:
    """Check everything that the schedule remembers against everything else."""
    _check_queues(schedule)
    for site in schedule.sites.values():
        _check_site(schedule, site)
    for node in schedule.nodes.values():
        _check_node(schedule, node)
    for number, bundle in schedule.bundles.items():
        must(schedule.nodes.get(bundle.node.name) is bundle.node, "a bundle on a node that is gone:", number)
        must(bundle in bundle.node.lanes[bundle.lane], "a bundle on no lane:", number)
    for work in schedule.works.values():
        waiting = sum(task.work is work and task.where in Where.WAITING for task in schedule.tasks.values())
        must(work.waiting == waiting, "the number that waits:", work.id, work.waiting, waiting)
        must(work.fit <= schedule.nodes.keys(), "a fit node is gone:", work.id)
        _check_progress(schedule, work, now)
        _check_files(schedule, work, now)


def _check_queues(schedule: Schedule) -> None:
    live = schedule.tasks
    places: Counter[int] = Counter()
    copies: set[int] = set()
    for work in schedule.works.values():
        files = work.files or ()
        for queue in (work.queue, work.picky, [ident for _, ident in work.delayed], files):
            for ident in queue:
                if ident in live:
                    places[ident] += 1
        copies.update(ident for ident in work.picky if ident in live and live[ident].bundles)
    for ident, task in live.items():
        held = bool(task.bundles)
        must(places[ident] <= 1, "a task is queued twice:", ident)
        must(places[ident] + held == 1 or ident in copies, "a task is lost, or queued and out:", ident, task.bundles)
        for number in task.bundles:
            must(ident in schedule.bundles[number].left, "a task is not in its bundle:", ident, number)
    for number, bundle in schedule.bundles.items():
        for ident in bundle.left:
            must(ident not in live or number in live[ident].bundles, "a bundle holds another's task:", number, ident)


def _check_site(schedule: Schedule, site: Site) -> None:
    nodes = [node for node in schedule.nodes.values() if node.site is site]
    must(site.nodes == len(nodes), "nodes of a site:", site.name)
    used = sum(bool(held) or lane in node.lent for node in nodes for lane, held in enumerate(node.lanes))
    must(site.active == used, "active lanes of a site:", site.name, site.active, used)
    for name, _ in (*site.idle, *site.thin):
        node = schedule.nodes.get(name)
        must(node is not None and node.site is site, "a lane of a node that is gone is listed:", name)


def _check_node(schedule: Schedule, node: Node) -> None:
    depth = schedule.limits.depth
    memory = sum(bundle.work.needs.memory_bytes for held in node.lanes for bundle in held)
    must(node.memory_used == memory, "memory of a node:", node.name, node.memory_used, memory)
    for work in schedule.works.values():
        must((node.name in work.holds) == (node.held_for is work), "a node that is held:", node.name, work.id)
    for lane, held in enumerate(node.lanes):
        key, lent = (node.name, lane), lane in node.lent
        must(len(held) <= depth, "depth of a lane:", key)
        must(not (lent and held), "a lane is lent and used:", key)
        must((key in node.site.idle) == (not held and not lent), "the list of idle lanes:", key)
        must(key not in node.site.thin or 0 < len(held) < depth, "the list of thin lanes:", key)


def _check_progress(schedule: Schedule, work: Work, now: float) -> None:
    """With tasks that wait and an idle lane that fits, something should have been sent."""
    if work.needs.cores > 1 or work.needs.memory_bytes:
        return  # those wait for room, and the ends of worlds show that they get it
    waiting = [ident for ident in (*work.queue, *list(work.picky)[:LOOK]) if ident in schedule.tasks]
    for ident in waiting[:LOOK]:
        task = schedule.tasks[ident]
        for name in work.fit.difference(task.avoid):
            node = schedule.nodes[name]
            site = node.site
            if not site.score.is_open(now) or site.active >= site.score.allowed() or node.held_for is not None:
                continue
            if node.suspect is not None and schedule.lanes.is_suspect(task):
                continue
            if any(schedule.bundles[number].node is node for number in task.bundles):
                continue
            if task.inputs and schedule.nearness[work.id].fetch_s(name, task.inputs) == float("inf"):
                continue  # every source serves as many as it may
            idle = [lane for lane in range(node.slots) if (name, lane) in site.idle]
            must(not idle, "a task waits and a lane that fits is idle:", ident, name, idle)


def _check_files(schedule: Schedule, work: Work, now: float) -> None:
    """Tasks that read files may wait for whoever has those; but not while nothing happens at all."""
    files = work.files
    if files is None:
        return
    listed = [schedule.tasks[ident] for ident in files if ident in schedule.tasks]
    must(files.waiting == len(listed), "the number that waits for files:", work.id, files.waiting, len(listed))
    for task in listed:
        must(task.where == Where.FILES, "a task waits for files elsewhere:", task.id, task.where)
    if work.needs.cores > 1 or work.needs.memory_bytes or schedule.bundles or not listed:
        return
    fit = [schedule.nodes[name] for name in work.fit]
    if all(node.site.score.is_open(now) and node.held_for is None for node in fit):
        must(not fit, "tasks wait for files, and nothing runs anywhere:", [task.id for task in listed[:10]])


def empty(schedule: Schedule) -> None:
    """Check that nothing is left when all is over."""
    must(not schedule.tasks, "tasks are left:", list(schedule.tasks)[:10])
    must(not schedule.bundles, "bundles are left:", list(schedule.bundles)[:10])
    for site in schedule.sites.values():
        must(site.active == 0, "lanes are left in use:", site.name, site.active)
    for node in schedule.nodes.values():
        must(schedule.holdings.is_quiet(node.name), "a file is still on its way:", node.name)
        must(not node.memory_used and not node.lent and not any(node.lanes), "a node is left in use:", node.name)
