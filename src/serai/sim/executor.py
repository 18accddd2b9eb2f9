"""A simulated executor: lanes that run bundles in order and report as the real ones do."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.describe.task import Cause
from serai.dispatch.schedule import events as ev
from serai.match.movement import Way

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
    work: int = 0
    files: tuple[int, ...] = ()  # kept in the cache for it
    missing: set[int] = field(default_factory=set)  # of them: not yet there
    read: tuple[int, ...] = ()  # from afar
    sources: dict[int, str] = field(default_factory=dict)  # where they are read, by file


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
        self._waiting: list[tuple[int, Held]] = []  # bundles whose files are not all there, with their lanes
        self._coming: set[int] = set()  # files
        self._world = world
        self._in_at = 0.0
        self._out_at = 0.0
        self.rtt_s = model.rtt_s
        self.bandwidth_bps = model.bandwidth_bps

    # ---- the link: in order both ways

    def _travel_s(self, tasks: int) -> float:
        return self.rtt_s / 2 + (200 + 100 * tasks) / self.bandwidth_bps

    def send(self, action: ev.Assign | ev.Recall | ev.Kill | ev.Probe | ev.Copy) -> None:
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
            self._bundle(action)
        elif isinstance(action, ev.Copy):
            self._fetch(action.file, action.source)
        elif isinstance(action, ev.Recall):
            self._recall(self.lanes[action.lane], action.bundle)
        elif isinstance(action, ev.Kill):
            self._kill(self.lanes[action.lane], action.tasks)
        elif isinstance(action, ev.Probe) and not self._world.chance(self._world.faults.probe_loss):
            has = {name: name in self.model.software for name in action.software}
            self.tell(ev.Probed(self.model.name, has))

    def _bundle(self, action: ev.Assign) -> None:
        """A bundle is here; one whose files are not does not hold up its lane."""
        staged = tuple(move.file for move in action.moves if move.way != Way.READ)
        there = self._world.cache(self.model.name)
        held = Held(action.bundle, list(action.tasks), work=action.work, files=staged)
        held.read = tuple(move.file for move in action.moves if move.way == Way.READ)
        held.sources = {move.file: move.source for move in action.moves if move.way == Way.READ}
        held.missing = {file for file in staged if file not in there.files}
        there.pin(staged)
        if not held.missing:
            self._enter(self.lanes[action.lane], held)
            return
        self._waiting.append((action.lane, held))
        for move in action.moves:
            if move.file in held.missing:
                self._fetch(move.file, move.source)

    def _enter(self, lane: Lane, held: Held) -> None:
        lane.queue.append(held)
        if len(lane.queue) == 1:
            lane.flushed = self._world.now
            self._next(lane)

    # ---- files

    def _fetch(self, file: int, source: str) -> None:
        """Bring a file here, once, whoever asks for it."""
        if file in self._coming or file in self._world.cache(self.model.name).files:
            return
        self._coming.add(file)
        self._try(file, source, self._world.now)

    def _try(self, file: int, source: str, began: float) -> None:
        world = self._world
        if " " in source:
            self._try_origin(file, source, began)
            return
        peer = world.up.get(source)
        rate = self.bandwidth_bps if peer is None else min(self.bandwidth_bps, peer.bandwidth_bps)
        takes = self.rtt_s + world.sizes[file] / rate
        if source and (peer is None or not peer.alive or file not in world.cache(source).files):
            world.at(world.now + self.rtt_s, lambda: self._awake(lambda: self._try(file, "", began)))
            return
        world.at(world.now + takes, lambda: self._awake(lambda: self._came(file, source, peer, began)))

    def _try_origin(self, file: int, origin: str, began: float) -> None:
        """Read a file at its origin; the front end has it where that is not reached."""
        world, rate = self._world, self.model.origins.get(origin, 0.0)
        if not rate:
            self.tell(ev.Unreached(self.model.name, origin))
            world.at(world.now + self.rtt_s, lambda: self._awake(lambda: self._try(file, "", began)))
            return
        takes = self.rtt_s + world.sizes[file] / rate
        world.at(world.now + takes, lambda: self._awake(lambda: self._came(file, origin, None, began)))

    def _came(self, file: int, source: str, peer: Executor | None, began: float) -> None:
        world, name = self._world, self.model.name
        if peer is not None and (not peer.alive or peer.frozen):  # it died in the middle
            self._try(file, "", began)
            return
        self._coming.discard(file)
        gone = world.cache(name).put(file, world.sizes[file])
        self.tell(ev.Moved(name, file, source, world.sizes[file], world.now - began))
        if gone:
            self.tell(ev.Evicted(name, gone))
        waiting, self._waiting = self._waiting, []
        for lane, held in waiting:
            held.missing.discard(file)
            if held.missing:
                self._waiting.append((lane, held))
            else:
                self._enter(self.lanes[lane], held)

    def _recall(self, lane: Lane, bundle: int) -> None:
        waiting = (one for _, one in self._waiting)
        held = next((one for one in (*lane.queue, *waiting) if one.ident == bundle), None)
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
            self._world.cache(self.model.name).free(held.files)
            lane.gone.difference_update(held.tasks)
            lane.queue.popleft()

    def _start(self, lane: Lane, task: int) -> None:
        truth = self._world.truth[task]
        lane.task, lane.started = task, self._world.now
        lane.attempt += 1
        attempt = lane.attempt
        self._world.started(self, task)
        takes = truth.takes_s / self.model.speed
        for file in lane.queue[0].read:
            takes += truth.fraction * self._world.sizes[file] / self._far_bps(lane.queue[0], file)
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

    def _far_bps(self, held: Held, file: int) -> float:
        return self.model.origins.get(held.sources[file], self.bandwidth_bps)

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
        for file in held.read:
            size = self._world.sizes[file]
            seen = int(size * self._world.truth[held.tasks[held.next - 1]].fraction)
            source = held.sources[file] if held.sources[file] in self.model.origins else ""
            took_s = seen / self._far_bps(held, file)
            if " " in held.sources[file] and not source:
                self.tell(ev.Unreached(self.model.name, held.sources[file]))
            self.tell(ev.Moved(self.model.name, file, source, seen, took_s, seen, held.work))
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
        for one in lane.queue:
            self._world.cache(self.model.name).free(one.files)
        lane.queue.clear()
        self.lanes[number] = fresh
        self.tell(ev.LaneDown(self.model.name, number, "the lane ended", blame, held))
