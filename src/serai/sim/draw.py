"""Small worlds drawn from a seed: a little of everything."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from serai.describe.task import Needs
from serai.dispatch.schedule.events import Limits, Retry
from serai.match.movement import Access, Policy
from serai.sim.models import Faults, NodeModel, WorkModel
from serai.sim.world import World

GB = 10**9


def small_world(seed: int, *, check_every: int = 1) -> World:
    """Return the small world of a seed: up to 6 nodes, up to 3 works of some dozens of tasks, and faults."""
    return World(seed, check_every=check_every, **_draw(seed))


def file_world(seed: int, *, check_every: int = 1) -> World:
    """Return the same small world with files that tasks read, caches that may be too small, and nodes that leave."""
    drawn, sizes = _with_files(seed)
    return World(seed, check_every=check_every, most_s=10**7, **drawn).know_files(sizes)


def origin_world(seed: int, *, check_every: int = 1) -> World:
    """Return the same world with files, some of which have origins of their own that some nodes reach."""
    drawn, sizes = _with_files(seed)
    rng = random.Random(f"origins {seed}")  # noqa: S311 - as below
    names = ["store near:9094", "s3 far"][: rng.choice([1, 2])]
    rates = [0.0, 1e4, 1e6, 1e8]  # the first: it is not reached
    nodes = [
        replace(node, origins={name: rate for name in names if (rate := rng.choice(rates))}) for node in drawn["nodes"]
    ]
    origins = [rng.choice(["", *names]) for _ in sizes]
    drawn.update(nodes=nodes)
    return World(seed, check_every=check_every, most_s=10**7, **drawn).know_files(sizes, origins)


def _with_files(seed: int) -> tuple[dict[str, Any], list[int]]:
    drawn = _draw(seed)
    rng = random.Random(f"files {seed}")  # noqa: S311 - as below
    sizes = [rng.choice([1000, 10**5, 10**6, 4 * 10**6]) for _ in range(rng.choice([1, 5, 40]))]
    cache = rng.choice([0, 0, 10**6, 10**7])
    mounts = rng.choice([0.0, 0.5, 1.0])
    nodes = [replace(node, cache_bytes=cache, mounts=rng.random() < mounts) for node in drawn["nodes"]]
    works = [
        replace(work, reads=_reads(rng, work.tasks, len(sizes)), fraction=rng.choice([0.01, 0.5, 1.0]))
        if rng.random() < 0.8
        else work
        for work in drawn["works"]
    ]
    limits = replace(
        drawn["limits"],
        policy=rng.choice([Policy.AUTO, Policy.AUTO, *Policy]),
        access=rng.choice(list(Access)),
        transfers=rng.choice([1, 2, 8]),
        replicas=rng.choice([1, 4]),
        busy_share=rng.choice([0.1, 0.9]),
    )
    faults = replace(drawn["faults"], leaves=rng.choice([0, 0, 1, 3]))
    drawn.update(nodes=nodes, works=works, limits=limits, faults=faults)
    return drawn, sizes


def _reads(rng: random.Random, tasks: int, files: int) -> dict[int, tuple[int, ...]]:
    most = rng.choice([1, 1, 2, 4])
    some = rng.choice([0.5, 1.0])
    return {
        position: tuple(rng.randint(1, files) for _ in range(rng.randint(1, most)))
        for position in range(tasks)
        if rng.random() < some
    }


def _draw(seed: int) -> dict[str, Any]:
    rng = random.Random(f"world {seed}")  # noqa: S311 - a simulation wants a seed, not secrecy
    nodes = _nodes(rng)
    works = [_work(rng) for _ in range(rng.randint(1, 3))]
    faults = Faults()
    if rng.random() < 0.85:
        faults = Faults(
            deaths=rng.randint(0, 4),
            hangs=rng.randint(0, 3),
            lane_deaths=rng.randint(0, 4),
            slow=rng.randint(0, 3),
            cancels=rng.choice([0, 0, 1, 4]),
            probe_loss=rng.choice([0.0, 0.0, 0.3]),
            within_s=rng.choice([2.0, 10.0, 40.0]),
            away_s=rng.choice([0.5, 5.0, 90.0]),
        )
    limits = Limits(
        bundle_tasks=rng.choice([1, 5, 1000]),
        depth=rng.choice([1, 2, 2, 2, 3]),
        replicate_after_s=rng.choice([1.0, 5.0, 60.0]),
    )
    silence_s = rng.choice([5.0, 15.0, 100.0])
    return {"nodes": nodes, "works": works, "faults": faults, "limits": limits, "silence_s": silence_s}


def _nodes(rng: random.Random) -> list[NodeModel]:
    nodes = []
    shared = rng.random() < 0.5
    for number in range(rng.randint(1, 6)):
        first = number == 0  # it can run everything, so that every task can end
        nodes.append(
            NodeModel(
                f"n{number}",
                "all" if shared else f"s{number // 2}",
                slots=4 if first else rng.randint(1, 4),
                memory_bytes=4 * GB if first else rng.choice([0, 2 * GB, 8 * GB]),
                rtt_s=rng.choice([0.0002, 0.02, 0.2]),
                bandwidth_bps=rng.choice([1e5, 1e8]),
                speed=rng.choice([0.3, 1.0, 1.0, 2.0]),
                software=frozenset(["blast"]) if first or rng.random() < 0.5 else frozenset(),
                breaks=0.0 if first else rng.choice([0.0, 0.0, 0.0, 0.05, 1.0]),
                up_at_s=0.0 if rng.random() < 0.7 else rng.uniform(0.0, 10.0),
            )
        )
    return nodes


def _work(rng: random.Random) -> WorkModel:
    tasks = rng.randint(1, 60)
    kind = rng.random()
    needs = Needs()
    if kind < 0.15:
        needs = Needs(cores=rng.randint(2, 4))
    elif kind < 0.3:
        needs = Needs(cores=rng.randint(1, 2), memory_bytes=rng.choice([1, 3]) * GB)
    elif kind < 0.45:
        needs = Needs(software=("blast",))
    return WorkModel(
        tasks,
        takes_s=rng.choice([0.001, 0.05, 0.5, 5.0]),
        spread=rng.choice([0.0, 0.9]),
        needs=needs,
        retry=Retry(times=rng.randint(0, 3), first_s=rng.choice([0.1, 1.0]), most_s=10.0),
        fails={position: rng.randint(1, 3) for position in range(tasks) if rng.random() < 0.05},
        poison={rng.randrange(tasks): rng.choice(["lane", "node"])} if rng.random() < 0.1 else {},
        function=rng.random() < 0.4,
        added_at_s=0.0 if rng.random() < 0.7 else rng.uniform(0.0, 10.0),
    )
