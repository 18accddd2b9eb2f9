"""What it costs to bring a task and what it reads together: the job moves, the data moves, or it is read from afar.

The named policies are Falkon's (Raicu, Zhao, Foster and Szalay, "Accelerating Large-Scale Data Exploration through Data
Diffusion", 2008) and those of Thain, Bent, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Gathering at the Well: Creating
Communities for Grid I/O" (2001). ``auto``, which chooses by price, is what the latter left as future work.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Move", "Policy", "Way"]


class Policy(enum.StrEnum):
    """How the place of data counts when a lane is free."""

    FIRST_AVAILABLE = "first-available"  # the oldest task; caches are not used
    FIRST_CACHE_AVAILABLE = "first-cache-available"  # the oldest task; caches spare some transfers
    MAX_CACHE_HIT = "max-cache-hit"  # only a node that holds the file, where there is one
    MAX_COMPUTE_UTIL = "max-compute-util"  # never idle: the best holder among the free
    GOOD_CACHE_COMPUTE = "good-cache-compute"  # max-cache-hit while the pool is busy, else max-compute-util
    AUTO = "auto"  # by price


class Way(enum.IntEnum):
    """How a task comes to what it reads."""

    HERE = 0  # the node has it: the job has moved to the data
    STAGE = 1  # it is copied into the node's cache
    READ = 2  # it is read from afar, through a mount


@dataclass(frozen=True, slots=True)
class Move:
    """How one file comes to the node of a task.

    Attributes:
        file: its number.
        way: see `Way`.
        source: the node that it comes from; "" for its origin.
        price_s: what this was thought to cost.
    """

    file: int
    way: Way
    source: str = ""
    price_s: float = 0.0
