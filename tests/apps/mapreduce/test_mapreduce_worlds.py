"""The master in worlds on a virtual clock, from a seed: workers die, hang, come back, are slow, lose what they made."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from serai.apps.mapreduce.events import (
    MAP,
    Asked,
    Cancel,
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
    Tick,
    Waited,
)
from serai.apps.mapreduce.master import Master
from serai.apps.mapreduce.plan import Split
from serai.apps.mapreduce.tasks import Rules
from serai.testing.mapreduce import sanity_check

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT_S = 15.0


@dataclass
class Faults:
    """How bad a world is: chances per order, or per second and worker."""

    dies: float = 0.0
    hangs: float = 0.0
    fails: float = 0.0
    loses_outputs: float = 0.0
    loses_answers: float = 0.0
    slow_workers: float = 0.0


@dataclass
class SimWorker:
    name: str
    host: str
    speed: float
    safe: bool
    dead: bool = False
    hung_until: float = -1.0
    files: dict[str, list[list[tuple[str, int]]]] = field(default_factory=dict)
    told_silent: bool = False
    ask: int = 0
    busy: Order | None = None
    dropped: set[Order] = field(default_factory=set)


class World:
    """One run, from a seed."""

    def __init__(self, seed: int, texts: list[str], partitions: int, workers: int, faults: Faults) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a world from a seed
        self.texts = texts
        self.partitions = partitions
        self.faults = faults
        hosts = ["", "lab1", "lab2"]
        splits = [Split(number, 0, None, self.random.choice([*hosts, None])) for number in range(len(texts))]
        self.master = Master(splits, partitions, Rules(retries=1000))
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.count = itertools.count()
        self.workers: dict[str, SimWorker] = {}
        self.results: dict[int, list[tuple[str, int]]] = {}
        self.located: dict[int, tuple[str, str]] = {}
        self.failed: Fail | None = None
        self.finished = False
        self.given = 0
        self.expected = workers
        for number in range(workers):
            slow = self.random.random() < faults.slow_workers
            worker = SimWorker(f"w{number}", hosts[number % 3], 30.0 if slow else 1.0, safe=number == 0)
            self.workers[worker.name] = worker
            self.later(self.random.random() * 5, lambda worker=worker: self.join(worker))  # type: ignore[misc]
        self.tell(Expecting(workers))
        self.every_half_second()

    # ---- the clock

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (self.now + delay_s, next(self.count), do))

    def run(self, most_steps: int = 200_000) -> None:
        for _ in range(most_steps):
            if self.finished or self.failed:
                return
            self.now, _, do = heapq.heappop(self.heap)
            do()
        raise AssertionError("it never ends")

    def every_half_second(self) -> None:
        for worker in self.workers.values():
            if worker.safe or worker.dead:
                continue
            if self.random.random() < self.faults.dies / 2:
                self.kill(worker)
            elif self.random.random() < self.faults.hangs / 2 and worker.hung_until < self.now:
                worker.hung_until = self.now + self.random.choice([3.0, 20.0, 60.0])
                self.later(SILENT_S, lambda worker=worker: self.silent(worker))  # type: ignore[misc]
                self.later(worker.hung_until - self.now, lambda worker=worker: self.resumed(worker))  # type: ignore[misc]
        self.tell(Tick())
        self.later(0.5, self.every_half_second)

    # ---- workers

    def join(self, worker: SimWorker) -> None:
        self.expected -= 1
        self.tell(Joined(worker.name, worker.host))
        self.tell(Expecting(self.expected))
        self.ask(worker)

    def kill(self, worker: SimWorker) -> None:
        worker.dead = True
        worker.files.clear()
        final = self.random.random() < 0.5
        self.later(0.1 if final else SILENT_S, lambda: self.tell(Gone(worker.name, "it died", final)))

    def silent(self, worker: SimWorker) -> None:
        if worker.hung_until > self.now and not worker.dead:
            self.tell(Gone(worker.name, "it is silent"))

    def resumed(self, worker: SimWorker) -> None:
        if not worker.dead and worker.busy is None:
            self.ask(worker)

    def ask(self, worker: SimWorker) -> None:
        if worker.dead or worker.hung_until > self.now:
            return
        worker.ask += 1
        asked = worker.ask
        self.tell(Asked(worker.name))

        def tired() -> None:
            if worker.ask == asked and worker.busy is None and not worker.dead:
                self.tell(Waited(worker.name))
                self.ask(worker)

        self.later(20.0, tired)

    def give(self, give: Give) -> None:
        worker = self.workers[give.worker]
        self.given += 1
        if worker.dead or worker.hung_until > self.now or self.random.random() < self.faults.loses_answers:
            self.later(21.0, lambda: self.ask(worker) if worker.busy is None else None)
            return
        order = give.order
        worker.busy = order
        located = dict(self.located)
        self.later(self.random.uniform(0.5, 1.5) * worker.speed, lambda: self.work(worker, order, located))

    def work(self, worker: SimWorker, order: Order, located: dict[int, tuple[str, str]]) -> None:
        if worker.dead:
            return
        if worker.hung_until > self.now:  # it goes on where it stopped
            self.later(worker.hung_until - self.now + 0.01, lambda: self.work(worker, order, located))
            return
        worker.busy = None
        if order in worker.dropped:
            self.tell(Failed(worker.name, order, "cancelled"))
        elif self.random.random() < self.faults.fails:
            self.tell(Failed(worker.name, order, "bad luck", (), self.random.random() < 0.5))
        elif order.kind == MAP:
            path = f"{worker.name}/{order.number}.{order.attempt}"
            worker.files[path] = self.mapped(order.number)
            self.tell(Done(worker.name, order, {"path": path}))
            if self.random.random() < self.faults.loses_outputs:
                worker.files.pop(path, None)
        else:
            self.reduce(worker, order, located)
        self.ask(worker)

    def mapped(self, number: int) -> list[list[tuple[str, int]]]:
        runs: list[list[tuple[str, int]]] = [[] for _ in range(self.partitions)]
        for position, word in enumerate(self.texts[number].split()):
            runs[sum(word.encode()) % self.partitions].append((word, number * 1000 + position))
        return [sorted(run, key=lambda pair: pair[0]) for run in runs]

    def reduce(self, worker: SimWorker, order: Order, located: dict[int, tuple[str, str]]) -> None:
        runs, missing = [], []
        for number in range(len(self.texts)):
            holder, path = located[number]
            there = self.workers[holder]
            if path in there.files and not there.dead and there.hung_until < self.now:
                runs.append(there.files[path][order.number])
            else:
                missing.append(number)
        if missing:
            self.tell(Failed(worker.name, order, "cannot fetch", tuple(missing)))
            return
        merged = list(heapq.merge(*runs, key=lambda pair: pair[0]))
        self.tell(Done(worker.name, order, {"pairs": merged}))

    # ---- the master

    def tell(self, event: Event) -> None:
        if self.finished or self.failed:
            return
        actions = self.master.decide(event, self.now)
        sanity_check(self.master)
        for action in actions:
            self.act(action)

    def act(self, action: Any) -> None:
        if isinstance(action, Give):
            if action.order.kind != MAP:
                assert self.master.maps_done == len(self.texts)
                self.located = {n: (one.worker, (one.output or {})["path"]) for n, one in enumerate(self.master.maps)}
            self.give(action)
        elif isinstance(action, Cancel):
            if self.random.random() < 0.7:  # the news may come too late
                self.workers[action.worker].dropped.add(action.order)
        elif isinstance(action, Finish):
            self.finished = True
            self.results = {n: (one.output or {})["pairs"] for n, one in enumerate(self.master.reduces)}
        elif isinstance(action, Fail):
            self.failed = action


# ---- what must hold in every world

WORDS = ["the", "caravan", "rests", "where", "water", "is", "and", "the", "well", "is", "deep"]


def texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)  # noqa: S311 - as above
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 12))) for _ in range(count)]


def expected(world: World) -> dict[int, list[tuple[str, int]]]:
    runs = [world.mapped(number) for number in range(len(world.texts))]
    return {
        partition: sorted((pair for run in runs for pair in run[partition]), key=lambda pair: pair[0])
        for partition in range(world.partitions)
    }


KINDS = {
    "calm": Faults(),
    "deaths": Faults(dies=0.05),
    "hanging": Faults(hangs=0.05),
    "failing": Faults(fails=0.05, loses_answers=0.02),
    "forgetting": Faults(loses_outputs=0.03, dies=0.01),
    "slow": Faults(slow_workers=0.4),
    "all": Faults(dies=0.02, hangs=0.02, fails=0.01, loses_outputs=0.01, loses_answers=0.01, slow_workers=0.2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_the_result_is_the_same(kind: str) -> None:
    for seed in range(60):
        world = World(seed, texts(seed, 1 + seed % 25), 1 + seed % 5, 2 + seed % 6, KINDS[kind])
        world.run()
        assert world.failed is None, f"seed {seed}: {world.failed}"
        assert world.results == expected(world), f"seed {seed}"


def test_a_calm_run_gives_each_task_once() -> None:
    for seed in range(20):
        world = World(seed, texts(seed, 30), 4, 4, Faults())
        world.run()
        assert world.given - 34 <= 3  # at the end idle workers may double what takes long by chance


def test_slow_workers_do_not_hold_a_run_up() -> None:
    """A worker thirty times slower would take a minute for its last split; doubled elsewhere, it takes seconds."""
    for seed in range(30):
        world = World(seed, texts(seed, 20), 3, 4, Faults())
        world.workers["w3"].speed = 100.0
        world.run()
        assert world.now < 40, f"seed {seed}: {world.now}"
