"""What a task is: what it needs, what is its own, its states and how an attempt at it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task needs of its node.

    ``requirements`` and ``rank`` are ClassAd expressions: ``TARGET`` is the node's ad, and what is not the task's own
    is looked for there too. ``requirements`` must be true; of several nodes that of the highest ``rank`` is taken.
    """

    cores: int = 1
    memory_bytes: int = 0
    software: tuple[str, ...] = ()  # names of programs that must be on the node's PATH
    python: tuple[int, ...] = ()  # major and minor version that a function was pickled by; commands need none
    requirements: str = ""
    rank: str = ""

    def check(self) -> None:
        """See that the expressions are such.

        Raises:
            UsageError: one is none; it says where.
        """
        if self.requirements or self.rank:
            from serai.describe.ads.expressions import parse_expression  # noqa: PLC0415 - most tasks have none

            for name in ("requirements", "rank"):
                if getattr(self, name):
                    parse_expression(getattr(self, name), what=name)


@dataclass(frozen=True, slots=True)
class Item:
    """What is one task's own.

    Attributes:
        inputs: paths on the front end, as the user gave them.
        line: the line, number or first column that the task stands for; None when it has none.
        columns: the named columns, for tables.
        outputs: outputs named by the item itself (JSON lines); outputs named by placeholders come from the template.
    """

    inputs: tuple[str, ...] = ()
    line: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


class State(enum.IntEnum):
    """The states of a task. The numbers are stored in journals: append only."""

    QUEUED = 0  # known, on no node
    ASSIGNED = 1  # sent to an executor, not seen running
    RUNNING = 2  # seen running
    DONE = 3  # ended well and accepted
    FAILED = 4  # ended badly and will not be tried again
    CANCELLED = 5  # ended by its user

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the task."""
        return self >= State.DONE


class Cause(enum.IntEnum):
    """Why an attempt ended as it did. The numbers travel and are stored in journals: append only."""

    OK = 0
    EXIT = 1  # exit code other than 0, or a signal that Serai did not send
    EXCEPTION = 2  # the function raised
    TIME_LIMIT = 3
    CANCELLED = 4
    NO_COMMAND = 5  # the program could not be started: not found, not executable, bad working directory
    MISSING_OUTPUT = 6
    INPUT = 7  # an input could not be read, sent or stored
    OUTPUT = 8  # an output could not be sent or stored
    NODE_LOST = 9
    EXECUTOR = 10  # the executor itself failed
    UNPICKLE = 11  # the function or its arguments could not be loaded on the node
    NEEDS = 12  # no node can ever run it
