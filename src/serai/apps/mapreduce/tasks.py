"""The records that the master keeps of tasks and workers, its limits, and the order in which splits are given. Pure."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from serai.apps.mapreduce.events import Order


@dataclass(frozen=True, slots=True)
class Rules:
    """What the master may be told.

    Attributes:
        retries: how often a task that failed is tried again.
        faults: failures in a row after which a worker gets nothing more, if another one does well.
        slow: a task is doubled when it takes so many times the median.
        slow_least_s: but never before this.
        alone_s: how long to wait for a silent worker when there is no other.
        deaths: workers that end while they have one task, before it is held to be the reason.
        deaths_amid: the same where other workers ended meanwhile, so that it may be chance.
        delay_s: how long a worker at most waits for a split that is near, while others could take what is not.
        skip: splits that may be left out when they fail for good, as in Hadoop's skipping of bad records.
    """

    retries: int = 3
    faults: int = 6
    slow: float = 2.0
    slow_least_s: float = 2.0
    alone_s: float = 30.0
    deaths: int = 3
    deaths_amid: int = 6
    delay_s: float = 1.0
    skip: int = 0


@dataclass(slots=True)
class Attempt:
    """An order that a worker has.

    Attributes:
        order: which.
        worker: its id.
        began: when it was given.
        step: the master's count of steps then.
    """

    order: Order
    worker: str
    began: float
    step: int


@dataclass(slots=True)
class Task:
    """A split to be mapped, or a partition to be reduced.

    Attributes:
        kind: as of its orders.
        number: its own.
        host: where its input lies.
        name: for people; "" for its kind and number alone.
        running: its attempts by their numbers.
        attempts: how many were made.
        output: of the attempt that was accepted; None until then.
        worker: that made the output.
        accepted: the number of the attempt that made it.
        done_step: the master's count of steps then.
        failures: what was said of it each time it failed.
        excused: how often it failed for no fault of its own.
        lost: how often its output could not be got.
        failed_on: workers on which it failed.
        deaths: what was said of each worker that ended while it had this.
        deaths_before: workers of the run that had ended before the first of them.
        skipped: it is left out: it counts as done, and has no output.
    """

    kind: str
    number: int
    host: str | None = None
    name: str = ""
    running: dict[int, Attempt] = field(default_factory=dict)
    attempts: int = 0
    output: dict[str, Any] | None = None
    worker: str = ""
    accepted: int = 0
    done_step: int = 0
    failures: list[str] = field(default_factory=list)
    excused: int = 0
    lost: int = 0
    failed_on: set[str] = field(default_factory=set)
    deaths: list[str] = field(default_factory=list)
    deaths_before: int = 0
    skipped: bool = False

    @property
    def done(self) -> bool:
        """Whether its output is there, or it is left out."""
        return self.output is not None or self.skipped

    def __str__(self) -> str:
        return f"the {self.kind} {self.number}" + (f" ({self.name})" if self.name else "")


@dataclass(slots=True)
class Worker:
    """A worker that registered.

    Attributes:
        name: its id.
        host: where it runs.
        near: hosts whose inputs it opens by paths of its own.
        since: when it began to wait for an input that is near.
        roams: it has waited for that in vain, and takes what there is.
        alive: it registered, and was not lost since.
        final: it will not come back.
        waits: it asked and has no answer yet.
        current: the attempt that it has.
        cancelled: what it has is not needed any more.
        faults: how often in a row it failed.
        barred: it gets nothing more.
        outputs: maps whose outputs it holds.
        done: orders that it did well.
    """

    name: str
    host: str = ""
    near: frozenset[str] = frozenset()
    since: float = 0.0
    roams: bool = False
    alive: bool = True
    final: bool = False
    waits: bool = False
    current: Attempt | None = None
    cancelled: bool = False
    faults: int = 0
    barred: bool = False
    outputs: set[int] = field(default_factory=set)
    done: int = 0

    @property
    def usable(self) -> bool:
        """Whether it may be given orders."""
        return self.alive and not self.barred


class Queue:
    """Tasks that nobody has, by the host that holds their input; each host's in their order of coming.

    Those that failed come before all others, wherever their input is: what fails everywhere is to be known soon. Those
    that workers ended with come last of their host: other work is done first, and when workers end with that too, it is
    known that a task is not the reason.
    """

    def __init__(self) -> None:
        self._failed: dict[int, None] = {}
        self._by_host: dict[str | None, dict[int, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, task: Task) -> bool:
        return task.number in self._failed or task.number in self._by_host.get(task.host, ())

    def add(self, task: Task) -> None:
        """Put a task in; harmless when it is in."""
        if task not in self:
            (self._failed if task.failures else self._by_host.setdefault(task.host, {}))[task.number] = None
            self._count += 1

    def remove(self, task: Task) -> None:
        """Take a task out; harmless when it is not in."""
        if task in self:
            del (self._failed if task.number in self._failed else self._by_host[task.host])[task.number]
            self._count -= 1

    def for_worker(self, near: Collection[str], hosts: Collection[str], others: Collection[str] = ()) -> Iterator[int]:
        """The numbers of tasks in the order in which a worker should take them.

        Those whose input is near first, then those whose input is near no worker, then those of the host that has most
        left.

        Args:
            near: hosts whose inputs the worker opens by paths of its own.
            hosts: such hosts of all workers.
            others: hosts whose inputs are left to other workers.
        """
        yield from self._failed
        for host in self._by_host:
            if host in near:
                yield from self._by_host[host]
        far = [host for host in self._by_host if host not in near and host not in others]
        far.sort(key=lambda host: (host in hosts, -len(self._by_host[host])))
        for host in far:
            yield from self._by_host[host]


class Durations:
    """How long attempts that ended well took."""

    def __init__(self) -> None:
        self._sorted: list[float] = []

    def add(self, took_s: float) -> None:
        """Note one."""
        bisect.insort(self._sorted, took_s)

    def median(self) -> float | None:
        """The middle one, None when there is none."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else None
