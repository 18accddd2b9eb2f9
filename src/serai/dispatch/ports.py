"""The ports of dispatching: engines carry frames to nodes, owners know what tasks are and are told how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from serai.describe.poolfile import SiteSpec
    from serai.describe.task import Cause, State
    from serai.dispatch.schedule.events import Assign


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node that an engine can start an executor on.

    Attributes:
        name: what people and the journal call it; unique in a pool.
        site: nodes of one site are judged by one score.
        url: how it was named.
        slots: lanes; None for its cores.
        memory_bytes: what tasks may use; None for what it has.
        in_place: it is this very machine and user, so files are where they are.
        by_reference: functions find their modules where this process does.
        linger_s: how long its executor goes on with what it has when the front end is gone.
        home_calling: what its tasks may do at the front end's machine: ``files``, ``shell``, or None for nothing.
        declared: what its site says of it, for its ad; see `serai.describe.ads.stores.declared`.
        cache_bytes: what its cache may hold; None where the run says it, or nobody.
    """

    name: str
    site: str
    url: str
    slots: int | None = None
    memory_bytes: int | None = None
    python: str | None = None
    scratch: str | None = None
    ssh_config: str | None = None
    in_place: bool = False
    by_reference: bool = False
    linger_s: float = 0.0
    home_calling: str | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    cache_bytes: int | None = None


class Link(Protocol):
    """A way to a started agent."""

    def send(self, frame: bytes) -> None:
        """Take a frame to the agent; waits while the way is full.

        Raises:
            OSError: the agent is gone.
        """
        ...

    def close(self) -> None:
        """End the agent, and the way to it, within a few seconds. Any thread may call this while another sends."""
        ...


@runtime_checkable
class Leading(Protocol):
    """A link that can let processes of its node reach this machine."""

    def lead_back(self, there: str, here: str) -> str:
        """Let them reach a unix socket of this machine, as long as the link lives.

        Args:
            there: the path of a socket that may be made on the node, for the agent's user alone.
            here: the path of the socket here.

        Returns:
            The path of the socket that leads there, on the node.

        Raises:
            AccessError: the node does not allow it.
        """
        ...


class Engine(Protocol):
    """What starts agents on nodes and carries frames. One per scheme; any thread may call it."""

    def nodes(self, site: SiteSpec) -> list[NodeSpec]:
        """The nodes that a site stands for.

        Raises:
            AccessError: the engine's own service does not answer.
            UsageError: the URL has an option that the engine does not know.
        """
        ...

    def connect(self, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> Link:
        """Start an agent on a node.

        Args:
            spec: the node.
            deliver: is called with every frame of the agent, from one thread at a time, and with None at the end.

        Raises:
            AccessError: within the engine's deadline, saying why not.
        """
        ...

    def close(self) -> None:
        """Let go of everything that the engine holds."""
        ...


@dataclass(slots=True)
class Place:
    """A node, as an owner needs to know it to prepare a bundle for it.

    Attributes:
        holds: works and shared inputs that the agent has already, as the owner marks them.
        not_here: files that the node said cannot be used where they lie: {path: why}; "" stands for all.
        ways: how inputs by URL came, for the journal: (task, sentence); the owner adds to it.
        reads: by bundle, (task, {number of a catalogued file: its name}); the owner adds to it, and it is taken off
            when the node says how they came.
        way_back: where tasks find the front end's gateway; empty while they cannot read from afar.
        looks: by task, {number of a file that it reads from afar: its name}; the owner adds to it, and it is taken off
            when the node says what was read.
    """

    spec: NodeSpec
    ad: Mapping[str, Any]
    holds: set[Any]
    not_here: dict[str, str] = field(default_factory=dict)
    ways: list[tuple[int, str]] = field(default_factory=list)
    reads: dict[int, list[tuple[int, dict[int, str]]]] = field(default_factory=dict)
    way_back: str = ""
    looks: dict[int, dict[int, str]] = field(default_factory=dict)


WAY = "inputs: "  # what a note begins with that says how a task's inputs came
PRICES = WAY + "prices\n"  # and one that says what this was thought to cost there and elsewhere, a node in each line


class Ended:
    """How a task ended, for its owner."""

    __slots__ = (
        "cause", "detail", "exit_code", "lane", "node", "result", "rss_kb", "started_us", "state", "stderr", "stdout",
        "stream_paths", "task", "took_us",
    )  # fmt: skip

    def __init__(self, task: int, state: State, cause: Cause | int, node: str, detail: str = "") -> None:
        self.task = task
        self.state = state
        self.cause = cause
        self.node = node
        self.detail = detail
        self.lane = -1
        self.exit_code: int | None = None
        self.started_us = 0
        self.took_us = 0
        self.rss_kb = 0
        self.stdout = b""
        self.stderr = b""
        self.result = b""
        self.stream_paths: dict[int, str] = {}


class Owner(Protocol):
    """Who a work belongs to."""

    def cargo(self, assign: Assign, place: Place) -> Iterator[bytes]:
        """Make the frames that bring a bundle to a node, its RUN frame last. Called on the node's own thread.

        Raises:
            CargoRefused: some tasks cannot travel.
            CargoPostponed: some tasks were too much for one bundle.
        """
        ...

    def assigned(self, tasks: Sequence[int]) -> list[int]:
        """Tasks are about to be sent; returns those that their user has withdrawn."""
        ...

    def ended(self, batch: Sequence[Ended]) -> None:
        """Tasks have ended, and the journal knows it. Called on the dispatcher's thread."""
        ...

    def broken(self, error: BaseException) -> None:
        """Nothing more will come: the dispatcher itself has failed."""
        ...


class CargoRefused(Exception):
    """Some tasks of a bundle cannot travel, through no fault of the node: {task: why}. The others can."""

    def __init__(self, why: Mapping[int, tuple[int, str]]) -> None:
        super().__init__(f"{len(why)} tasks cannot travel")
        self.why = why


class CargoPostponed(Exception):
    """Some tasks of a bundle were left out, because together they are too large for one frame: they go with another."""

    def __init__(self, tasks: Sequence[int]) -> None:
        super().__init__(f"{len(tasks)} tasks go with another bundle")
        self.tasks = tasks
