"""Replays a trace of a workflow on simulated nodes, with the queue that production decides by.

A task begins once its parents have ended, its node has the cores, and its inputs are there: from the node's cache, from
another node's, or from the front end, over links that serve one transfer after the other. Outputs go to the front end,
as in production, and stay in the cache of their node.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.dispatch.schedule.files.diffusion import Queue
from serai.dispatch.schedule.files.groups import Prices
from serai.dispatch.schedule.files.holdings import Holdings
from serai.errors import UsageError
from serai.match.movement import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.sim.studies.traces import Trace

__all__ = ["Nodes", "Replayed", "replay"]

BUSY = 0.9
FRONT_END = ""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where a trace is replayed.

    Attributes:
        count: of nodes.
        cores: of each.
        cache_bytes: of each.
        link_bytes_s: of each, and of the front end, each way.
        latency_s: of a transfer.
    """

    count: int = 4
    cores: int = 4
    cache_bytes: int = 100_000_000_000
    link_bytes_s: float = 125e6
    latency_s: float = 0.001


@dataclass(slots=True)
class Replayed:
    """How a trace went.

    Attributes:
        policy: see `Policy`.
        completion_s: when the last task had ended.
        moved_bytes: over links, outputs included.
        from_front_end_bytes: of them, inputs that came from the front end.
        from_peers_bytes: of them, inputs that came from other nodes.
        here_bytes: inputs that were there already.
        busy_core_s: for which cores were held.
        run_core_s: for which they computed.
    """

    policy: Policy
    completion_s: float = 0.0
    moved_bytes: int = 0
    from_front_end_bytes: int = 0
    from_peers_bytes: int = 0
    here_bytes: int = 0
    busy_core_s: float = 0.0
    run_core_s: float = 0.0


class _Node:
    """A node, or the front end: its links and what it keeps, what was used longest ago first."""

    def __init__(self, cores: int) -> None:
        self.free = cores
        self.in_free_s = 0.0
        self.out_free_s = 0.0
        self.kept: OrderedDict[int, float] = OrderedDict()  # a file, and when it is there
        self.used = 0
        self.pins: dict[int, int] = {}


class _Replay:
    def __init__(self, trace: Trace, policy: Policy, nodes: Nodes) -> None:
        self._trace, self._nodes = trace, nodes
        self._numbers = {name: n for n, name in enumerate(trace.sizes)}
        self._sizes = list(trace.sizes.values())
        self._caches = policy is not Policy.FIRST_AVAILABLE
        self._children: list[list[int]] = [[] for _ in trace.tasks]
        self._left = [len(task.parents) for task in trace.tasks]
        for n, task in enumerate(trace.tasks):
            for parent in task.parents:
                self._children[parent].append(n)
        self._places = {f"n{n:04}": _Node(nodes.cores) for n in range(nodes.count)}
        self._front_end = _Node(0)
        self._holdings = Holdings()
        self._holdings.add(range(len(self._sizes)), self._sizes)
        mean_s = sum(task.runtime_s for task in trace.tasks) / len(trace.tasks)
        self._queues: dict[int, Queue] = {}  # by the cores of their tasks
        for cores in sorted({task.cores for task in trace.tasks}, reverse=True):
            queue = Queue(policy, prices=Prices(task_s=mean_s), holdings=self._holdings, around=self)
            for name in self._places:
                queue.add_node(name, lanes=nodes.cores // cores)
            self._queues[cores] = queue
        self._running = 0
        self._now = 0.0
        self._happenings: list[tuple[float, int, str, int]] = []
        self._sequence = 0
        self.result = Replayed(policy)

    def run(self) -> Replayed:
        for n, count in enumerate(self._left):
            if not count:
                self._offer(n)
        self._place()
        while self._happenings:
            self._now, _, name, task = heapq.heappop(self._happenings)
            self._end(name, task)
            self._place()
        self.result.completion_s = self._now
        return self.result

    # ---- what the queues ask

    def fetch_s(self, node: str, files: Sequence[int]) -> float:
        kept = self._places[node].kept
        each = (self._nodes.latency_s + self._sizes[n] / self._nodes.link_bytes_s for n in files if n not in kept)
        return sum(each)

    def elsewhere_s(self, node: str, files: Sequence[int]) -> float:
        return math.inf

    def lane_s(self, node: str) -> float:
        return 0.0

    def is_free(self, node: str) -> bool:
        return self._places[node].free > 0

    def is_busy(self) -> bool:
        return self._running >= BUSY * self._nodes.count * self._nodes.cores

    # ---- tasks

    def _offer(self, n: int) -> None:
        task = self._trace.tasks[n]
        self._queues[task.cores].add(n, tuple(self._numbers[name] for name in task.inputs))

    def _place(self) -> None:
        """Give free nodes tasks: first those that something has come to, then all in turn, the freest first."""
        for queue in self._queues.values():
            for name in list(queue.stirred):
                del queue.stirred[name]
                while self._place_on(name):
                    pass
        while any(self._place_on(name) for name in sorted(self._places, key=lambda name: -self._places[name].free)):
            pass
        if not self._happenings and any(queue.waiting for queue in self._queues.values()):
            raise AssertionError("tasks wait, and nothing runs")

    def _place_on(self, name: str) -> bool:
        for cores, queue in self._queues.items():
            if queue.waiting and self._places[name].free >= cores:
                group = queue.choose(name)
                if group is not None:
                    self._begin(name, queue.pop(group)[0])
                    return True
        return False

    def _begin(self, name: str, n: int) -> None:
        task, place = self._trace.tasks[n], self._places[name]
        there_s = self._now
        files = list(dict.fromkeys(self._numbers[one] for one in task.inputs))
        for file in files:
            there_s = max(there_s, self._bring(name, file))
            place.pins[file] = place.pins.get(file, 0) + 1
        place.free -= task.cores
        self._running += task.cores
        end_s = there_s + task.runtime_s
        self.result.run_core_s += task.cores * task.runtime_s
        self.result.busy_core_s += task.cores * (end_s - self._now)
        self._sequence += 1
        heapq.heappush(self._happenings, (end_s, self._sequence, name, n))

    def _end(self, name: str, n: int) -> None:
        """A task has computed, or its outputs have come: two happenings of which the second ends it."""
        if n < 0:
            self._outputs_came(-n - 1)
            return
        task, place = self._trace.tasks[n], self._places[name]
        place.free += task.cores
        self._running -= task.cores
        self._queues[task.cores].ended()
        for file in dict.fromkeys(self._numbers[one] for one in task.inputs):
            place.pins[file] -= 1
        there_s = self._now
        for one in task.outputs:
            file = self._numbers[one]
            there_s = max(there_s, self._transfer(place, self._front_end, self._sizes[file], self._now))
            if self._caches:
                self._keep(name, file, self._now)
        self._sequence += 1
        heapq.heappush(self._happenings, (there_s, self._sequence, name, -n - 1))

    def _outputs_came(self, n: int) -> None:
        for child in self._children[n]:
            self._left[child] -= 1
            if not self._left[child]:
                self._offer(child)

    # ---- files

    def _bring(self, name: str, file: int) -> float:
        """Have a file on a node; returns when it is there."""
        place, size = self._places[name], self._sizes[file]
        if file in place.kept:
            place.kept.move_to_end(file)
            self.result.here_bytes += size
            return max(self._now, place.kept[file])
        holders = [self._places[one] for one in sorted(self._holdings.holders(file)) if one != name]
        peer = min(holders, key=lambda one: one.out_free_s, default=None) if self._caches else None
        if peer is not None and max(peer.out_free_s, peer.kept[file]) <= max(self._now, self._front_end.out_free_s):
            source, begin_s = peer, max(self._now, peer.kept[file])
            self.result.from_peers_bytes += size
        else:
            source, begin_s = self._front_end, self._now
            self.result.from_front_end_bytes += size
        there_s = self._transfer(source, place, size, begin_s)
        if self._caches:
            self._keep(name, file, there_s)
        return there_s

    def _transfer(self, source: _Node, target: _Node, size: int, begin_s: float) -> float:
        sent_s = max(begin_s, source.out_free_s, target.in_free_s) + size / self._nodes.link_bytes_s
        source.out_free_s = target.in_free_s = sent_s
        self.result.moved_bytes += size
        return sent_s + self._nodes.latency_s

    def _keep(self, name: str, file: int, there_s: float) -> None:
        place, size = self._places[name], self._sizes[file]
        if file in place.kept:
            return
        over = place.used + size - self._nodes.cache_bytes
        for old in [old for old in place.kept if not place.pins.get(old)] if over > 0 else ():
            if place.used + size <= self._nodes.cache_bytes:
                break
            del place.kept[old]
            place.used -= self._sizes[old]
            self._holdings.evicted(name, (old,))
        if place.used + size <= self._nodes.cache_bytes:
            place.kept[file] = there_s
            place.used += size
            self._holdings.cached(name, (file,))


def replay(trace: Trace, policy: Policy, nodes: Nodes) -> Replayed:
    """Replay a trace under a policy; the same every time.

    Raises:
        UsageError: a task wants more cores than any node has.
    """
    wide = max(trace.tasks, key=lambda task: task.cores)
    if wide.cores > nodes.cores:
        raise UsageError(
            f"the task {wide.id!r} takes {wide.cores} cores, and a node has {nodes.cores}", hint="give --cores"
        )
    return _Replay(trace, policy, nodes).run()
