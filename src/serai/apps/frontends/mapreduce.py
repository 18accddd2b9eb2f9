"""`Pool.mapreduce`: functions or commands over files, on the pool's hosts; and what came of it."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import sysconfig
import tempfile
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.apps.frontends.functions import PROTOCOL, cloudpickle_sources, modules_of
from serai.apps.mapreduce.job import PARTS, Job
from serai.apps.mapreduce.run import Running, new_directory
from serai.apps.mapreduce.timeline import timeline_of
from serai.describe.mapreduce import Commands, Session, host_of
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from serai.apps.mapreduce.plan import Kept
    from serai.apps.mapreduce.timeline import Timeline
    from serai.describe.poolfile import SiteSpec

Part = "Callable[..., Any] | str | None"
WAIT_S = 0.5
RECORDS = ("lines", "bytes")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of a run.

    Attributes:
        seconds: it took.
        inputs: files that were mapped.
        bytes: of them.
        maps: how many splits.
        reduces: how many outputs.
        records: in all outputs.
        workers: that registered.
        lost: workers that were lost.
        failed: attempts that failed.
        doubled: attempts beside a slow one.
        again: maps that were made again because their outputs were lost.
        revived: workers that were started in place of lost ones.
        skipped: splits that were left out.
        spent: seconds of all workers, by what they were spent on.
    """

    seconds: float
    inputs: int
    bytes: int
    maps: int
    reduces: int
    records: int
    workers: int
    lost: int
    failed: int
    doubled: int
    again: int
    revived: int
    skipped: int
    spent: Mapping[str, float] = field(default_factory=dict)


def statistics_of(running: Running, timeline: Timeline) -> Statistics:
    """Counts what happened."""
    events = running.record.events
    said = [event["what"] for event in events]
    return Statistics(
        seconds=round(timeline.end, 3),
        inputs=len(running.work.inputs),
        bytes=sum(one.size or 0 for one in running.work.inputs),
        maps=len(running.work.splits),
        reduces=running.work.partitions,
        records=sum(running.desk.records.values()),
        workers=said.count("joined"),
        lost=len({event["worker"] for event in events if event["what"] == "lost"}),
        failed=said.count("failed"),
        doubled=sum(1 for event in events if event["what"] == "given" and event["again"]),
        again=said.count("reopened"),
        revived=running.crew.again,
        skipped=len(running.desk.master.skipped),
        spent={kind: round(value, 3) for kind, value in timeline.totals().items()},
    )


class MapReduceResult:
    """What came of a MapReduce run.

    Attributes:
        files: the outputs, one for each partition, in order: paths, or URLs where the output is elsewhere.
        statistics: numbers of the run.
        troubles: what did not work while it ran, in sentences; the result is whole nevertheless, but for `skipped`.
        skipped: the splits that were left out, and why; none unless that was asked for.
    """

    def __init__(
        self,
        files: Sequence[str],
        statistics: Statistics,
        timeline: Timeline,
        troubles: Sequence[str],
        skipped: Sequence[str],
        *,
        pickled: bool,
    ) -> None:
        self.files = tuple(files)
        self.statistics = statistics
        self.troubles = tuple(troubles)
        self.skipped = tuple(skipped)
        self._timeline = timeline
        self._pickled = pickled

    def __repr__(self) -> str:
        return f"<MapReduceResult: {self.statistics.records} records in {len(self.files)} files>"

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield (key, value), partition after partition, each sorted by key.

        Without an output directory these are the objects themselves; of files of text they are texts, and a line
        without a TAB has the value "".
        """
        for file in self.files:
            yield from self._pairs(file) if self._pickled else _lines(file)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.items()

    @staticmethod
    def _pairs(path: str) -> Iterator[tuple[Any, Any]]:
        with open(path, "rb") as file:
            while file.peek(1):
                yield from pickle.load(file)  # noqa: S301 - the results of the user's own functions

    def timeline(self, path: str | os.PathLike[str]) -> None:
        """Write a picture (SVG) of what each worker did and when."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._timeline.svg())

    def table(self) -> str:
        """Where the time went, as text."""
        return self._timeline.table()


def _lines(file: str) -> Iterator[tuple[str, str]]:
    from serai.apps.mapreduce.inputs import filesystem_of, local_path  # noqa: PLC0415 - fsspec is slow to import

    here = local_path(file)
    if here is None:
        filesystem, path = filesystem_of(file)
        stream = filesystem.open(path, "r", encoding="utf-8", errors="surrogateescape", newline="\n")
    else:
        stream = open(here, encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: SIM115 - just below
    with stream:
        for line in stream:
            key, _, value = line.removesuffix("\n").partition("\t")
            yield key, value


@dataclass(frozen=True, slots=True)
class Request:
    """A call of `Pool.mapreduce`; see there."""

    mapper: Callable[..., Any] | str
    reducer: Callable[..., Any] | str | None
    inputs: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]
    combiner: Callable[..., Any] | str | None = None
    partitions: int | None = None
    output: str | os.PathLike[str] | None = None
    records: str = "lines"
    send: Sequence[str] = ()
    skip: int = 0

    def parts(self) -> dict[str, Any]:
        """Mapper, combiner and reducer by name."""
        return dict(zip(PARTS, (self.mapper, self.combiner, self.reducer), strict=True))


def run_mapreduce(
    request: Request, sites: Sequence[SiteSpec], runs: Path | None, kept: Kept | None = None
) -> MapReduceResult:
    """Run it to its end; see `Pool.mapreduce`."""
    parts = request.parts()
    if request.records not in RECORDS:
        raise UsageError(f"records are {request.records!r}", hint='say records="lines" or records="bytes"')
    if request.partitions is not None and request.partitions < 1:
        raise UsageError(f"{request.partitions} partitions are none")
    if request.skip < 0:
        raise UsageError(f"{request.skip} splits cannot be left out")
    for name, part in parts.items():
        if part is not None and not callable(part) and not (isinstance(part, str) and part.strip()):
            raise UsageError(f"the {name} is {part!r}", hint="give a function, or a command as text")
    functions = {name: part for name, part in parts.items() if callable(part)}
    texts = {name: part for name, part in parts.items() if isinstance(part, str)}
    reducer_is_command = texts.get("reducer", "sum") not in {"sum", "count"}
    pickled = request.output is None and not reducer_is_command
    given = [request.inputs] if isinstance(request.inputs, (str, os.PathLike)) else list(request.inputs)
    directory = new_directory(os.environ, time.time(), runs)
    home = tempfile.mkdtemp(prefix="out-", dir=directory) if request.output is None else os.fspath(request.output)
    session = Session(
        path="",
        name=getattr(request.mapper, "__qualname__", None) or str(request.mapper)[:60],
        program=Commands(
            texts.get("mapper", ""), texts.get("reducer", ""), texts.get("combiner"), tuple(request.send), os.getcwd()
        ),
        hosts=tuple(host_of(site) for site in sites),
        inputs=tuple(os.fspath(one) for one in given),
        output=home,
        partitions=request.partitions,
        skip=request.skip,
    )
    modules = cloudpickle_sources() if functions else {}
    job = Job(session.program, tuple(functions), packed(functions), modules, request.records, pickled)
    with Running(session, directory, job=job, kept=kept) as running:
        while not running.wait(WAIT_S):
            pass
        files = running.files()
    timeline = timeline_of(running.record.events)
    numbers = statistics_of(running, timeline)
    result = MapReduceResult(files, numbers, timeline, running.troubles, running.skipped, pickled=pickled)
    if request.output is None:
        weakref.finalize(result, shutil.rmtree, directory, ignore_errors=True)
    return result


def packed(functions: Mapping[str, Callable[..., Any]]) -> bytes:
    """Pickle functions; modules of the user's own go by value, since no node has them."""
    if not functions:
        return b""
    import cloudpickle  # noqa: PLC0415 - slow to import, and runs of commands do without

    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    for name in modules_of(tuple(functions.values())):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is not None and name != "__main__" and file and not file.startswith(installed):
            cloudpickle.register_pickle_by_value(module)
    return bytes(cloudpickle.dumps(dict(functions), PROTOCOL))
