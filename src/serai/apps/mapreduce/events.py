"""What the master is told, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAP = "map"
REDUCE = "reduce"


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt at a task, as given to a worker.

    Attributes:
        kind: `MAP` or `REDUCE`.
        number: of the split or the partition.
        attempt: from 1; no other attempt at this task has it.
    """

    kind: str
    number: int
    attempt: int


# ---- events


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker registered.

    Attributes:
        worker: its id.
        host: where it runs, as inputs name hosts.
        near: hosts, named so, whose inputs it opens by paths of its own; None for its own host's.
    """

    worker: str
    host: str = ""
    near: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker is not there any more.

    Attributes:
        worker: its id.
        why: for people.
        final: its process has ended; otherwise it is only silent, and may come back.
        by_itself: it ended while its host lived, perhaps because of what it did.
    """

    worker: str
    why: str
    final: bool = False
    by_itself: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A worker asks for an order, and waits; whatever it was given before it does not have."""

    worker: str


@dataclass(frozen=True, slots=True)
class Waited:
    """A worker that asked does not wait any more; it will ask again."""

    worker: str


@dataclass(frozen=True, slots=True)
class Done:
    """An attempt ended well.

    Attributes:
        worker: its id.
        order: the attempt.
        output: where its output is; the master only keeps it. A map's has ``path``.
    """

    worker: str
    order: Order
    output: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt ended badly.

    Attributes:
        worker: its id.
        order: the attempt.
        what: for people.
        missing: maps whose outputs it could not get.
        transient: it is not the task's fault.
    """

    worker: str
    order: Order
    what: str
    missing: tuple[int, ...] = ()
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Expecting:
    """How many workers may still come, and why others do not.

    Attributes:
        count: that are being started.
        why: of each that will not come.
        hosts: where those may come that are being started, as inputs name hosts.
    """

    count: int
    why: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Joined | Gone | Asked | Waited | Done | Failed | Expecting | Tick


# ---- actions


@dataclass(frozen=True, slots=True)
class Give:
    """Give a waiting worker an order.

    Attributes:
        worker: its id.
        order: the attempt.
        again: it is a second attempt beside one that is slow.
    """

    worker: str
    order: Order
    again: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """What this attempt does is not needed any more."""

    worker: str
    order: Order


@dataclass(frozen=True, slots=True)
class Accept:
    """This attempt's output is the task's."""

    worker: str
    order: Order


@dataclass(frozen=True, slots=True)
class Discard:
    """This attempt ended well and too late: its output may go."""

    worker: str
    order: Order
    output: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reopen:
    """A map's output is lost: it is made again."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A worker gets nothing more: it failed again and again."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class Skip:
    """A split is left out of the run: it failed for good, and that was allowed for.

    Attributes:
        number: of the split.
        why: for people; names it.
    """

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every partition is there."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The run cannot be finished.

    Attributes:
        what: in a sentence.
        tried: what led to it, oldest first.
        of_task: a task failed, rather than workers or hosts.
        hint: what can be done about it.
    """

    what: str
    tried: tuple[str, ...] = field(default=())
    of_task: bool = False
    hint: str | None = None


Action = Give | Cancel | Accept | Discard | Reopen | Bar | Skip | Finish | Fail
