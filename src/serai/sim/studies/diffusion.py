"""The data diffusion experiment: a rising load of short tasks over nodes that keep what they have read.

The world of the source is modelled (nodes are asked for as tasks queue up, caches fill, files come from the shared file
system or from other nodes); what is decided is decided by `serai.dispatch.schedule.files.diffusion`, as in production.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.dispatch.schedule.files.diffusion import Queue
from serai.dispatch.schedule.files.groups import Prices
from serai.match.movement import Policy
from serai.sim.studies.cluster import Cluster, Node, SharedFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.sim.studies.loads import Load

__all__ = ["Moment", "Outcome", "World", "run"]

SAMPLES = 240  # of a time line, about
LEARNT = 0.1  # how much the newest transfer counts for the price of the next
BUSY = 0.9


@dataclass(slots=True)
class Moment:
    """What happened in one span of a time line, and how things stood at its end.

    Attributes:
        at_s: its end.
        local: tasks whose file was on their node.
        peer: tasks whose file came from another node.
        missed: tasks whose file came from the shared file system.
        read_bytes: by tasks that began.
        queue: tasks that wait.
        nodes: that are there.
        running: tasks.
    """

    at_s: float
    local: int = 0
    peer: int = 0
    missed: int = 0
    read_bytes: int = 0
    queue: int = 0
    nodes: int = 0
    running: int = 0


@dataclass(slots=True)
class Outcome:
    """How a load went under a policy.

    Attributes:
        policy: see `Policy`.
        cache_bytes: of each node.
        load: its name.
        tasks: how many.
        completion_s: when the last task ended.
        ideal_s: when the last task came.
        local: tasks whose file was on their node.
        peer: tasks whose file came from another node.
        missed: tasks whose file came from the shared file system.
        waited_s: from when a task came until it ended, the mean.
        most_queued: tasks that waited at the worst moment.
        busy_slot_s: for which slots were taken.
        slot_s: for which slots were there.
        moments: over time.
    """

    policy: Policy
    cache_bytes: int
    load: str
    tasks: int
    completion_s: float
    ideal_s: float
    local: int = 0
    peer: int = 0
    missed: int = 0
    waited_s: float = 0.0
    most_queued: int = 0
    busy_slot_s: float = 0.0
    slot_s: float = 0.0
    moments: list[Moment] = field(default_factory=list)

    @property
    def efficiency(self) -> float:
        """The ideal time over the time it took."""
        return self.ideal_s / self.completion_s

    def share(self, kind: str) -> float:
        """Of tasks: ``local``, ``peer`` or ``missed``."""
        return float(getattr(self, kind)) / self.tasks


class World:
    """One run of a load under one policy.

    Args:
        policy: which decides.
        load: what arrives.
        cluster: where it runs.
    """

    def __init__(self, policy: Policy, load: Load, cluster: Cluster) -> None:
        self._load = load
        self._cluster = cluster
        self._sizes = list(load.sizes)
        self._caches = policy is not Policy.FIRST_AVAILABLE
        self._shared = SharedFiles(cluster)
        self._prices = Prices(task_s=cluster.dispatch_s)
        self._queue = Queue(policy, prices=self._prices, around=self)
        self._fetch_late_s = 0.0  # what a transfer takes beyond the time of the node's link
        self._nodes: dict[str, Node] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._outside: deque[int] = deque()  # tasks beyond the window
        self._happenings: list[tuple[float, int, str, bool]] = []
        self._sequence = 0
        self._asked = 0
        self._next_ask_s = 0.0
        self._next_sample_s = 0.0
        self._now = 0.0
        self._ended = 0
        self._moment = Moment(0.0)
        self.outcome = Outcome(policy, cluster.cache_bytes, load.name, load.tasks, 0.0, load.ideal_s)

    def run(self) -> Outcome:
        """Run the load to its end."""
        arrivals, happenings = self._load.arrivals_s, self._happenings
        every_s = max(1.0, self._load.ideal_s / SAMPLES)
        self._next_sample_s = every_s
        self._ask()
        next_task = 0
        while self._ended < len(arrivals):
            if next_task < len(arrivals) and (not happenings or arrivals[next_task] <= happenings[0][0]):
                self._now = arrivals[next_task]
                self._arrives(next_task)
                next_task += 1
            else:
                self._now, _, name, joins = heapq.heappop(happenings)
                self._joins(name) if joins else self._ends(name)
            if self._now >= self._next_sample_s:
                self._sample()
                self._next_sample_s = self._now + every_s
        self._sample()
        self.outcome.completion_s = self._now
        return self.outcome

    # ---- what the queue asks

    def fetch_s(self, node: str, files: Sequence[int]) -> float:
        """What a node pays for files that it may lack."""
        there, price_s = self._nodes[node].cache, 0.0
        for file in files:
            if file not in there:
                price_s += self._fetch_late_s + self._sizes[file] / self._cluster.link_bytes_s
        return price_s

    def elsewhere_s(self, node: str, files: Sequence[int]) -> float:
        """All nodes are equally far from the shared file system."""
        return math.inf

    def lane_s(self, node: str) -> float:
        """What a node runs is short."""
        return 0.0

    def is_free(self, node: str) -> bool:
        """Whether a node could take a task right now."""
        return node in self._idle

    def is_busy(self) -> bool:
        """Whether `Policy.GOOD_CACHE_COMPUTE` waits for holders."""
        return self._queue.running >= BUSY * len(self._nodes) * self._cluster.slots

    # ---- what happens

    def _arrives(self, task: int) -> None:
        if self._outside or self._queue.waiting >= self._cluster.window:
            self._outside.append(task)
        else:
            self._offer(task)
        waiting = self._queue.waiting + len(self._outside)
        self.outcome.most_queued = max(self.outcome.most_queued, waiting)
        if self._now >= self._next_ask_s and waiting > len(self._nodes) * self._cluster.slots:
            self._ask()
            self._next_ask_s = self._now + self._cluster.ask_every_s

    def _offer(self, task: int) -> None:
        """A task is seen by the scheduler; a free node that has its file is asked first."""
        file = self._load.files[task]
        self._queue.add(task, file)
        if not self._idle:
            return
        if self._queue.policy is not Policy.FIRST_AVAILABLE and self._queue.policy is not Policy.FIRST_CACHE_AVAILABLE:
            for name in self._queue.wants(file):
                if name in self._idle and self._start(name):
                    return
        self._start(next(iter(self._idle)))

    def _ask(self) -> None:
        if self._asked < self._cluster.nodes:
            self._happens(self._now + self._cluster.boot_s, f"n{self._asked:03}", joins=True)
            self._asked += 1

    def _joins(self, name: str) -> None:
        self._nodes[name] = Node(name, self._cluster)
        self._queue.add_node(name, lanes=self._cluster.slots)
        self._idle[name] = None
        self._fill(name)

    def _ends(self, name: str) -> None:
        self._queue.ended()
        self._ended += 1
        self._nodes[name].free += 1
        self._idle[name] = None
        self._fill(name)
        if self._queue.waiting and self._idle:
            # What a cache has given up may be for any node now; they are asked in turn.
            for stirred in list(self._queue.stirred):
                del self._queue.stirred[stirred]
                if stirred in self._idle:
                    self._start(stirred)
            other = next(iter(self._idle), None)
            if other is not None and not self._start(other):
                self._idle.move_to_end(other)
            if not self._happenings:
                for rest in list(self._idle):
                    self._fill(rest)

    def _fill(self, name: str) -> None:
        while name in self._idle and self._start(name):
            pass
        while self._outside and self._queue.waiting < self._cluster.window:
            self._offer(self._outside.popleft())

    def _happens(self, at_s: float, name: str, *, joins: bool = False) -> None:
        self._sequence += 1
        heapq.heappush(self._happenings, (at_s, self._sequence, name, joins))

    # ---- a task begins

    def _start(self, name: str) -> bool:
        placed = self._queue.take(name)
        if placed is None:
            return False
        node, size = self._nodes[name], self._sizes[placed.file]
        self._moment.read_bytes += size
        if self._caches and placed.file in node.cache:
            self._moment.local += 1
            read = node.read(placed.file, size, self._now)
            self._learn_task(read - self._now + self._load.compute_s[placed.task])
        else:
            read = self._fetch(node, placed.file, size)
            self._learn_fetch(size, read - self._now)
        end = read + self._load.compute_s[placed.task] + self._cluster.dispatch_s
        self.outcome.busy_slot_s += end - self._now
        self.outcome.waited_s += (end - self._load.arrivals_s[placed.task]) / self._load.tasks
        node.free -= 1
        if not node.free:
            del self._idle[name]
        self._happens(end, name)
        return True

    def _learn_task(self, took_s: float) -> None:
        self._prices.task_s += LEARNT * (took_s - self._prices.task_s)

    def _learn_fetch(self, size: int, took_s: float) -> None:
        """The part that grows with size is that of the node's link; what is beyond it is latency and waiting."""
        late_s = max(0.0, took_s - size / self._cluster.link_bytes_s)
        self._fetch_late_s += LEARNT * (late_s - self._fetch_late_s)

    def _fetch(self, node: Node, file: int, size: int) -> float:
        """Bring a file from another node, else from the shared file system, as the source did; returns when."""
        now = self._now
        holders = [self._nodes[name] for name in self._queue.holders(file) if name != node.name] if self._caches else []
        holder = min(holders, key=lambda one: (one.out_free_s, one.name), default=None)
        if holder is not None and file in holder.cache:
            begin = max(now, holder.cache[file])
            self._moment.peer += 1
            return self._keep(node, file, size, node.fetch(holder, size, begin))
        self._moment.missed += 1
        there = self._shared.read(node, size, now)
        return self._keep(node, file, size, there) if self._caches else there

    def _keep(self, node: Node, file: int, size: int, there_s: float) -> float:
        for old in node.keep(file, size, there_s, self._sizes):
            self._queue.evicted(node.name, old)
        if file in node.cache:
            self._queue.cached(node.name, file)
        return there_s

    def _sample(self) -> None:
        moment, outcome = self._moment, self.outcome
        before = outcome.moments[-1].at_s if outcome.moments else 0.0
        moment.at_s = self._now
        moment.queue = self._queue.waiting + len(self._outside)
        moment.nodes = len(self._nodes)
        moment.running = self._queue.running
        outcome.moments.append(moment)
        outcome.local += moment.local
        outcome.peer += moment.peer
        outcome.missed += moment.missed
        outcome.slot_s += moment.nodes * self._cluster.slots * (moment.at_s - before)
        self._moment = Moment(0.0)


def run(policy: Policy, load: Load, cluster: Cluster) -> Outcome:
    """Run a load under a policy; the same every time."""
    return World(policy, load, cluster).run()
