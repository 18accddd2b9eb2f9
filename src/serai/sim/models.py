"""What a world is made of: nodes, works and what goes wrong. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.describe.task import Needs
from serai.dispatch.schedule.events import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class NodeModel:
    """A host.

    Attributes:
        memory_bytes: 0 when nobody knows.
        rtt_s: time of a message there and back.
        bandwidth_bps: bytes per second of its link; a message has 200 bytes and 100 more for each task.
        speed: a task of one second takes ``1 / speed`` seconds here.
        software: programs it has.
        breaks: the chance that its executor fails a task that is not to blame.
        up_at_s: when it checks in.
        cache_bytes: what its cache may hold; 0 for any amount. Files in use stay, even beyond that.
        mounts: whether its tasks may read from afar.
        origins: bytes per second that come straight from origins, by name; one that is missing cannot be reached.
    """

    name: str
    site: str
    slots: int = 1
    memory_bytes: int = 0
    rtt_s: float = 0.001
    bandwidth_bps: float = 1e8
    speed: float = 1.0
    software: frozenset[str] = frozenset()
    breaks: float = 0.0
    up_at_s: float = 0.0
    cache_bytes: int = 0
    mounts: bool = False
    origins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkModel:
    """Tasks with the same needs.

    Attributes:
        tasks: how many.
        takes_s: how long one takes on a node of speed 1.
        spread: each takes ``takes_s`` times a random factor in [1 - spread, 1 + spread].
        fails: by position in the work, how often a task ends with an exit code before it ends well.
        poison: by position, what a task kills whenever it runs: "lane" or "node".
        function: whether ending a running task ends its lane, as it does with functions.
        added_at_s: when its tasks are known.
        reads: by position, the files that a task reads; none where there is nothing.
        fraction: of a file that a task reads.
    """

    tasks: int
    takes_s: float = 1.0
    spread: float = 0.0
    needs: Needs = field(default_factory=Needs)
    retry: Retry = field(default_factory=Retry)
    fails: Mapping[int, int] = field(default_factory=dict)
    poison: Mapping[int, str] = field(default_factory=dict)
    function: bool = False
    added_at_s: float = 0.0
    reads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, at times and to victims that the seed draws.

    Attributes:
        deaths: nodes that die; reports on their way are lost with them.
        hangs: nodes that fall silent, some for so long that they are given up.
        lane_deaths: lanes that die of nothing that they ran.
        slow: links that become slow for a while.
        cancels: times at which the user cancels some tasks.
        probe_loss: the chance that a probe is not answered.
        within_s: when they happen: between 0 and this.
        away_s: the longest time until a node is back. Every node comes back in the end, or nothing would ever end.
        leaves: nodes that are told to go away, and go when the schedule says that they may, or after a while.
        wiped: the chance that a cache does not survive the death of its executor.
    """

    deaths: int = 0
    hangs: int = 0
    lane_deaths: int = 0
    slow: int = 0
    cancels: int = 0
    probe_loss: float = 0.0
    within_s: float = 30.0
    away_s: float = 60.0
    leaves: int = 0
    wiped: float = 0.5


@dataclass(slots=True)
class Truth:
    """What only the world knows about a task."""

    work: int
    takes_s: float
    needs: Needs
    fails: int = 0  # left
    poison: str = ""
    function: bool = False
    runs: int = 0  # attempts that were started
    reads: tuple[int, ...] = ()
    fraction: float = 1.0
