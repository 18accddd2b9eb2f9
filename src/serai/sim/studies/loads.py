"""What arrives: tasks that each read one file and then compute."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Load", "mixed", "rising"]

STEPS = 24  # of arrival rates
STEP_S = 60.0
GROWTH = 1.3  # of the rate from one step to the next
MOST_PER_S = 1000
TASKS = 250_000
FILES = 10_000
FILE_BYTES = 10_000_000
COMPUTE_S = 0.010


@dataclass(frozen=True, slots=True)
class Load:
    """Tasks in the order in which they arrive.

    Attributes:
        name: what it is called in tables.
        arrivals_s: when each task arrives.
        files: the number of the file that each reads.
        sizes: of each file, in bytes.
        compute_s: how long each computes.
    """

    name: str
    arrivals_s: Sequence[float]
    files: Sequence[int]
    sizes: Sequence[int]
    compute_s: Sequence[float]

    @property
    def ideal_s(self) -> float:
        """When the last task arrives: nobody can be ready much sooner."""
        return self.arrivals_s[-1]

    @property
    def tasks(self) -> int:
        """How many."""
        return len(self.arrivals_s)


def rising(seed: int, scale: float = 1.0) -> Load:
    """The load of the data diffusion experiment: arrivals rise in 24 steps of a minute from 1/s to 1,000/s.

    Of Raicu et al., "The Quest for Scalable Support of Data-Intensive Workloads in Distributed Systems" (2009). Each of
    250,000 tasks reads one of 10,000 files of 10 MB, drawn evenly, and computes 10 ms.

    Args:
        seed: of what is read.
        scale: 1 for all of it; 1/8 for an eighth of the tasks, files and rates.
    """
    tasks = round(TASKS * scale)
    arrivals: list[float] = []
    rate, step = 1, 0
    while len(arrivals) < tasks:
        count = max(1, round(rate * STEP_S * scale))
        arrivals += [step * STEP_S + i * STEP_S / count for i in range(min(count, tasks - len(arrivals)))]
        rate = min(math.ceil(rate * GROWTH), MOST_PER_S) if step + 1 < STEPS else MOST_PER_S
        step += 1
    files = max(1, round(FILES * scale))
    draw = random.Random(seed)  # noqa: S311 - a load is drawn, not a secret
    reads = [draw.randrange(files) for _ in range(tasks)]
    return Load("rising", arrivals, reads, [FILE_BYTES] * files, [COMPUTE_S] * tasks)


def mixed(seed: int, scale: float = 1.0) -> Load:
    """A load on which no rule for all tasks is right: each of four kinds wants another.

    * Many short tasks over a working set that only all caches together hold: they should wait for their holders.
    * Crowds on one file that has just appeared: it should spread at once, over more nodes than a bound allows.
    * Long computations over small files: a node should never idle for the sake of a copy.
    * Large files that are read again and again: another copy is seldom worth its time.

    Args:
        seed: of what is read and when.
        scale: as of `rising`.
    """
    draw = random.Random(seed)  # noqa: S311 - a load is drawn, not a secret
    sizes: list[int] = []
    tasks: list[tuple[float, int, float]] = []
    span_s = 600.0

    def some(count: float, size: int) -> range:
        first = len(sizes)
        sizes.extend([size] * max(1, round(count * scale)))
        return range(first, len(sizes))

    def arrive(count: float, files: range, compute_s: float, begin_s: float, for_s: float) -> None:
        tasks.extend(
            (begin_s + draw.random() * for_s, draw.choice(files), compute_s)
            for _ in range(max(1, round(count * scale)))
        )

    arrive(60_000, some(6_000, 10_000_000), 0.050, 0.0, span_s)
    for burst in range(6):
        arrive(3_000, some(1, 20_000_000), 0.500, 60.0 + burst * 90.0, 5.0)
    arrive(6_000, some(2_000, 1_000_000), 4.0, 0.0, span_s)
    arrive(40_000, some(300, 300_000_000), 0.050, 0.0, span_s)
    tasks.sort()
    return Load(
        "mixed", [at for at, _, _ in tasks], [file for _, file, _ in tasks], sizes, [compute for _, _, compute in tasks]
    )
