"""The master's decisions: events in, actions out; neither clock nor I/O.

A task is in exactly one state: in a queue, running (one attempt, or two when the first is slow), or done. Reduces start
when every map is done. What a worker made dies with it: its maps go back into the queue while a reduce needs them, and
reduces that were given before may end or say what is missing. Of two attempts the first to end counts (Dean and
Ghemawat, *MapReduce*, OSDI 2004, sections 3.3 and 3.6, whose rules these are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.apps.mapreduce.events import (
    MAP,
    REDUCE,
    Accept,
    Action,
    Asked,
    Bar,
    Cancel,
    Discard,
    Done,
    Event,
    Expecting,
    Fail,
    Failed,
    Finish,
    Give,
    Gone,
    Joined,
    Order,
    Reopen,
    Skip,
    Tick,
    Waited,
)
from serai.apps.mapreduce.tasks import Attempt, Durations, Queue, Rules, Task, Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from serai.apps.mapreduce.plan import Split

MOST_EXCUSED = 12  # failures of one task that were no fault of its own
LEAST_DELAY_S = 0.2  # between two ticks of the clock
MOST_SUSPECTS = 10  # tasks that are named when no worker is left
MOST_LOST = 12  # times that one map's output could not be got
SKIPPING = "run the mapper on it alone; --skip N (or skip=N) leaves out up to N"
USED = "outputs that are there, or on their way, have what it gave before: the others would lack it"
MORE = "as many splits as skipping allows for have failed before; see the troubles for which"
NO_WORKER = "see to these hosts, or name others, and run it again"


class Master:
    """The state of a run, and every decision about it.

    Args:
        splits: what is mapped.
        partitions: how many reduces.
        rules: limits.
        there: the numbers of reduces that a former run has done.

    Attributes:
        maps: by their numbers.
        reduces: by their numbers.
        workers: all that ever registered, by id.
        queues: by kind, tasks that nobody has.
        running: by kind, the numbers of tasks that somebody has.
        skipped: the numbers of splits that are left out.
        ended: there is nothing more to decide.
    """

    def __init__(
        self, splits: Sequence[Split], partitions: int, rules: Rules | None = None, there: Collection[int] = ()
    ) -> None:
        self.rules = rules or Rules()
        self.maps = [Task(MAP, number, split.host, split.name) for number, split in enumerate(splits)]
        self.reduces = [Task(REDUCE, number) for number in range(partitions)]
        self.workers: dict[str, Worker] = {}
        self.maps_done = 0
        self.reduces_done = len(there)
        self.skipped: list[int] = []
        self.ended = False
        self.queues = {MAP: Queue(), REDUCE: Queue()}
        self._took = {MAP: Durations(), REDUCE: Durations()}
        self.running: dict[str, set[int]] = {MAP: set(), REDUCE: set()}
        self._expecting = Expecting(1)
        self._alone_since: float | None = None
        self._deaths = 0  # workers that ended by themselves
        self._near: frozenset[str] = frozenset()  # hosts whose inputs some worker opens by paths of its own
        self._step = 0
        self._now = 0.0
        self._actions: list[Action] = []
        for task in self.reduces:
            task.output = {} if task.number in there else None
        for task in (*self.maps, *self.reduces):
            if not task.done:
                self.queues[task.kind].add(task)

    # ---- the one way in

    def decide(self, event: Event, now: float) -> list[Action]:
        """Takes an event and gives what is to be done about it, in order.

        Args:
            event: what happened.
            now: seconds on a clock that never goes back.
        """
        self._step += 1
        self._now = now
        self._actions = []
        if not self.ended:
            self._take(event)
        if not self.ended:
            self._serve()
        if not self.ended:
            self._look_for_the_end()
        return self._actions

    @property
    def phase(self) -> str:
        """What is worked on: `MAP` or `REDUCE`."""
        return MAP if self.maps_done < len(self.maps) else REDUCE

    def task(self, order: Order) -> Task | None:
        """The task of an order; None when a worker made it up."""
        tasks = {MAP: self.maps, REDUCE: self.reduces}.get(order.kind, [])
        return tasks[order.number] if 0 <= order.number < len(tasks) else None

    def had(self, worker: str) -> Task | None:
        """The task that a worker has, and that is wanted of it."""
        known = self.workers.get(worker)
        if known is None or known.current is None or known.cancelled:
            return None
        return self.task(known.current.order)

    def _take(self, event: Event) -> None:
        match event:
            case Joined():
                worker = self._alive(event.worker)
                worker.host = event.host
                worker.near = frozenset({event.host}) if event.near is None else event.near
            case Gone():
                self._gone(event)
            case Asked():
                self._asked(self._alive(event.worker))
            case Waited():
                if event.worker in self.workers:
                    self.workers[event.worker].waits = False
            case Done():
                self._done(event)
            case Failed():
                self._failed(event)
            case Expecting():
                self._expecting = event
            case Tick():
                pass

    # ---- workers

    def _alive(self, name: str) -> Worker:
        """The worker that just gave a sign of life; one that was thought lost begins anew."""
        worker = self.workers.get(name)
        if worker is None:
            worker = self.workers[name] = Worker(name)
        worker.alive, worker.final = True, False
        return worker

    def _gone(self, event: Gone) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        worker.final = worker.final or event.final
        if not worker.alive:
            return
        worker.alive = worker.waits = False
        suspect = self.had(event.worker) if event.by_itself else None
        if suspect is not None:
            suspect.deaths_before = suspect.deaths_before if suspect.deaths else self._deaths
            suspect.deaths.append(f"{event.worker}{f' on {worker.host}' if worker.host else ''}: {event.why}")
        self._deaths += event.by_itself
        self._release(worker)
        if suspect is not None:
            self._judge(suspect)
        for number in sorted(worker.outputs):
            self._reopen(self.maps[number], event.why)
        worker.outputs.clear()

    def _judge(self, task: Task) -> None:
        """A worker ended while it had a task: is that what ends workers?"""
        if task.done:
            return
        deaths = len(task.deaths)
        alone = self._deaths - task.deaths_before == deaths
        if deaths >= (self.rules.deaths if alone else self.rules.deaths_amid):
            self._give_up(task, f"ended {deaths} workers", tuple(task.deaths))

    def _asked(self, worker: Worker) -> None:
        self._release(worker)
        worker.waits, worker.since = True, self._now

    def _release(self, worker: Worker) -> None:
        """Takes from a worker what it has; the task goes back into its queue unless another attempt is under way."""
        attempt, worker.current, worker.cancelled = worker.current, None, False
        if attempt is None:
            return
        task = self.task(attempt.order)
        if task is None or task.running.get(attempt.order.attempt) is not attempt:
            return
        del task.running[attempt.order.attempt]
        if not task.running:
            self.running[task.kind].discard(task.number)
            if not task.done:
                self.queues[task.kind].add(task)

    def _blame(self, worker: Worker, what: str) -> None:
        worker.faults += 1
        others_do_well = any(one.usable and one.done and not one.faults for one in self.workers.values())
        if worker.faults >= self.rules.faults and others_do_well and not worker.barred:
            worker.barred = True
            self._actions.append(Bar(worker.name, f"it failed {worker.faults} times in a row, last: {what}"))

    # ---- tasks

    def _done(self, event: Done) -> None:
        worker = self._alive(event.worker)
        task = self.task(event.order)
        had = self._its_current(worker, event.order)
        self._release_if(worker, event.order)
        if task is None:
            return
        if task.done:
            if (task.worker, task.accepted) != (event.worker, event.order.attempt):  # else it is said a second time
                self._actions.append(Discard(event.worker, event.order, event.output))
            return
        worker.faults = 0
        worker.done += 1
        task.deaths.clear()
        if had is not None:
            self._took[task.kind].add(self._now - had.began)
        task.output, task.worker, task.done_step = event.output, event.worker, self._step
        task.accepted = event.order.attempt
        self.queues[task.kind].remove(task)
        self.running[task.kind].discard(task.number)
        if task.kind == MAP:
            self.maps_done += 1
            worker.outputs.add(task.number)
        else:
            self.reduces_done += 1
        self._actions.append(Accept(event.worker, event.order))
        self._cancel_others(task)

    def _cancel_others(self, task: Task) -> None:
        for attempt in task.running.values():
            self.workers[attempt.worker].cancelled = True
            self._actions.append(Cancel(attempt.worker, attempt.order))
        task.running.clear()

    @staticmethod
    def _its_current(worker: Worker, order: Order) -> Attempt | None:
        current = worker.current
        return current if current is not None and current.order == order else None

    def _release_if(self, worker: Worker, order: Order) -> None:
        if self._its_current(worker, order) is not None:
            self._release(worker)

    def _failed(self, event: Failed) -> None:
        worker = self._alive(event.worker)
        task = self.task(event.order)
        attempt, cancelled = self._its_current(worker, event.order), worker.cancelled
        excused = event.transient or bool(event.missing)
        counts = task is not None and attempt is not None and not cancelled and not task.done
        said = f"{worker.host + ': ' if worker.host else ''}{event.what}"
        if task is not None and counts and not excused:
            task.failures.append(said)
            task.failed_on.add(worker.name)
        self._release_if(worker, event.order)
        if task is None or attempt is None or cancelled:
            return  # it was withdrawn: how it ended is nobody's fault
        for number in event.missing:
            if 0 <= number < len(self.maps):
                self._missing(self.maps[number], attempt, event.what)
        if not counts:
            return
        self._blame(worker, event.what)
        task.excused += excused
        if task.excused > MOST_EXCUSED:
            self._fail(f"{task} failed {task.excused} times, last: {said}", of_task=False)
        elif len(task.failures) > self.rules.retries:
            self._give_up(task, f"failed {len(task.failures)} times", tuple(task.failures))

    def _missing(self, task: Task, attempt: Attempt, what: str) -> None:
        """A reduce could not get a map's output; if that is the one that it was told of, it is made again."""
        if not task.done or task.skipped or task.done_step > attempt.step:
            return
        holder = self.workers[task.worker]
        holder.outputs.discard(task.number)
        task.lost += 1
        if task.lost > MOST_LOST:
            self._fail(f"the output of {task} could not be got {task.lost} times: {what}", of_task=False)
            return
        self._reopen(task, what)

    def _reopen(self, task: Task, why: str) -> None:
        """Have a map made again, which some reduce needs."""
        task.output, task.worker = None, ""
        self.maps_done -= 1
        self.queues[MAP].add(task)
        self._actions.append(Reopen(task.number, why))

    def _give_up(self, task: Task, what: str, tried: tuple[str, ...]) -> None:
        """A task failed for good: the run does, unless it may do without."""
        if self.ended:
            return
        used = any(one.done and not one.attempts for one in self.reduces)  # by a former run
        used = used or (bool(task.accepted) and any(one.attempts for one in self.reduces))
        if task.kind != MAP or used or len(self.skipped) >= self.rules.skip:
            hint = None if task.kind != MAP else f"{SKIPPING} splits that fail" if not self.rules.skip else MORE
            hint = USED if used and self.rules.skip else hint
            self._fail(f"{task} {what}", tried, of_task=True, hint=hint)
            return
        task.skipped, task.done_step = True, self._step
        self.skipped.append(task.number)
        self.queues[MAP].remove(task)
        self.running[MAP].discard(task.number)
        self.maps_done += 1
        self._cancel_others(task)
        self._actions.append(Skip(task.number, f"{task} {what}, last: {tried[-1]}"))

    # ---- giving

    def _serve(self) -> None:
        """Give waiting workers what there is."""
        self._near = frozenset().union(*(worker.near for worker in self.workers.values() if worker.usable))
        for worker in self.workers.values():
            if worker.waits and worker.usable:
                self._serve_one(worker)

    def _serve_one(self, worker: Worker) -> None:
        kind = self.phase
        tasks = self.maps if kind == MAP else self.reduces
        number = next(self.offered(worker), None)
        slow = self._slowest(worker, kind) if number is None else None
        if number is not None:
            self._give(worker, tasks[number], again=False)
        elif slow is not None:
            self._give(worker, slow, again=True)

    def offered(self, worker: Worker) -> Iterator[int]:
        """The numbers of the tasks that a worker may be given now, the best first."""
        queue = self.queues[self.phase]
        if len(queue):
            tasks = self.maps if self.phase == MAP else self.reduces
            for number in queue.for_worker(worker.near, self._near, self._left_to_others(worker)):
                if self._may_take(worker, tasks[number]):
                    yield number

    def _may_take(self, worker: Worker, task: Task) -> bool:
        """A task that failed on a worker goes to others, while there are any."""
        if worker.name not in task.failed_on:
            return True
        return not any(other.usable and other.name not in task.failed_on for other in self.workers.values())

    def _left_to_others(self, worker: Worker) -> frozenset[str]:
        """Hosts whose inputs are near other workers: a worker that may get something near waits for that a moment.

        Once it has waited in vain it takes what there is, until it is given something near again (delay scheduling:
        Zaharia et al., *Delay Scheduling*, EuroSys 2010, section 4).
        """
        median, delay_s = self._took[MAP].median(), self.rules.delay_s
        if median is not None:  # nobody waits for much longer than a map takes
            delay_s = min(delay_s, max(LEAST_DELAY_S, median))
        if worker.roams or self._now - worker.since >= delay_s:
            return frozenset()
        return (self._near | self._expecting.hosts) - worker.near

    def _slowest(self, worker: Worker, kind: str) -> Task | None:
        """The task that has taken longest, if that is too long and nobody else has it as well."""
        median = self._took[kind].median()
        if median is None:
            return None
        limit_s = max(self.rules.slow_least_s, self.rules.slow * median)
        tasks = self.maps if kind == MAP else self.reduces
        slow = [
            (attempt.began, number)
            for number in self.running[kind]
            if len(tasks[number].running) == 1
            for attempt in tasks[number].running.values()
            if attempt.worker != worker.name
            and self._now - attempt.began >= limit_s
            and worker.name not in tasks[number].failed_on
        ]
        return tasks[min(slow)[1]] if slow else None

    def _give(self, worker: Worker, task: Task, *, again: bool) -> None:
        task.attempts += 1
        order = Order(task.kind, task.number, task.attempts)
        attempt = Attempt(order, worker.name, self._now, self._step)
        self.queues[task.kind].remove(task)
        self.running[task.kind].add(task.number)
        task.running[order.attempt] = attempt
        worker.current, worker.cancelled, worker.waits = attempt, False, False
        if task.kind == MAP and task.host is not None and not again:
            worker.roams = task.host not in worker.near
        self._actions.append(Give(worker.name, order, again))

    # ---- the end

    def _look_for_the_end(self) -> None:
        if self.reduces_done == len(self.reduces):
            self.ended = True
            for task in (*self._unfinished(MAP), *self._unfinished(REDUCE)):
                self._cancel_others(task)
            self._actions.append(Finish())
            return
        if any(worker.usable for worker in self.workers.values()) or self._expecting.count:
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = self._now
        may_return = any(not worker.final and not worker.barred for worker in self.workers.values())
        if not may_return or self._now - self._alone_since >= self.rules.alone_s:
            what = "no worker is left" if self.workers else "no worker could be started"
            with_it = [f"{task} was under way when {len(task.deaths)} workers ended" for task in self._suspects()]
            self._fail(what, (*self._expecting.why, *with_it), of_task=False, hint=NO_WORKER)

    def _suspects(self) -> list[Task]:
        return [task for task in (*self.maps, *self.reduces) if len(task.deaths) > 1][:MOST_SUSPECTS]

    def _unfinished(self, kind: str) -> list[Task]:
        tasks = self.maps if kind == MAP else self.reduces
        return [tasks[number] for number in self.running[kind]]

    def _fail(self, what: str, tried: tuple[str, ...] = (), *, of_task: bool, hint: str | None = None) -> None:
        if not self.ended:
            self.ended = True
            self._actions.append(Fail(what, tried, of_task, hint))
