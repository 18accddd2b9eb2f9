"""Data diffusion: which waiting task a free node is given, by what nodes have in their caches. Pure.

The named policies are Falkon's: Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion" (2008), and Raicu et al., "The Quest for Scalable Support of Data-Intensive Workloads in Distributed Systems"
(2009). ``AUTO`` compares two prices instead: what it costs to fetch files now, and how long those who have them would
take to come to the task.

Tasks that read the same files are a group. A decision looks at what a node holds and at a few groups, never through the
queue, so that its time grows neither with the number of tasks nor with that of nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from serai.dispatch.schedule.files.groups import INFINITE, Group, Placement, Prices
from serai.dispatch.schedule.files.holdings import Holdings
from serai.match.movement import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from serai.dispatch.schedule.files.groups import Surroundings

__all__ = ["Queue"]

LOOK = 8  # groups, or files, that one decision looks at
LOOK_FARTHER = 2  # groups whose holders are compared with a node that has nothing of its own to do
AHEAD = 2  # files that are brought to a node while its lanes have other things to do
WIDE = 64  # a file that more nodes hold is not written down for each of them
BLIND = frozenset({Policy.FIRST_AVAILABLE, Policy.FIRST_CACHE_AVAILABLE})


class Queue:
    """Waiting tasks of one kind, by the files that they read.

    Args:
        policy: see `Policy`.
        slots: how many tasks all nodes together run at a time.
        busy_share: of slots: from here on `Policy.GOOD_CACHE_COMPUTE` waits for holders.
        most_replicas: copies of a file that it makes by waiting no longer; more are made only when none is free.
        prices: for `Policy.AUTO`.
        holdings: who holds what, where several queues share it; by default the queue has its own.
        around: answers for prices and free lanes; by default ``prices`` do.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        slots: int = 0,
        busy_share: float = 0.9,
        most_replicas: int = 4,
        prices: Prices | None = None,
        holdings: Holdings | None = None,
        around: Surroundings | None = None,
    ) -> None:
        self.policy = policy
        self.slots = slots
        self.busy_share = busy_share
        self.prices = prices or Prices()
        self.holdings = holdings or Holdings()
        self.waiting = 0
        self.running = 0  # taken and not told to have ended
        self._most_replicas = most_replicas
        self._around: Surroundings = around or _Alone(self)
        self._groups: dict[tuple[int, ...], Group] = {}
        self._order: OrderedDict[Group, None] = OrderedDict()  # the group that waits longest for its turn first
        self._of_file: dict[int, OrderedDict[Group, None]] = {}
        self._lanes: dict[str, int] = {}  # nodes that may run these tasks
        self._ready: dict[str, OrderedDict[int, None]] = {}  # node: files that it holds and tasks wait for
        self._wide: OrderedDict[int, None] = OrderedDict()  # such files that very many nodes hold
        self._homeless: OrderedDict[Group, None] = OrderedDict()  # groups nothing of which is held, and some others
        self.stirred: dict[str, None] = {}  # nodes for which there may be something since they were last asked

    # ---- nodes and what they hold

    def add_node(self, node: str, files: Iterable[int] = (), lanes: int = 1) -> None:
        """A node is there that may run these tasks, with what its cache has."""
        self._lanes[node] = lanes
        ready: OrderedDict[int, None] = OrderedDict()
        self._ready[node] = ready
        there = self.holdings.there(node)
        wanted: Iterable[int] = self._of_file if len(self._of_file) < len(there) else there
        for file in [file for file in wanted if file in there and file in self._of_file]:
            if file not in self._wide:
                ready[file] = None
        self.stirred[node] = None
        for file in files:
            self.cached(node, file)

    def drop_node(self, node: str) -> None:
        """A node is gone, and its cache with it."""
        self.leave(node)
        self.holdings.gone(node)

    def leave(self, node: str) -> None:
        """A node may run these tasks no longer."""
        if self._lanes.pop(node, None) is None:
            return
        self.stirred.pop(node, None)
        for file in self._ready.pop(node):
            self._mark_homeless(file)

    def has_node(self, node: str) -> bool:
        """Whether a node may run these tasks."""
        return node in self._lanes

    def cached(self, node: str, file: int) -> None:
        """A node holds a file now."""
        self.holdings.cached(node, (file,))

    def evicted(self, node: str, file: int) -> None:
        """A node has given a file up."""
        self.holdings.evicted(node, (file,))

    def gained(self, node: str, file: int) -> None:
        """As `Holdings` says: a node has a file that tasks wait for."""
        if node in self._lanes:
            self.stirred[node] = None
            if file not in self._wide:
                self._ready[node][file] = None
                if len(self._of_file[file]) == 1:
                    self._homeless.pop(next(iter(self._of_file[file])), None)

    def lost(self, node: str, file: int) -> None:
        """As `Holdings` says: a node has a file no longer."""
        if node in self._lanes:
            self._ready[node].pop(file, None)
            self._mark_homeless(file)

    def _mark_homeless(self, file: int) -> None:
        if not self._homes(file):
            for group in self._of_file.get(file, ()):
                self._homeless[group] = None  # whether other files of it are held is looked at when its turn comes

    def _homes(self, file: int) -> list[str]:
        """Nodes that hold a file and may run these tasks."""
        return [node for node in self.holdings.homes(file) if node in self._lanes]

    def holders(self, file: int) -> frozenset[str]:
        """Who holds a file."""
        return self.holdings.holders(file)

    def wants(self, file: int) -> list[str]:
        """Nodes that a free slot should be looked for on when a task for this file has come."""
        return sorted(self.holdings.homes(file))

    # ---- tasks

    def add(self, task: int, files: int | tuple[int, ...], *, first: bool = False) -> None:
        """A task waits, behind the others of its group, or before them."""
        key = (files,) if isinstance(files, int) else files if len(files) == 1 else tuple(sorted(set(files)))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
            self._order[group] = None
            self._enter(group)
        group.put(task, first=first)
        self.waiting += 1

    def _enter(self, group: Group) -> None:
        held = False
        for file in group.files:
            groups = self._of_file.get(file)
            if groups is not None:
                groups[group] = None
                held = held or bool(self._homes(file))
                continue
            self._of_file[file] = OrderedDict(((group, None),))
            self.holdings.watch(file, self)
            holders = self.holdings.homes(file)
            if len(holders) > WIDE:
                self._wide[file] = None
                held = True
                continue
            for node in holders:
                if node in self._lanes:
                    self._ready[node][file] = None
                    self.stirred[node] = None
                    held = True
        if not held:
            self._homeless[group] = None

    def _drop(self, group: Group) -> None:
        """Nobody of a group waits any more."""
        del self._groups[group.files]
        del self._order[group]
        self._homeless.pop(group, None)
        for file in group.files:
            groups = self._of_file[file]
            del groups[group]
            if groups:
                continue
            del self._of_file[file]
            self.holdings.unwatch(file, self)
            if file in self._wide:
                del self._wide[file]
                continue
            for node in self.holdings.homes(file):
                ready = self._ready.get(node)
                if ready is not None:
                    ready.pop(file, None)

    def withdraw(self, task: int, files: tuple[int, ...]) -> None:
        """A task that waits is not wanted any more."""
        group = self._groups[files if len(files) == 1 else tuple(sorted(set(files)))]
        group.withdraw(task)
        self.waiting -= 1
        if not group.alive:
            self._drop(group)

    def __iter__(self) -> Iterator[int]:
        """All that wait; for checks."""
        return (task for group in self._order for task in group)

    # ---- decisions

    def take(self, node: str) -> Placement | None:
        """Give a free slot of a node a task, or nothing when it should rather wait."""
        group = self.choose(node)
        if group is None:
            return None
        held = not self._lacks(node, group)
        return Placement(self.pop(group)[0], group.files[0], held)

    def ended(self) -> None:
        """A task that was taken has ended."""
        self.running -= 1

    def pop(self, group: Group, most: int = 1) -> list[int]:
        """Take tasks of a group, whose turn is over then: files take turns, so that none holds up the others."""
        taken = [group.pop() for _ in range(min(most, group.alive))]
        self.waiting -= len(taken)
        self.running += len(taken)
        if not group.alive:
            self._drop(group)
            return taken
        self._order.move_to_end(group)
        for file in group.files:
            groups = self._of_file[file]
            if len(groups) > 1:
                groups.move_to_end(group)
            if file in self._wide:
                self._wide.move_to_end(file)
                continue
            for node in self.holdings.homes(file):
                ready = self._ready.get(node)
                if ready is not None and file in ready:
                    ready.move_to_end(file)
        return taken

    def choose(self, node: str, *, ahead: bool = False) -> Group | None:
        """Return the group that a free slot of a node should take a task of; None when it should rather wait.

        Args:
            node: its name.
            ahead: whether the slot has something to do, and this comes next.
        """
        if not self.waiting:
            return None
        policy = self.policy
        if policy in BLIND:
            return next(iter(self._order))
        if policy is Policy.AUTO:
            return (self._ahead(node, ahead=ahead) if self._homeless else None) or self._by_price(node)
        if policy is Policy.MAX_CACHE_HIT:
            return self._held(node) or self._nobodys()
        if policy is Policy.GOOD_CACHE_COMPUTE and self._around.is_busy():
            return self._held(node) or self._nobodys() or self._worth_another_copy()
        return self._oldest(node)

    def held(self, node: str) -> Group | None:
        """A group that needs nothing brought to a node."""
        group = self._held(node)
        return group if group is not None and not self._lacks(node, group) else None

    def _lacks(self, node: str, group: Group) -> int:
        """How many files of a group a node does not hold."""
        there = self.holdings.there(node)
        return sum(file not in there for file in group.files)

    def _held(self, node: str) -> Group | None:
        """The group of which a node lacks least, of some that it holds something of."""
        best, least = None, 0
        there = self.holdings.there(node)
        wide = [file for file in islice(self._wide, LOOK) if file in there] if self._wide else ()
        for file in (*islice(self._ready[node], LOOK), *wide):
            for group in islice(self._of_file[file], LOOK):
                if len(group.files) == 1:
                    return group
                missing = self.holdings.missing_bytes(node, group.files)
                if best is None or missing < least:
                    best, least = group, missing
                    if not missing:
                        return best
        return best

    def _nobodys(self) -> Group | None:
        """A group nothing of which is held by any node that may run it."""
        while self._homeless:
            group = next(iter(self._homeless))
            if not any(self._homes(file) for file in group.files):
                return group
            del self._homeless[group]
        return None

    def _oldest(self, node: str) -> Group | None:
        """The group that waits longest, but for those that another free node holds more of."""
        for group in list(islice(self._order, LOOK)):
            if not self._lacks(node, group):
                return group
            free = [name for file in group.files for name in self._some_homes(file) if self._around.is_free(name)]
            missing = self.holdings.missing_bytes(node, group.files)
            if all(self.holdings.missing_bytes(name, group.files) >= missing for name in free if name != node):
                return group
            self.stirred.update(dict.fromkeys(free))
            self._order.move_to_end(group)
        return None

    def _worth_another_copy(self) -> Group | None:
        """The group that waits longest, when its files have few copies."""
        group = next(iter(self._order))
        copies = min(len(self.holdings.homes(file)) for file in group.files)
        return group if copies < self._most_replicas else None

    def _some_homes(self, file: int) -> Iterator[str]:
        return islice((name for name in self.holdings.homes(file) if name in self._lanes), LOOK)

    def _ahead(self, node: str, *, ahead: bool) -> Group | None:
        """What nobody holds, when the way to a node would else lie idle while its lanes are busy, or wait for it."""
        group = self._held(node)
        if group is None or self.holdings.coming(node) >= AHEAD:
            return None
        there = self.holdings.there(node)
        if not ahead and all(file in there and there[file] is None for file in group.files):
            return None
        group = self._nobodys()
        if group is None:
            return None
        fetch_s = self._around.fetch_s(node, group.files)
        return group if fetch_s != INFINITE and fetch_s <= self._around.elsewhere_s(node, group.files) else None

    def _by_price(self, node: str) -> Group | None:
        """What is here; else what nobody holds; else what its holders would come to later than a copy of it does."""
        group = self._held(node)
        if group is not None and (not self._lacks(node, group) or self.is_worth(node, group)):
            return group
        around = self._around
        group = self._nobodys()
        if group is not None:
            fetch_s = around.fetch_s(node, group.files)
            if fetch_s <= around.elsewhere_s(node, group.files):
                return group
            if fetch_s != INFINITE:
                self._homeless.move_to_end(group)
        for _ in range(min(LOOK_FARTHER, len(self._order))):
            group = next(iter(self._order))
            if group not in self._homeless and self.is_worth(node, group):
                return group
            self._order.move_to_end(group)  # its holders come to it sooner; another is looked at next
        return None

    def is_worth(self, node: str, group: Group) -> bool:
        """Whether a node would have what a group reads sooner than a holder would come to the last task of it."""
        fetch_s = self._around.fetch_s(node, group.files)
        if not fetch_s:
            return True
        if fetch_s == INFINITE:
            return False
        homes = {name for file in group.files for name in self._some_homes(file)}
        homes.discard(node)
        return all(
            fetch_s < self.wait_s(name, group, len(homes)) + self._around.fetch_s(name, group.files) for name in homes
        )

    def wait_s(self, node: str, group: Group, homes: int) -> float:
        """How long a node, one of some that hold a group's files, takes to come to the last task of the group."""
        rounds = group.alive / max(1, homes)
        if self._around.is_free(node):
            rounds = max(0.0, rounds - 1.0)  # it takes one at once
        return self._around.lane_s(node) + rounds * self.turn_s(node)

    def turn_s(self, node: str) -> float:
        """How long a node takes until each file that it holds has had its turn."""
        return max(1, len(self._ready[node])) * self.prices.task_s / self._lanes[node]


class _Alone:
    """What a queue goes by that has no schedule around it: its `Prices`, and what it has given out."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def fetch_s(self, node: str, files: Sequence[int]) -> float:
        there = self._queue.holdings.there(node)
        return self._queue.prices.fetch_s * sum(file not in there for file in files)

    def elsewhere_s(self, node: str, files: Sequence[int]) -> float:
        return INFINITE

    def lane_s(self, node: str) -> float:
        return 0.0

    def is_free(self, node: str) -> bool:
        return False

    def is_busy(self) -> bool:
        return self._queue.running >= self._queue.busy_share * self._queue.slots
