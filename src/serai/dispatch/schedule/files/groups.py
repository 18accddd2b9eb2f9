"""Groups of waiting tasks that read the same files, and what a queue of them asks of the world around it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["INFINITE", "Group", "Placement", "Prices", "Surroundings"]

INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class Placement:
    """A task for a node.

    Attributes:
        task: its number.
        file: what it reads, or the first of it.
        held: whether the node has all of it.
    """

    task: int
    file: int
    held: bool


@dataclass(slots=True)
class Prices:
    """What ``AUTO`` goes by; whoever measures keeps it up to date.

    Attributes:
        fetch_s: how long a file takes to a node that does not hold it, with what flows already.
        task_s: how long a task takes on a node that holds its file.
    """

    fetch_s: float = 0.0
    task_s: float = 0.0


class Surroundings(Protocol):
    """What a queue asks of the world around it."""

    def fetch_s(self, node: str, files: Sequence[int]) -> float:
        """What a node pays for files that it may lack; infinity while it cannot get them."""
        ...

    def elsewhere_s(self, node: str, files: Sequence[int]) -> float:
        """How long files that nobody holds would take to come to be read on another node, its wait included."""
        ...

    def lane_s(self, node: str) -> float:
        """How long a node is thought to be kept from its next task by what it runs, or by faults."""
        ...

    def is_free(self, node: str) -> bool:
        """Whether a node could take a task right now."""
        ...

    def is_busy(self) -> bool:
        """Whether so many lanes are in use that `Policy.GOOD_CACHE_COMPUTE` waits for holders."""
        ...


class Group:
    """Tasks that wait and read the same files."""

    __slots__ = ("alive", "dead", "files", "head", "tasks")

    def __init__(self, files: tuple[int, ...]) -> None:
        self.files = files
        self.tasks: list[int] = []
        self.head = 0  # those before it were taken
        self.alive = 0
        self.dead: set[int] | None = None  # withdrawn while they waited

    def put(self, task: int, *, first: bool) -> None:
        """A task waits."""
        self.alive += 1
        if not first:
            self.tasks.append(task)
        elif self.head:
            self.head -= 1
            self.tasks[self.head] = task
        else:
            self.tasks.insert(0, task)

    def pop(self) -> int:
        """Take the task that waits longest. There must be one."""
        while True:
            task = self.tasks[self.head]
            self.head += 1
            if self.head > 64 and 2 * self.head > len(self.tasks):
                del self.tasks[: self.head]
                self.head = 0
            if self.dead and task in self.dead:
                self.dead.remove(task)
                continue
            self.alive -= 1
            return task

    def withdraw(self, task: int) -> None:
        """A task waits no longer."""
        self.alive -= 1
        if self.dead is None:
            self.dead = set()
        self.dead.add(task)

    def __iter__(self) -> Iterator[int]:
        """Those that wait, in order; for checks."""
        dead = self.dead or ()
        return (task for task in islice(self.tasks, self.head, None) if task not in dead)
