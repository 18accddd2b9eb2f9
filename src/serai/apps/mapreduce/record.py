"""What happened in a run, as JSON lines in its directory and in memory: who did what, and when.

A later run takes from it what is whole: outputs that lie where they were put, of the same work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

from serai.apps.mapreduce.plan import SETTLED_S
from serai.dispatch.history.archive import Pruned, sweep, throw_away
from serai.dispatch.history.moment import Counts, RunNow, RunState
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence
    from pathlib import Path

    from serai.apps.mapreduce.job import Job
    from serai.apps.mapreduce.plan import Input, Split
    from serai.apps.workers.sending import Sent
    from serai.clock import Clock

NAME = "events.jsonl"


class Record:
    """Keeps events in the order in which they happened.

    Args:
        path: the file they are written to.
        clock: tells the time; an event's ``t`` is in seconds since this was made.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)  # whole lines, also when we are killed
        self.events: list[dict[str, Any]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return self._clock.now() - self._began

    def note(self, what: str, **facts: Any) -> dict[str, Any]:
        """Note an event; returns it."""
        with self._lock:
            event = {"t": round(self.elapsed_s, 4), "what": what, **facts}
            self.events.append(event)
            if not self._file.closed:
                self._file.write(json.dumps(event, separators=(",", ":"), default=str) + "\n")
        return event

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Reads a record; a last line that was cut off is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def fingerprint(
    inputs: Sequence[Input], splits: Sequence[Split], partitions: int, job: Job, sent: Sequence[Sent], seen: float
) -> str:
    """What is done to what, as a digest: of two runs that have the same, each output is the same.

    Args:
        inputs: of the run.
        splits: of them.
        partitions: how many outputs.
        job: what is run.
        sent: files that it needs.
        seen: when the inputs were looked at, in seconds since 1970.

    Returns:
        In hexadecimal; "" where an input may have changed and nobody would see that.
    """
    if any(one.size is None or one.mtime is None or seen - one.mtime < SETTLED_S for one in inputs):
        return ""
    what: list[Any] = [[one.url, one.size, one.mtime, one.inode, one.compression] for one in inputs]
    what += [[one.input, one.start, one.stop] for one in splits]
    what += [partitions, repr(job.program), job.functions, job.records, job.pickled]
    what += [[one.name, one.mode, hashlib.sha256(one.data).hexdigest()] for one in sent]
    return hashlib.sha256(json.dumps(what).encode() + job.body).hexdigest()


def part_facts(path: str, records: int) -> dict[str, Any]:
    """What is noted of an output that is whole, by which it is known again."""
    found = os.stat(path)
    return {"path": path, "size": found.st_size, "mtime_ns": found.st_mtime_ns, "records": records}


class Former:
    """A run that ended before its work was done, or was killed.

    Args:
        directory: its own.

    Raises:
        UsageError: there is no such run, or nothing can be taken from it.

    Attributes:
        name: its own.
        split_bytes: how large its splits were to be.
        partitions: how many outputs it was to have.
    """

    def __init__(self, directory: Path) -> None:
        self.name = directory.name
        try:
            self._events = read_events(directory / NAME)
        except OSError:
            raise UsageError(
                f"there is no run of MapReduce {self.name!r}", hint=f"they are in {directory.parent}"
            ) from None
        began: Mapping[str, Any] = next((one for one in self._events if one["what"] == "began"), {})
        self._print = str(began.get("print") or "")
        if not self._print:
            raise self._cannot("it had not begun, or its inputs had just been changed or tell no time")
        if any(one["what"] == "skipped" for one in self._events):
            raise self._cannot("it left out splits, which its outputs lack")
        self.split_bytes = int(began["split_bytes"])
        self.partitions = int(began["partitions"])

    def _cannot(self, why: str) -> UsageError:
        return UsageError(f"run {self.name} cannot be resumed: {why}", hint="without --resume it begins anew")

    def parts(self, mine: str, final: Callable[[int], str]) -> dict[int, dict[str, Any]]:
        """Its outputs that are there as it left them, by their numbers.

        Args:
            mine: the fingerprint of the run that takes them.
            final: where that has its outputs.

        Raises:
            UsageError: it did something else.
        """
        if mine != self._print:
            raise self._cannot("its inputs, program or outputs are not those of this one")
        found = {}
        for event in self._events:
            said = event.get("part")
            if said and said["path"] == final(event["number"]):
                with contextlib.suppress(OSError):
                    if part_facts(said["path"], said["records"]) == said:
                        found[int(event["number"])] = said
        return found


def prune(room: Path, older_s: float, now: float, living: Container[str]) -> Pruned:
    """Throw away runs that ended longer ago than ``older_s`` seconds; see `Archive.prune`.

    Args:
        room: the directory of the runs, which need not be there.
        older_s: see above.
        now: seconds since 1970.
        living: the names of runs that go on.
    """
    sweep(room)
    names, kept, size = [], [], 0
    paths = sorted(room.glob(f"*/{NAME}"))
    over = _resumed(paths)
    for path in paths:
        directory = path.parent
        if directory.name in living or now - path.stat().st_mtime <= older_s:
            continue
        if directory.name not in over and _can_go_on(directory):
            kept.append(directory.name)
            continue
        size += throw_away(directory)
        names.append(directory.name)
    return Pruned(tuple(names), size, tuple(kept))


def listing(room: Path, living: Container[str]) -> list[tuple[RunNow, Counts]]:
    """The runs, in no order; what is counted are their outputs. Those of which nothing can be read are left out.

    Args:
        room: the directory of the runs, which need not be there.
        living: the names of runs that go on.
    """
    listed = []
    for path in room.glob(f"*/{NAME}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            listed.append(_as_listed(path, alive=path.parent.name in living))
    return listed


def _as_listed(path: Path, *, alive: bool) -> tuple[RunNow, Counts]:
    heard_at, events = path.stat().st_mtime, read_events(path)
    began = events[0]
    end = next((one for one in events if one["what"] == "ended"), None)
    state = RunState.RUNNING if alive else RunState.INTERRUPTED if end is None else RunState.FINISHED
    run = RunNow(
        name=path.parent.name,
        directory=path.parent,
        state=state,
        kind="mapreduce",
        command=f"serai mapreduce {began['path']}" if began.get("path") else f"mapreduce {began['session']}",
        began=heard_at - events[-1]["t"],
        ended=None if end is None or alive else heard_at,
        heard_at=heard_at,
        pid=None,
        host=None,
        sites=tuple(dict.fromkeys(str(one["host"]) for one in events if one["what"] == "host")),
        total=began["partitions"],
        complete=True,
    )
    total = int(began["partitions"])
    done = len({one["number"] for one in events if one.get("part")})
    failed = total - done if end is not None and end["failed"] else 0
    return run, Counts(total, total, done, failed, 0, 0, 0, total - done - failed)


def _resumed(paths: Iterable[Path]) -> set[str]:
    """The runs that others took up, of which the last came to its end."""
    former: dict[str, str] = {}
    names: list[str] = []
    for path in paths:
        events = read_events(path)
        for one in events:
            if one.get("resumes"):
                former[path.parent.name] = str(one["resumes"])
            if one["what"] == "ended" and not one.get("failed"):
                names.append(path.parent.name)
    found: set[str] = set()
    while names:
        name = former.pop(names.pop(), None)
        if name is not None:
            found.add(name)
            names.append(name)
    return found


def _can_go_on(directory: Path) -> bool:
    if any(one["what"] == "ended" for one in read_events(directory / NAME)):
        return False
    try:
        Former(directory)
    except UsageError:
        return False
    return True
