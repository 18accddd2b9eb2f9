"""Data diffusion: which waiting task a free node is given, by what nodes have in their caches. Pure.

The named policies are Falkon's: Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion" (2008), and Raicu et al., "The Quest for Scalable Support of Data-Intensive Workloads in Distributed Systems"
(2009). ``AUTO`` compares two prices instead: what it costs to fetch a file now, and how long its holders would take to
come to the task.

A decision looks at what a node holds and at files that wait, never through the queue, so that its time does not grow
with the number of tasks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.match.movement import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Placement", "Prices", "Queue"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A task for a node.

    Attributes:
        task: its number.
        file: what it reads.
        held: whether the node has it.
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


class Queue:
    """Waiting tasks, by file; and who holds which file.

    Args:
        policy: see `Policy`.
        slots: how many tasks all nodes together run at a time.
        busy_share: of slots: from here on `Policy.GOOD_CACHE_COMPUTE` waits for holders.
        most_replicas: copies of a file that it makes by waiting no longer; more are made only when none is free.
        prices: for `Policy.AUTO`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        slots: int,
        busy_share: float = 0.9,
        most_replicas: int = 4,
        prices: Prices | None = None,
    ) -> None:
        self.policy = policy
        self._busy_share = busy_share
        self._busy = busy_share * slots
        self._most_replicas = most_replicas
        self.prices = prices or Prices()
        self.waiting = 0
        self.running = 0
        self._tasks: OrderedDict[int, deque[int]] = OrderedDict()  # file: tasks; the file that waits longest first
        self._holders: dict[int, set[str]] = {}
        self._held: dict[str, set[int]] = {}
        self._ready: dict[str, OrderedDict[int, None]] = {}  # node: files that it holds and tasks wait for
        self._homeless: OrderedDict[int, None] = OrderedDict()  # files that tasks wait for and nobody holds

    def resize(self, slots: int) -> None:
        """All nodes together run so many tasks at a time now."""
        self._busy = self._busy_share * slots

    def add_node(self, node: str, files: Iterable[int] = ()) -> None:
        """A node is there, with what its cache has."""
        self._held[node] = set()
        self._ready[node] = OrderedDict()
        for file in files:
            self.cached(node, file)

    def drop_node(self, node: str) -> None:
        """A node is gone, and its cache with it."""
        for file in list(self._held.pop(node)):
            self._forget(node, file)
        del self._ready[node]

    def add(self, task: int, file: int) -> None:
        """A task waits."""
        tasks = self._tasks.get(file)
        if tasks is None:
            self._tasks[file] = deque((task,))
            holders = self._holders.get(file)
            for node in holders or ():
                self._ready[node][file] = None
            if not holders:
                self._homeless[file] = None
        else:
            tasks.append(task)
        self.waiting += 1

    def cached(self, node: str, file: int) -> None:
        """A node holds a file now."""
        if file in self._held[node]:
            return
        self._held[node].add(file)
        self._holders.setdefault(file, set()).add(node)
        if file in self._tasks:
            self._ready[node][file] = None
            self._homeless.pop(file, None)

    def evicted(self, node: str, file: int) -> None:
        """A node has given a file up."""
        if file in self._held[node]:
            self._held[node].remove(file)
            self._ready[node].pop(file, None)
            self._forget(node, file)

    def _forget(self, node: str, file: int) -> None:
        holders = self._holders[file]
        holders.discard(node)
        if not holders:
            del self._holders[file]
            if file in self._tasks:
                self._homeless[file] = None

    def holders(self, file: int) -> frozenset[str]:
        """Who holds a file."""
        return frozenset(self._holders.get(file, ()))

    def wants(self, file: int) -> list[str]:
        """Nodes that a free slot should be looked for on when a task for this file has come."""
        return sorted(self._holders.get(file, ()))

    def take(self, node: str) -> Placement | None:
        """Give a free slot of a node a task, or nothing when it should rather wait."""
        if not self.waiting:
            return None
        looks = self.policy in {Policy.MAX_CACHE_HIT, Policy.AUTO} or (
            self.policy is Policy.GOOD_CACHE_COMPUTE and self._is_busy()
        )
        ready = self._ready[node]
        if looks and ready:
            return self._placed(next(iter(ready)), held=True)
        if self.policy is Policy.MAX_CACHE_HIT or (self.policy is Policy.GOOD_CACHE_COMPUTE and self._is_busy()):
            file = next(iter(self._homeless), None)
            if file is None and self.policy is Policy.GOOD_CACHE_COMPUTE:
                file = self._worth_another_copy()
            return None if file is None else self._placed(file, held=False)
        if self.policy is Policy.AUTO:
            return self._by_price()
        file = next(iter(self._tasks))
        return self._placed(file, held=file in self._held[node])

    def ended(self) -> None:
        """A task that was taken has ended."""
        self.running -= 1

    def _is_busy(self) -> bool:
        return self.running >= self._busy

    def _worth_another_copy(self) -> int | None:
        """The file that waits longest, when it has few copies."""
        file = next(iter(self._tasks))
        return file if len(self._holders.get(file, ())) < self._most_replicas else None

    def _by_price(self) -> Placement | None:
        """Fetch what nobody holds; fetch another copy where its holders would take longer than that."""
        file = next(iter(self._homeless), None)
        if file is not None:
            return self._placed(file, held=False)
        file = next(iter(self._tasks))
        wait_s = len(self._tasks[file]) * self.prices.task_s / max(1, len(self._holders.get(file, ())))
        if self._is_busy() and wait_s < self.prices.fetch_s:
            self._tasks.move_to_end(file)  # its holders come to it sooner; look at another next time
            return None
        return self._placed(file, held=False)

    def _placed(self, file: int, *, held: bool) -> Placement:
        tasks = self._tasks[file]
        task = tasks.popleft()
        if tasks:
            # Files take turns, so that one of many tasks does not hold up the others.
            self._tasks.move_to_end(file)
            for node in self._holders.get(file, ()) if held else ():
                self._ready[node].move_to_end(file)
        else:
            del self._tasks[file]
            self._homeless.pop(file, None)
            for node in self._holders.get(file, ()):
                self._ready[node].pop(file, None)
        self.waiting -= 1
        self.running += 1
        return Placement(task, file, held)
