"""A simulated executor: lanes that run bundles in order and report as the real ones do."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.describe.task import Cause
from serai.dispatch.schedule import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.sim.models import NodeModel, Truth
    from serai.sim.world import World

FLUSH_S = 0.1
BEAT_S = 2.0


@dataclass(slots=True, eq=False)
class Held:
    """A bundle on a lane."""

    ident: int
    tasks: list[int]
    next: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """One process that runs tasks one after the other."""

    number: int
    queue: deque[Held] = field(default_factory=deque)  # the first is the one that runs
    task: int = 0
    started: float = 0.0
    attempt: int = 0  # counts starts and ends, so that what was planned for an earlier one is passed over
    gone: set[int] = field(default_factory=set)  # ended before they were started
    ended: list[tuple[int, int, int]] = field(default_factory=list)  # (task, cause, microseconds), not yet reported
    flushed: float = 0.0


class Executor:
    """An executor of one check-in; a node that comes back gets another one.

    Args:
        world: it lives in.
        model: of its node.
    """

    def __init__(self, world: World, model: NodeModel) -> None:
        self.model = model
        self.lanes = [Lane(number) for number in range(model.slots)]
        self.alive = True
        self.heard_of = True  # False once the front end has given it up
        self.frozen = False
        self.kept: list[Callable[[], None]] = []  # what happens when it thaws
        self._world = world
        self._in_at = 0.0
        self._out_at = 0.0
        self.rtt_s = model.rtt_s
        self.bandwidth_bps = model.bandwidth_bps

    # ---- the link: in order both ways

    def _travel_s(self, tasks: int) -> float:
        return self.rtt_s / 2 + (200 + 100 * tasks) / self.bandwidth_bps

    def send(self, action: ev.Assign | ev.Recall | ev.Kill | ev.Probe) -> None:
        """Carry an action to the node."""
        size = len(action.tasks) if isinstance(action, ev.Assign | ev.Kill) else 0
        self._in_at = max(self._in_at, self._world.now + self._travel_s(size))
        self._world.at(self._in_at, lambda: self._awake(lambda: self._take(action)))

    def tell(self, event: ev.Event, tasks: int = 0) -> None:
        """Carry news to the front end; lost when the node is given up meanwhile."""
        self._out_at = max(self._out_at, self._world.now + self._travel_s(tasks))
        self._world.at(self._out_at, lambda: self._world.tell(event) if self.heard_of else None)

    def _awake(self, what: Callable[[], None]) -> None:
        """Do something now, or when the node is no longer frozen, or never if it has died."""
        if self.frozen:
            self.kept.append(what)
        elif self.alive:
            what()

    def freeze(self) -> None:
        """Stop all its processes."""
        self.frozen = True

    def thaw(self) -> None:
        """Let them go on: what should have happened happens now."""
        self.frozen = False
        kept, self.kept = self.kept, []
        for what in kept:
            self._awake(what)

    def beat(self) -> None:
        """Send heartbeats for as long as it lives."""
        if self.alive:
            self._world.at(self._world.now + BEAT_S, lambda: self._awake(self.beat))
            now = self._world.now
            running = {lane.number: (lane.task, now - lane.started) for lane in self.lanes if lane.task}
            self.tell(ev.Heard(self.model.name, running, self.rtt_s))

    # ---- what arrives

    def _take(self, action: ev.Action) -> None:
        if isinstance(action, ev.Assign):
            lane = self.lanes[action.lane]
            lane.queue.append(Held(action.bundle, list(action.tasks)))
            if len(lane.queue) == 1:
                lane.flushed = self._world.now
                self._next(lane)
        elif isinstance(action, ev.Recall):
            self._recall(self.lanes[action.lane], action.bundle)
        elif isinstance(action, ev.Kill):
            self._kill(self.lanes[action.lane], action.tasks)
        elif isinstance(action, ev.Probe) and not self._world.chance(self._world.faults.probe_loss):
            has = {name: name in self.model.software for name in action.software}
            self.tell(ev.Probed(self.model.name, has))

    def _recall(self, lane: Lane, bundle: int) -> None:
        held = next((one for one in lane.queue if one.ident == bundle), None)
        if held is None:
            return
        returned = held.tasks[held.next :]
        del held.tasks[held.next :]
        self.tell(ev.Report(self.model.name, lane.number, bundle, [], None, [], returned), len(returned))

    def _kill(self, lane: Lane, tasks: list[int]) -> None:
        wanted = set(tasks)
        if lane.task in wanted:
            wanted.discard(lane.task)
            lane.gone |= wanted
            if self._world.truth[lane.task].function:
                self._end_function(lane)
            else:
                self._ended(lane, lane.attempt, Cause.CANCELLED)
        else:
            lane.gone |= wanted

    def _end_function(self, lane: Lane) -> None:
        """A function cannot be ended from outside: the lane tells how everything stands and ends itself."""
        self._note(lane, Cause.CANCELLED)
        for held in lane.queue:
            returned = [task for task in held.tasks[held.next :] if task not in lane.gone]
            self._report(lane, held, last=True, returned=returned)
        self.lose_lane(lane.number, blame=False)

    # ---- running

    def _next(self, lane: Lane) -> None:
        """Start the next task of a lane; bundles that are through are reported."""
        while lane.queue:
            held = lane.queue[0]
            while held.next < len(held.tasks):
                task = held.tasks[held.next]
                held.next += 1
                if task not in lane.gone:
                    self._start(lane, task)
                    return
                lane.ended.append((task, Cause.CANCELLED, 0))
            self._report(lane, held, last=True)
            lane.gone.difference_update(held.tasks)
            lane.queue.popleft()

    def _start(self, lane: Lane, task: int) -> None:
        truth = self._world.truth[task]
        lane.task, lane.started = task, self._world.now
        lane.attempt += 1
        attempt = lane.attempt
        self._world.started(self, task)
        takes = truth.takes_s / self.model.speed
        cause = Cause.OK
        if self._world.chance(self.model.breaks):
            cause, takes = Cause.EXECUTOR, min(takes, 0.01)
        elif truth.poison:
            takes *= 0.5
            self._world.at(self._world.now + takes, lambda: self._awake(lambda: self._poisoned(lane, attempt, truth)))
            return
        elif truth.fails:
            truth.fails -= 1
            cause = Cause.EXIT
        self._world.at(self._world.now + takes, lambda: self._awake(lambda: self._ended(lane, attempt, cause)))

    def _poisoned(self, lane: Lane, attempt: int, truth: Truth) -> None:
        if lane.attempt == attempt and lane.task:
            if truth.poison == "node":
                self._world.node_dies(self.model.name)
            else:
                self.lose_lane(lane.number, blame=True)

    def _note(self, lane: Lane, cause: Cause) -> None:
        lane.ended.append((lane.task, cause, int((self._world.now - lane.started) * 1e6)))
        lane.task = 0
        lane.attempt += 1

    def _ended(self, lane: Lane, attempt: int, cause: Cause) -> None:
        if lane.attempt != attempt or not lane.task:
            return
        self._note(lane, cause)
        held = lane.queue[0]
        if held.next < len(held.tasks) and self._world.now - lane.flushed > FLUSH_S:
            self._report(lane, held, last=False)
        self._next(lane)

    def _report(self, lane: Lane, held: Held, *, last: bool, returned: list[int] | None = None) -> None:
        ended, lane.ended = lane.ended, []
        causes = [one[1] for one in ended]
        report = ev.Report(
            self.model.name,
            lane.number,
            held.ident,
            [one[0] for one in ended],
            causes if any(causes) else None,
            [one[2] for one in ended],
            returned or (),
            last=last,
        )
        lane.flushed = self._world.now
        self.tell(report, len(ended))

    def lose_lane(self, number: int, *, blame: bool) -> None:
        """A lane's process ends; another one is started with the next bundle."""
        lane = self.lanes[number]
        fresh = Lane(number)
        fresh.attempt = lane.attempt + 1
        lane.task, lane.attempt = 0, -1
        held = tuple(one.ident for one in lane.queue)
        lane.queue.clear()
        self.lanes[number] = fresh
        self.tell(ev.LaneDown(self.model.name, number, "the lane ended", blame, held))
