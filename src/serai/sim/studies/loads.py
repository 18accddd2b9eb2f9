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
