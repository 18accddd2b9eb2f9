"""How fast the schedule places tasks that read files, and whether that stays so as its queue grows.

A thousand executors, a million tasks, ten thousand files; nothing is real but the schedule. Executors are a heap of
times at which they report; each report is told and decided by itself, as if no two ever came together, which is the
dearest case. ``--bundles`` lets the schedule bundle tasks as it would in a run.

    python benchmarks/studies/decisions.py [--tasks N] [--nodes N] [--files N] [--policy NAME] [--bundles] [--sites N]
                                            [--rank EXPRESSION]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import resource
import sys
import time
from collections import OrderedDict

from serai.describe.task import Needs
from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.machine import Schedule
from serai.match.movement import Policy, Way

FILE_BYTES = 10_000_000
TASK_S = 0.05
RATE_BYTES_S = 100e6
STEP = 100_000


class Drive:
    """Drives a schedule over executors that are numbers only.

    Args:
        given: the command's arguments.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        limits = ev.Limits(policy=Policy(given.policy), bundle_tasks=1000 if given.bundles else 1)
        self.schedule = Schedule(limits, random.Random(1))
        self.given = given
        self.now = 0.0
        self.busy_s = 0.0  # of this processor, inside the schedule
        self.placed = 0
        self.held = 0
        self.bundles = 0
        self._heap: list[tuple[float, int, ev.Assign]] = []
        self._lane_free: dict[tuple[str, int], float] = {}
        self._cache: dict[str, OrderedDict[int, None]] = {}
        self._pushed = itertools.count()

    def tell(self, *events: ev.Event) -> None:
        """Tell the schedule, let it decide, and carry out what it says."""
        began = time.process_time()
        for event in events:
            self.schedule.tell(event, self.now)
        actions = self.schedule.decide(self.now)
        self.busy_s += time.process_time() - began
        for action in actions:
            if type(action) is ev.Assign:
                self._assigned(action)

    def _assigned(self, assign: ev.Assign) -> None:
        self.placed += len(assign.tasks)
        self.bundles += 1
        fetch_s = 0.0
        for move in assign.moves:
            if move.way == Way.HERE:
                self.held += 1
            elif move.way == Way.STAGE:
                fetch_s += FILE_BYTES / RATE_BYTES_S
        lane = (assign.node, assign.lane)
        ends = max(self.now, self._lane_free.get(lane, 0.0)) + fetch_s + TASK_S * len(assign.tasks)
        self._lane_free[lane] = ends
        heapq.heappush(self._heap, (ends, next(self._pushed), assign))

    def set_up(self) -> None:
        """Nodes check in, files are known."""
        given = self.given
        work = ev.WorkAdded(1, Needs(rank=given.rank), ev.Retry())
        self.tell(ev.FilesAdded(range(given.files), [FILE_BYTES] * given.files), work)
        for number in range(given.nodes):
            site = f"s{number % given.sites}" if given.sites else f"n{number}"
            self._cache[f"n{number}"] = OrderedDict()
            self.tell(ev.NodeUp(f"n{number}", site, 1, 0, {"python": (3, 12)}))
        draw = random.Random(0)
        for file in range(given.files):
            for node in draw.sample(range(given.nodes), min(given.copies, given.nodes)):
                self._cache[f"n{node}"][file] = None
        for name, cache in self._cache.items():
            self.tell(ev.Cached(name, list(cache)))

    def add(self, first: int, count: int) -> None:
        """Tasks are there, each with one file, or two."""
        draw = random.Random(first)
        inputs = [tuple(draw.sample(range(self.given.files), self.given.inputs)) for _ in range(count)]
        self.tell(ev.TasksAdded(1, range(first, first + count), inputs=inputs))

    def run_until(self, done: int) -> None:
        """Executors report, one after the other, until so many tasks have ended."""
        schedule = self.schedule
        while schedule.done < done:
            wake = schedule.wake_at(self.now)
            if not self._heap or (wake < self._heap[0][0] and self.given.ticks):
                self.now = max(wake, self.now + 1e-6)
                self.tell(ev.Tick())
                continue
            self.now, _, assign = heapq.heappop(self._heap)
            report = ev.Report(
                assign.node, assign.lane, assign.bundle, assign.tasks, None, [int(TASK_S * 1e6)] * len(assign.tasks),
                last=True,
            )  # fmt: skip
            self.tell(*self._arrivals(assign), report)

    def _arrivals(self, assign: ev.Assign) -> list[ev.Event]:
        """What the node's cache tells: files that came, and what left for them."""
        cache = self._cache[assign.node]
        events: list[ev.Event] = []
        for move in assign.moves:
            if move.file in cache:
                cache.move_to_end(move.file)
            elif move.way == Way.STAGE:
                cache[move.file] = None
                took_s = FILE_BYTES / RATE_BYTES_S
                events.append(ev.Moved(assign.node, move.file, move.source, FILE_BYTES, took_s))
                if len(cache) > self.given.cache:
                    gone, _ = cache.popitem(last=False)
                    events.append(ev.Evicted(assign.node, [gone]))
        return events


def main() -> None:
    """Run the study and print a line for each 100,000 tasks, then one of JSON."""
    asks = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    asks.add_argument("--tasks", type=int, default=1_000_000)
    asks.add_argument("--nodes", type=int, default=1000)
    asks.add_argument("--files", type=int, default=10_000)
    asks.add_argument("--inputs", type=int, default=1, help="files that each task reads")
    asks.add_argument("--cache", type=int, default=100, help="files that a node's cache holds")
    asks.add_argument("--copies", type=int, default=2, help="of each file, in caches when it begins")
    asks.add_argument("--sites", type=int, default=0, help="0: each node is its own site")
    asks.add_argument("--policy", default=Policy.AUTO.value, choices=[one.value for one in Policy])
    asks.add_argument("--rank", default="", help="a ClassAd expression: which nodes the tasks want most")
    asks.add_argument("--bundles", action="store_true", help="let tasks travel together")
    asks.add_argument("--ticks", action="store_true", help="let the clock wake the schedule between reports")
    given = asks.parse_args()
    drive = Drive(given)
    drive.set_up()
    empty_mb = memory_mb()
    added_s = drive.busy_s
    for first in range(1, given.tasks + 1, STEP):
        drive.add(first, min(STEP, given.tasks - first + 1))
    print(f"{given.tasks:,} tasks added in {drive.busy_s - added_s:.1f} s; {memory_mb() - empty_mb:.0f} MB for them")
    rates = []
    for mark in range(STEP, given.tasks + 1, STEP):
        began, placed, held = drive.busy_s, drive.placed, drive.held
        drive.run_until(mark)
        rate = (drive.placed - placed) / (drive.busy_s - began)
        rates.append(round(rate))
        share = (drive.held - held) / max(1, drive.placed - placed) / given.inputs
        queued = drive.schedule.statistics().queued
        print(f"{mark:>9,} done, {queued:>9,} wait: {rate:>8,.0f} placements/s, {share:.0%} of inputs were there")
        sys.stdout.flush()
    print(json.dumps({"rates": rates, "bundles": drive.bundles, "memory_mb": memory_mb(), "virtual_s": drive.now}))


def memory_mb() -> float:
    """The most memory that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
