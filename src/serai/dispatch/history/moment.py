"""What can be seen of a run at one moment: values, and a few words for them."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause, State
from serai.errors import JournalError
from serai.pool.members import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class RunState(StrEnum):
    """How a run stands; the words are shown to people."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"  # its front end is gone and did not say that it ended


@dataclass(frozen=True, slots=True)
class RunNow:
    """A run.

    Attributes:
        command: the command line, for people.
        began: seconds since the epoch.
        ended: the same; None unless it finished.
        heard_at: when its journal was last written.
        total: tasks there will be, as far as the front end said.
        complete: whether all of them are noted.
    """

    name: str
    directory: Path
    state: RunState
    kind: str
    command: str
    began: float
    ended: float | None
    heard_at: float
    pid: int | None
    host: str | None
    sites: tuple[str, ...]
    total: int | None
    complete: bool

    @property
    def alive(self) -> bool:
        """Whether something may still happen."""
        return self.state is RunState.RUNNING

    def until(self, now: float) -> float:
        """The end of what there is to look at: now, the end, or the last sign of life."""
        return now if self.alive else self.heard_at if self.ended is None else self.ended


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks by state.

    Attributes:
        total: None while nobody knows: functions are noted when they are sent, and a stream of items has no length.
        seen: tasks that are known of; the total when that is known.
        running: lanes at work.
        assigned: on a node, behind those that run.
        queued: on no node; at least so many where the total is not known.
    """

    total: int | None
    seen: int
    done: int
    failed: int
    cancelled: int
    running: int
    assigned: int
    queued: int

    @property
    def ended(self) -> int:
        """Tasks to which nothing more happens."""
        return self.done + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class Pace:
    """Tasks that end in a second, over the last so many seconds."""

    per_s: float
    window_s: float

    def left_s(self, counts: Counts) -> float | None:
        """Seconds until the last task ends; None when nobody can tell."""
        if counts.total is None or self.per_s <= 0:
            return None
        return (counts.total - counts.ended) / self.per_s


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node.

    Attributes:
        ad: what it said at its last check-in; empty when it never did.
        slots: tasks of one core that it runs at a time; 0 when nobody knows.
        memory_bytes: what tasks may use; 0 when nobody knows.
        beat_at: when it last said what it does, on the front end's clock.
        doing: (lane, task, seconds since its start when it said so), without those that ended since.
        busy: lanes that hold tasks.
        held: tasks that it holds.
        done, failed: tasks that ended there; None in a living run with too many results to count at each look.
    """

    name: str
    url: str
    state: str
    since: float
    why: str
    ad: Mapping[str, Any]
    slots: int
    memory_bytes: int
    beat_at: float | None
    load: float | None
    memory_free_bytes: int | None
    disk_free_bytes: int | None
    doing: tuple[tuple[int, int, float], ...]
    busy: int
    held: int
    done: int | None
    failed: int | None

    @property
    def up(self) -> bool:
        """Whether it is there."""
        return self.state == Standing.UP


@dataclass(frozen=True, slots=True)
class Failure:
    """Failed tasks with one cause and one message, but for numbers in it; ``tasks`` are the first few."""

    cause: int
    message: str
    count: int
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the journal."""

    at: float
    node: str
    task: int
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a task ended. Times are of its node's clock."""

    state: State
    cause: int
    exit_code: int | None
    node: str
    lane: int
    started: float
    took_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was followed by another."""

    at: float
    node: str
    cause: int
    text: str


@dataclass(frozen=True, slots=True)
class Held:
    """A task on a lane.

    Attributes:
        position: in its bundle, from 1.
        size: of the bundle.
        ahead: tasks before it in the bundle that have not ended.
    """

    node: str
    lane: int
    at: float
    position: int
    size: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What a task printed: 0 is standard output, 1 standard error; a long one is in a file, not in the journal."""

    which: int
    data: bytes
    path: Path | None

    @property
    def size(self) -> int | None:
        """In bytes; None when its file is gone."""
        if self.path is None:
            return len(self.data)
        return self.path.stat().st_size if self.path.exists() else None

    def tail(self, most: int = 2000) -> bytes:
        """Its end; empty when its file is gone."""
        if self.path is None:
            return self.data[-most:]
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - most))
                return file.read(most)
        except OSError:
            return b""

    def chunks(self, most: int = 1 << 20) -> Iterator[bytes]:
        """Its bytes, a piece at a time.

        Raises:
            JournalError: its file is gone.
        """
        if self.path is None:
            yield self.data
            return
        try:
            with self.path.open("rb") as file:
                while piece := file.read(most):
                    yield piece
        except OSError as error:
            raise JournalError(f"cannot read what the task printed: {error}") from error


@dataclass(frozen=True, slots=True)
class TaskNow:
    """A task.

    Attributes:
        what: the command or the function; "" when nobody knows.
        description: of its work, as the journal has it.
        item: what is its own, as the journal has it.
        places: where it is now.
        before: tasks queued before it, when it is queued.
        detail: what else was said about its end.
    """

    number: int
    state: State
    what: str
    description: Mapping[str, Any]
    item: Any
    result: Result | None
    detail: str
    attempts: tuple[Attempt, ...]
    places: tuple[Held, ...]
    before: int
    notes: tuple[Note, ...]
    streams: tuple[Stream, ...]


def gist(cause: int, exit_code: int | None, detail: str, stderr_tail: bytes) -> str:
    """Say in one line why an attempt failed.

    Args:
        cause: a number of `Cause`.
        exit_code: negative for a signal.
        detail: what was said about it; a traceback for functions.
        stderr_tail: the end of its standard error.
    """
    lines = [line.rstrip() for line in detail.splitlines() if line.strip()]
    if cause == Cause.EXIT:
        words = exit_words(exit_code)
        said = stderr_tail.decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in said if line.strip()] or lines
        return f"{words}: {said[-1]}" if said else words
    if cause == Cause.EXCEPTION:  # the last line that is not part of a longer message
        raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
        return raised[-1] if raised else lines[-1] if lines else "it raised an exception"
    return lines[0] if lines else cause_words(cause)


def exit_words(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:
        return f"signal {-exit_code}"


def cause_words(cause: int) -> str:
    """A cause in words, also one that a newer Serai wrote."""
    try:
        return Cause(cause).name.lower().replace("_", " ")
    except ValueError:
        return f"cause {cause}"
