"""What the schedule is told (events) and what it wants done (actions). Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.match.movement import Access, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.describe.task import Cause, Needs
    from serai.match.movement import Move


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a task that ended badly is tried again, and when.

    The n-th wait is ``first_s * 2**(n-1)`` seconds, at most ``most_s``, times a random factor in [0.5, 1].
    """

    times: int = 0
    first_s: float = 1.0
    most_s: float = 60.0


# ---- events


@dataclass(slots=True)
class WorkAdded:
    """A work is known; its tasks may follow."""

    work: int
    needs: Needs
    retry: Retry


@dataclass(slots=True)
class TasksAdded:
    """Tasks of a work are ready to run.

    Attributes:
        delay_s: they wait so long before they are sent, unless they are `Hurried`.
        inputs: the files that each of them reads, in the order of ``tasks``; None when none reads any.
    """

    work: int
    tasks: Sequence[int]
    delay_s: float = 0.0
    inputs: Sequence[tuple[int, ...]] | None = None


@dataclass(slots=True)
class FilesAdded:
    """Files are known that tasks may read; each has a number.

    Attributes:
        sizes: bytes, in the order of ``files``.
        origins: in that order, where nodes may read each without the front end: a name for all files there, which no
            node has; empty for one that they may not. Nothing at all where there is none.
    """

    files: Sequence[int]
    sizes: Sequence[int]
    origins: Sequence[str] = ()


@dataclass(slots=True)
class Cached:
    """A node has files now: in its cache, or where they lie."""

    node: str
    files: Sequence[int]


@dataclass(slots=True)
class Evicted:
    """A node has files no longer."""

    node: str
    files: Sequence[int]


@dataclass(slots=True)
class Moved:
    """A file has come to a node, or parts of it were read from afar.

    Attributes:
        source: the node that it came from, or its origin where the node read it there; "" for the front end.
        moved_bytes: over the network.
        took_s: how long it took.
        read_bytes: for a file that was read from afar: how much of it the program read; None when it was staged.
        work: whose task read it; 0 for nobody's.
    """

    node: str
    file: int
    source: str
    moved_bytes: int
    took_s: float
    read_bytes: int | None = None
    work: int = 0


@dataclass(slots=True)
class Unreached:
    """A node cannot read from an origin, and will not try for a while."""

    node: str
    origin: str


@dataclass(slots=True)
class NoMount:
    """A node cannot mount after all: nothing there is read from afar any more."""

    node: str


@dataclass(slots=True)
class Hurried:
    """Tasks that wait for a time need not wait any more."""

    tasks: Sequence[int]


@dataclass(slots=True)
class NodeUp:
    """An executor has checked in.

    Attributes:
        node: its name.
        site: nodes of one site are judged by one score.
        slots: lanes it has.
        memory_bytes: what tasks may use; 0 when nobody knows.
        rtt_s: time of a message there and back.
    """

    node: str
    site: str
    slots: int
    memory_bytes: int
    ad: Mapping[str, Any]
    rtt_s: float = 0.001


@dataclass(slots=True)
class NodeDown:
    """An executor is gone, or is given up."""

    node: str
    why: str


@dataclass(slots=True)
class Leaving:
    """A node will go away: it is given nothing new, and what only it has is copied to others first."""

    node: str


@dataclass(slots=True)
class LaneDown:
    """A lane's process ended; its node will start another.

    Attributes:
        blame: whether it died of what it ran.
        bundles: those that it had been given, the one that it ran first, among others; None when nobody knows: then
            all that were sent to it.
    """

    node: str
    lane: int
    why: str
    blame: bool
    bundles: Sequence[int] | None = None


@dataclass(slots=True)
class Heard:
    """A heartbeat: the tasks that run, with seconds since their start, by lane."""

    node: str
    running: Mapping[int, tuple[int, float]]
    rtt_s: float | None = None


@dataclass(slots=True)
class Probed:
    """The answer about programs of a node."""

    node: str
    software: Mapping[str, bool]


@dataclass(slots=True)
class Advertised:
    """The ads of stores are others.

    Attributes:
        stores: attributes by name; None for one that is gone.
        nearest: the stores that were found nearest to nodes, by node.
    """

    stores: Mapping[str, Mapping[str, Any] | None]
    nearest: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """How tasks of a bundle ended: parallel sequences, plus those given back.

    Attributes:
        causes: None when every one is OK.
        final: the failures are not the node's: another node would not help (an input that the front end cannot read).
        last: nothing more will come of the bundle.
        facts: whatever else is known, for whom it concerns; the schedule does not look at it.
    """

    node: str
    lane: int
    bundle: int
    tasks: Sequence[int]
    causes: Sequence[int] | None
    took_us: Sequence[int]
    returned: Sequence[int] = ()
    last: bool = False
    final: bool = False
    facts: Any = None


@dataclass(slots=True)
class Cancelled:
    """The user wants these tasks ended."""

    tasks: Sequence[int]


@dataclass(slots=True)
class Tick:
    """Time has passed."""


Event = (
    WorkAdded | TasksAdded | Hurried | NodeUp | NodeDown | LaneDown | Heard | Probed | Report | Cancelled | Tick
    | FilesAdded | Cached | Evicted | Moved | Unreached | NoMount | Leaving | Advertised
)  # fmt: skip


# ---- actions


@dataclass(slots=True)
class Assign:
    """Send a bundle to a lane.

    Attributes:
        moves: how the files that its tasks read come to the node, those that it has among them; each file once.
    """

    bundle: int
    node: str
    lane: int
    work: int
    tasks: list[int]
    moves: Sequence[Move] = ()


@dataclass(slots=True)
class Copy:
    """Bring a file to a node, though no task there waits for it: it is wanted by many, or its holder goes away."""

    file: int
    node: str
    source: str


@dataclass(slots=True)
class Recall:
    """Ask a lane to give back what it has not started of a bundle."""

    node: str
    lane: int
    bundle: int


@dataclass(slots=True)
class Kill:
    """End tasks of a bundle, wherever it is."""

    node: str
    lane: int
    bundle: int
    tasks: list[int]


@dataclass(slots=True)
class Probe:
    """Ask a node about programs."""

    node: str
    software: tuple[str, ...]


@dataclass(slots=True)
class Settle:
    """A report was judged.

    Attributes:
        work: of the bundle; 0 when the bundle was given up before.
        verdicts: one `Verdict` for each task of the report, None when all of them are accepted as done.
    """

    work: int
    report: Report
    verdicts: list[int] | None


@dataclass(slots=True)
class GiveUp:
    """A task has failed without a report of its own."""

    work: int
    task: int
    cause: Cause
    node: str
    why: str


@dataclass(slots=True)
class Stopped:
    """Tasks of a work were cancelled before they ended."""

    work: int
    tasks: list[int]


@dataclass(slots=True)
class Closed:
    """A bundle is not on its lane any more."""

    bundle: int


@dataclass(slots=True)
class Note:
    """Something worth a line in the journal."""

    text: str
    node: str = ""
    task: int = 0


Action = Assign | Copy | Recall | Kill | Probe | Settle | GiveUp | Stopped | Closed | Note


class Verdict:
    """What becomes of one reported attempt. Plain integers: there are many."""

    DONE = 0
    FAILED = 1
    AGAIN = 2  # it will be tried again
    LATE = 3  # the task had ended already: this attempt is thrown away


@dataclass(slots=True)
class Limits:
    """Limits and times of the schedule.

    Attributes:
        bundle_s: how long a bundle should take; long enough to hide what a message costs, short enough to stay fair.
        bundle_tasks: tasks in a bundle.
        depth: bundles a lane holds, the running one included.
        replicate_after_s: a task that waits on a node for longer gets a copy elsewhere (Swift).
        copies: attempts at a task at one time.
        losses: executors that a task may lose before it is held to be the reason.
        elsewhere: attempts on further nodes after a node could not store an input or an output.
        policy: how the place of data counts.
        access: the ways that tasks may come to what they read; only nodes whose ad has ``mount`` read from afar.
        transfers: nodes that fetch from one source at a time.
        replicas: copies of a file that `Policy.GOOD_CACHE_COMPUTE` makes while the pool is busy.
        busy_share: of all lanes: with more of them in use the pool is busy.
    """

    bundle_s: float = 0.1
    bundle_tasks: int = 1000
    depth: int = 2
    replicate_after_s: float = 60.0
    copies: int = 3
    losses: int = 3
    elsewhere: int = 2
    policy: Policy = Policy.AUTO
    access: Access = Access.AUTO
    transfers: int = 8
    replicas: int = 4
    busy_share: float = 0.9


@dataclass(slots=True)
class Statistics:
    """A look at the schedule."""

    queued: int = 0
    delayed: int = 0
    assigned: int = 0
    nodes: int = 0
    slots: int = 0
    busy: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    sites: dict[str, tuple[float, float]] = field(default_factory=dict)
