"""A bag of commands over files, lines or numbers: fed lazily, recorded before it is run, resumable."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.apps.cargo import Packer
from serai.apps.plan import Plan, decode, encode
from serai.describe.places import path_here
from serai.describe.task import Cause, Item, State
from serai.dispatch.files.origins import Found, look
from serai.dispatch.journal import CHUNK
from serai.errors import MissingOutput, NeedsUnmet, NodeLost, SeraiError, TaskFailed, TimeLimitExceeded, TransferFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from serai.apps.fetching import Fetcher
    from serai.dispatch.ports import Ended, Place
    from serai.dispatch.run import Run
    from serai.dispatch.schedule.events import Assign

SLOW_S = 0.02  # a source that takes longer for a batch is handed over as it comes
WINDOW = 20_000  # tasks handed to the schedule and not ended; the others wait in the journal

ERRORS: dict[int, type[TaskFailed | NodeLost]] = {
    Cause.TIME_LIMIT: TimeLimitExceeded,
    Cause.MISSING_OUTPUT: MissingOutput,
    Cause.INPUT: TransferFailed,
    Cause.OUTPUT: TransferFailed,
    Cause.NEEDS: NeedsUnmet,
    Cause.NODE_LOST: NodeLost,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one command ended.

    Attributes:
        task: its number in the run.
        item: what was its own.
        node: where it ran.
        exit_code: negative for a signal; None when it did not run to its end.
        stdout, stderr: what it printed; empty when it was long: then ``stream_paths`` say where it is (0 and 1).
        started: seconds since the epoch.
        took_s: from its start to its end on the node.
        rss_kb: peak memory of the process.
        detail: what went wrong, in words.
    """

    task: int
    item: Item
    state: State
    cause: Cause
    node: str
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    stream_paths: dict[int, str]
    started: float
    took_s: float
    rss_kb: int
    detail: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.state is State.DONE

    @property
    def error(self) -> SeraiError | None:
        """What went wrong, as an error that can be raised; None when it ended well."""
        if self.ok:
            return None
        words = self.detail or (
            f"exit code {self.exit_code}" if (self.exit_code or 0) >= 0 else f"ended by signal {-(self.exit_code or 0)}"
        )
        error = ERRORS.get(self.cause, TaskFailed)(f"task {self.task}: {words}", host=self.node or None)
        if isinstance(error, TaskFailed):
            error.task, error.exit_code = self.task, self.exit_code
            error.stderr_tail = self.stderr[-2000:].decode("utf-8", "replace")
        return error


@dataclass(slots=True)
class _Chunk:
    first: int
    items: list[Any] | None
    left: int


class Bag:
    """The owner of one plan's tasks.

    Args:
        run: where they run.
        plan: what they share.
        work: the number under which the journal knows the plan; None for a new one.
        ahead: tasks that may be recorded and not yet consumed; None for no limit (the source is finite).
    """

    def __init__(self, run: Run, plan: Plan, *, work: int | None = None, ahead: int | None = None) -> None:
        self.plan = plan
        self._run = run
        self._ahead = ahead
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._chunks: dict[int, _Chunk] = {}
        self._waiting: deque[tuple[int, int, list[Any] | None]] = deque()
        self._finals: dict[str, int] = {}
        self._refused: dict[int, str] = {}
        self.total = 0
        self.complete = False
        self.ended_count = 0
        self.ended_before = 0  # of them, those that the journal knew when the run was taken up again
        self.counts = dict.fromkeys((State.DONE, State.FAILED, State.CANCELLED), 0)
        self.failure: BaseException | None = None
        self._backlog = 0
        self._stopped = False
        self.on_ended: Callable[[list[Outcome]], None] | None = None
        self.on_broken: Callable[[], None] | None = None
        self._resumed = False
        self._held: set[int] = set()
        self._hold_s = 0.0
        self.work = run.next_work() if work is None else work
        self._brings: Fetcher | None = None
        self._making = threading.Lock()  # several nodes' threads pack at a time
        self._packer = Packer(plan, self.work, self._item, run.landing, self._fetcher, run.catalogue)
        self._input_columns = plan.template().input_columns
        self._catalogues = not run.in_place  # else every file is used where it lies
        self._has_outputs = bool(plan.template().outputs)
        if work is None:
            run.journal.add_work(self.work, "command", plan.describe())
        run.dispatcher.add_work(self.work, plan.needs, plan.retry, self)

    def _fetcher(self) -> Fetcher:
        from serai.apps.fetching import Fetcher  # noqa: PLC0415 - inputs by URL are seldom
        from serai.apps.inputs import config_for, ssh_configs  # noqa: PLC0415 - the same

        with self._making:
            if self._brings is None:
                configs = ssh_configs(self._run.roster.specs.values())
                self._brings = Fetcher(configs, self._run.clock)
                self._run.catalogue.reader = self._brings.whole
                if self._run.catalogue.gate is not None:
                    self._run.catalogue.gate.ssh_config_of = lambda url: config_for(url, configs)
            return self._brings

    # ---- the files that tasks read

    def _catalogue(self, items: Iterable[Item]) -> None:
        """Number the larger inputs of items, so that each comes to a node once. Looks at them: not in a hurry."""
        catalogue, shared = self._run.catalogue, set(self.plan.shared)
        found: list[Found] = []
        urls: dict[str, None] = {}
        seen: set[str] = set()
        for path in itertools.chain.from_iterable(map(self._paths, items)):
            if path in seen or path in shared:
                continue
            seen.add(path)
            here = path_here(path)
            if here is None:
                if catalogue.number(path) is None:
                    urls[path] = None
            elif catalogue.number(whole := os.path.join(self.plan.cwd, here)) is None:
                with contextlib.suppress(OSError):  # said when it is sent
                    facts = look(whole)
                    if facts is not None:
                        found.append(Found(whole, *facts))
        if urls:
            found += self._fetcher().look(urls)
        if found:
            catalogue.add(found)

    def _paths(self, item: Item) -> Iterator[str]:
        yield from item.inputs
        for name in self._input_columns:
            if name in item.columns:
                yield item.columns[name]

    def _reads(self, chunk: _Chunk, tasks: Sequence[int]) -> list[tuple[int, ...]] | None:
        """The catalogued files of tasks; None where none reads any."""
        if not self._catalogues or chunk.items is None or not len(self._run.catalogue):
            return None
        number = self._run.catalogue.number
        cwd = self.plan.cwd
        found = []
        for task in tasks:
            paths = self._paths(self._decode(chunk, task))
            origins = (path if (here := path_here(path)) is None else os.path.join(cwd, here) for path in paths)
            found.append(tuple(one for origin in origins if (one := number(origin)) is not None))
        return found if any(found) else None

    # ---- feeding

    def feed(self, items: Iterable[Item]) -> None:
        """Record and hand over items; returns when all are recorded, or the bag was stopped."""
        iterator = iter(items)
        size = CHUNK if self._ahead is None else min(CHUNK, self._ahead)
        first_size = 1  # the first task starts at once; a source may be slow
        while batch := self._take(iterator, first_size):
            if not self.add(batch):
                return
            first_size = min(size, first_size * 4)
        self.finish_feeding()

    def add(self, batch: Sequence[Item]) -> bool:
        """Record and hand over some items, when there is room for them; returns False where the bag was stopped."""
        if not self._wait_for_room(len(batch)):
            return False
        first = self._run.reserve(len(batch))
        encoded = None if not any(map(_has_own, batch)) else [encode(item) for item in batch]
        self._run.journal.add_items(self.work, first, encoded, len(batch))
        if self._catalogues:
            self._catalogue(batch)
        with self._lock:
            self.total += len(batch)
            keep = encoded if self._backlog < WINDOW else None
            self._waiting.append((first, len(batch), keep))
            self._pump()
        return True

    @property
    def stopped(self) -> bool:
        """Whether nothing more is handed over."""
        return self._stopped

    def _take(self, iterator: Iterator[Item], most: int) -> list[Item]:
        """Up to so many items: fewer where they come slowly, so that none waits for long for those after it."""
        until = self._run.clock.now() + SLOW_S
        batch = []
        for item in itertools.islice(iterator, most):
            batch.append(item)
            if self._run.clock.now() >= until:
                break
        return batch

    def finish_feeding(self) -> None:
        """Nothing more will be recorded."""
        with self._lock:
            self.complete = True
            self._room.notify_all()

    def resume(self) -> None:
        """Hand over what the journal has and has not seen end."""
        for first, work, count in self._run.journal.chunks():
            if work == self.work:
                if self._catalogues:
                    self._catalogue(map(decode, self._run.journal.items(first) or ()))
                with self._lock:
                    self.total += count
                    self._waiting.append((first, count, None))
        with self._lock:
            self._pump()

    def _wait_for_room(self, count: int) -> bool:
        with self._room:
            if self._ahead is not None:
                ahead = self._ahead
                self._room.wait_for(lambda: self._stopped or self.total + count - self.ended_count <= ahead)
            return not self._stopped

    def _pump(self) -> None:
        """Hand waiting chunks to the schedule while there is room. With the lock held."""
        while self._waiting and self._backlog < WINDOW and not self._stopped:
            first, count, items = self._waiting.popleft()
            if items is None:
                items = self._run.journal.items(first)
            ended = self._run.journal.ended(first, count) if self._resumed else {}
            tasks = [task for task in range(first, first + count) if task not in ended]
            self.ended_count += len(ended)
            self.ended_before += len(ended)
            for state in ended.values():
                self.counts[State(state)] += 1
            chunk = _Chunk(first, items, len(tasks))
            if self._has_outputs:  # also of tasks that have ended: what they wrote stays theirs
                self._check_finals(chunk, range(first, first + count))
            if tasks:
                for task in tasks:
                    self._chunks[task] = chunk
                self._backlog += len(tasks)
                held = self._held.intersection(tasks)
                fresh = [task for task in tasks if task not in held] if held else tasks
                self._run.dispatcher.submit_many(self.work, fresh, inputs=self._reads(chunk, fresh))
                if held:
                    late = sorted(held)
                    self._run.dispatcher.submit_many(self.work, late, self._hold_s, self._reads(chunk, late))
        self._room.notify_all()

    def is_resumed(self, held: Mapping[str, Sequence[int]], hold_s: float) -> None:
        """The journal knows tasks that have ended already, and executors may still have results.

        Args:
            held: by node, the tasks that lingering executors had when the front end ended.
            hold_s: these are not run elsewhere for so long, or until the node says that it has nothing left of them.
        """
        self._resumed = True
        self._held = {task for tasks in held.values() for task in tasks}
        self._hold_s = hold_s
        self._run.landing.finals_of = self._wanted

        def let_go(node: str) -> None:
            with self._lock:
                self._held.difference_update(held.get(node, ()))
            self._run.dispatcher.hurry(held.get(node, ()))

        self._run.dispatcher.when_nothing_left(let_go)

    def _wanted(self, task: int) -> tuple[str, ...]:
        """Where the outputs of a task end, while they are wanted."""
        item = self.peek(task)
        try:
            return () if item is None else self._packer.finals(item, task)
        except SeraiError:
            return ()

    def _check_finals(self, chunk: _Chunk, tasks: Iterable[int]) -> None:
        """Two tasks must not write one file."""
        for task in tasks:
            item = self._decode(chunk, task)
            try:
                finals = self._packer.finals(item, task)
            except SeraiError:
                continue  # said when it is packed
            for final in finals:
                other = self._finals.setdefault(final, task)
                if other != task:
                    self._refused[task] = f"its output {final} is already that of task {other}; see --keep-dirs"

    @staticmethod
    def _decode(chunk: _Chunk, task: int) -> Item:
        return decode(None if chunk.items is None else chunk.items[task - chunk.first])

    def _item(self, task: int) -> Item | None:
        chunk = self._chunks.get(task)
        if chunk is None:
            return None
        if task in self._refused:
            from serai.errors import UsageError  # noqa: PLC0415 - seldom

            raise UsageError(self._refused[task])
        return self._decode(chunk, task)

    def peek(self, task: int) -> Item | None:
        """A task's item, while it has not ended."""
        chunk = self._chunks.get(task)
        return None if chunk is None else self._decode(chunk, task)

    # ---- the owner's part

    def cargo(self, assign: Assign, place: Place) -> Iterator[bytes]:
        """See `Owner.cargo`."""
        return self._packer.frames(assign, place)

    def assigned(self, tasks: Sequence[int]) -> list[int]:
        """See `Owner.assigned`."""
        return []

    def ended(self, batch: Sequence[Ended]) -> None:
        """See `Owner.ended`."""
        outcomes = [self._outcome(ended) for ended in batch] if self.on_ended is not None else []
        with self._lock:
            for ended in batch:
                self._chunks.pop(ended.task, None)
                self.counts[ended.state] += 1
            self.ended_count += len(batch)
            self._backlog -= len(batch)
            self._pump()
        if self.on_ended is not None:
            self.on_ended(outcomes)

    def _outcome(self, ended: Ended) -> Outcome:
        chunk = self._chunks.get(ended.task)
        item = Item() if chunk is None else self._decode(chunk, ended.task)
        return Outcome(
            ended.task,
            item,
            ended.state,
            Cause(ended.cause),
            ended.node,
            ended.exit_code,
            ended.stdout,
            ended.stderr,
            ended.stream_paths,
            ended.started_us * 1e-6,
            ended.took_us * 1e-6,
            ended.rss_kb,
            ended.detail,
        )

    def broken(self, error: BaseException) -> None:
        """See `Owner.broken`."""
        with self._lock:
            self.failure = error
            self._stopped = True
            self._room.notify_all()
        if self.on_broken is not None:
            self.on_broken()

    def stop(self) -> None:
        """Hand over nothing more."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            self._room.notify_all()

    def cancel(self) -> None:
        """End everything that has not ended."""
        self.stop()
        with self._lock:
            self._run.dispatcher.cancel(list(self._chunks))

    def through(self) -> bool:
        """Whether every task has ended, or nothing more will."""
        with self._lock:
            return self.failure is not None or (
                (self.complete or self._stopped)
                and (self.ended_count >= self.total or (self._stopped and not self._backlog))
            )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until `through`."""
        with self._room:
            return self._room.wait_for(self.through, timeout_s)


def _has_own(item: Item) -> bool:
    return bool(item.inputs or item.columns or item.outputs or item.line is not None)
