"""What the schedule remembers: works, tasks, bundles, lanes and nodes."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.dispatch.schedule.bundles import Estimate
from serai.dispatch.schedule.sites import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.describe.task import Needs
    from serai.dispatch.schedule.events import Retry
    from serai.dispatch.schedule.files.diffusion import Queue


class Where:
    """Which queue of its work a task is in. Plain integers: there are many."""

    NONE = 0
    QUEUE = 1
    PICKY = 2
    DELAYED = 3
    FILES = 4  # among those that read files

    WAITING = (QUEUE, PICKY, FILES)


class Task:
    """A task that has not ended. There may be many: no more than what decisions need."""

    __slots__ = ("avoid", "bundles", "fails", "faults", "id", "inputs", "losses", "where", "work")

    def __init__(self, ident: int, work: Work) -> None:
        self.id = ident
        self.work = work
        self.fails = 0
        self.losses = 0  # executors that ended while they may have run it
        self.faults = 0  # of nodes that could not run it
        self.bundles: tuple[int, ...] = ()  # that hold it now
        self.avoid: tuple[str, ...] = ()  # nodes that failed it
        self.where = Where.NONE
        self.inputs: tuple[int, ...] = ()  # files that it reads


@dataclass(slots=True, eq=False)
class Work:
    """Tasks with the same needs, which are matched as one.

    The queues may hold numbers of tasks that have ended; those are passed over when their turn comes. A task that lives
    is in one queue at most, and `Task.where` says in which.
    """

    id: int
    needs: Needs
    retry: Retry
    queue: deque[int] = field(default_factory=deque)
    picky: deque[int] = field(
        default_factory=deque
    )  # tasks that are not like all others: suspects, copies, those that avoid nodes; looked at first
    delayed: list[tuple[float, int]] = field(default_factory=list)  # a heap of (not before, task)
    estimate: Estimate = field(default_factory=Estimate)
    unfit: dict[str, str] = field(default_factory=dict)  # node: why it can never run this
    fit: set[str] = field(default_factory=set)  # nodes that can
    ranks: dict[str, float] = field(default_factory=dict)  # how much it wants each of them, where it says so

    holds: set[str] = field(default_factory=set)  # nodes kept free for it
    waiting: int = 0  # tasks that could be sent now: the living ones in the queue, among the picky and in files
    files: Queue | None = None  # tasks that read files, from the first of them on
    fraction: float | None = None  # of its inputs that tasks were seen to read from afar
    look: int = 0  # the bundle that reads from afar for that to be seen
    looks: int = 0  # how many did
    copies_only: bool = False  # a task that read from afar ended badly: perhaps it does with files what no mount allows
    sent_at: float = 0.0  # when the first bundle was sent
    busy: dict[int, Work] = field(default_factory=dict)  # the schedule's: works with tasks that wait, or will again

    def put(self, task: Task, *, first: bool = False) -> None:
        """Let a task wait for a lane, unless it waits already."""
        if task.where != Where.NONE:
            return
        if self.avoids_all(task):
            task.avoid = ()  # whatever failed it, there is nowhere else
        picky = bool(task.avoid or task.bundles or task.losses)
        self.waiting += 1
        self.busy[self.id] = self
        if task.inputs and self.files is not None and not picky:
            task.where = Where.FILES
            self.files.add(task.id, task.inputs, first=first)
            return
        task.where = Where.PICKY if picky else Where.QUEUE
        queue = self.picky if picky else self.queue
        (queue.appendleft if first else queue.append)(task.id)

    def avoids_all(self, task: Task) -> bool:
        """Whether a task avoids every node that is left."""
        return bool(task.avoid) and len(self.fit) <= len(task.avoid) and self.fit.issubset(task.avoid)

    def forget(self, task: Task) -> None:
        """A task has ended: it waits no longer."""
        if task.where in Where.WAITING:
            self.waiting -= 1
            if task.where == Where.FILES and self.files is not None:
                self.files.withdraw(task.id, task.inputs)
        task.where = Where.NONE

    def delay(self, task: Task, until: float) -> None:
        """Let a task wait for a time."""
        task.where = Where.DELAYED
        heapq.heappush(self.delayed, (until, task.id))
        self.busy[self.id] = self

    @property
    def plain(self) -> int:
        """Tasks that wait and are not placed by what they read."""
        return self.waiting if self.files is None else self.waiting - self.files.waiting

    def settle(self, node: Node) -> None:
        """Whether a node is fit has changed: those that read files learn it."""
        if self.files is None or self.files.has_node(node.name) == (node.name in self.fit):
            return
        if node.name in self.fit:
            self.files.add_node(node.name, lanes=node.slots)
        else:
            self.files.leave(node.name)


@dataclass(slots=True, eq=False)
class Bundle:
    """Tasks on their way or on a lane."""

    id: int
    work: Work
    node: Node
    lane: int
    borrowed: tuple[int, ...]  # further lanes whose cores it uses
    left: dict[int, None]  # tasks that were not reported, in the order of running
    sent_at: float
    recalled: bool = False
    coming: tuple[int, ...] = ()  # files that it waits for
    reads: bool = False  # its tasks read files from afar


@dataclass(slots=True, eq=False)
class Node:
    """An executor that checked in."""

    name: str
    site: Site
    slots: int
    memory_bytes: int
    ad: dict[str, Any]
    rtt_s: float
    lanes: list[list[Bundle]] = field(default_factory=list)
    lent: dict[int, Bundle] = field(default_factory=dict)  # lanes whose cores another lane's bundle uses
    memory_used: int = 0
    running: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # programs it was asked about and has not told of
    suspect: Bundle | None = None  # the one bundle here whose task may have ended executors
    held_for: Work | None = None  # kept free until this work's many cores, or much memory, are there
    leaving: bool = False  # it will go away, and is given nothing new


@dataclass(slots=True, eq=False)
class Site:
    """Nodes judged by one score."""

    name: str
    score: Score = field(default_factory=Score)
    idle: dict[tuple[str, int], None] = field(default_factory=dict)  # lanes with nothing to do, oldest first
    thin: dict[tuple[str, int], None] = field(default_factory=dict)  # lanes that run their last bundle
    active: int = 0  # lanes in use
    nodes: int = 0
