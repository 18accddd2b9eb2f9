"""A run's job and its orders: what is done for a map and for a reduce, and how long each phase took."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import time

from ..executor.functions import install
from .commands import Command
from .fetching import Fetcher
from .mapping import BadJob, gathered_by, map_with_command, map_with_function
from .outputs import LocalOutput, RelayedOutput
from .reducing import TEXT, Program, reduce_into, write_reduced
from .splits import blocks_of, lines_of, local_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..caching.pieces import Pieces
    from ..peers import Peers
    from .outputs import Output

MEMORY_BYTES = 256 << 20  # where the job says nothing
LEAST_MEMORY_BYTES = 1 << 20


class Job:
    """What a run's workers do.

    The head of ``work.job``: ``run``; ``partitions``; ``records``: what functions get, "lines" (text) or "bytes";
    ``mapper``, ``combiner`` and ``reducer``, each null or {"kind"}: "function" (it is in the body), "command" (with
    ``command``, a list of words or one text for a shell, and ``directory``), "count" or "sum" (not the mapper);
    ``memory_bytes``; ``form`` of the output, "text" or "pickle"; ``environment`` of commands; ``modules``: {name:
    source} that functions need; ``shuffle``: {"cert", "key"} in PEM.

    Args:
        head: of the answer.
        body: pickled {"mapper": …, "combiner": …, "reducer": …} of what is a function.

    Raises:
        BadJob: it says nothing that can be done.
        Exception: whatever loading the functions raises.
    """

    def __init__(self, head: Mapping[str, Any], body: bytes) -> None:
        self.run = str(head["run"])
        self.partitions = int(head["partitions"])
        self.records = str(head.get("records") or "lines")
        self.memory_bytes = max(LEAST_MEMORY_BYTES, int(head.get("memory_bytes") or MEMORY_BYTES))
        self.form = str(head.get("form") or TEXT)
        self._head = head
        install(head.get("modules") or {})
        self._functions = pickle.loads(body) if body else {}  # noqa: S301 - running the user's functions is the purpose
        self.mapper = self._part("mapper")
        self.combiner = self._part("combiner")
        self.reducer = self._part("reducer")
        if self.mapper is None or isinstance(self.mapper, str):
            raise BadJob("a mapper is a function or a command")
        self.is_text = isinstance(self.mapper, Command)

    def _part(self, name: str) -> Any:
        said = self._head.get(name)
        if said is None:
            return None
        kind = said.get("kind") if isinstance(said, dict) else None
        if kind in ("count", "sum"):
            return kind
        if kind == "function":
            return self._functions[name]
        if kind == "command" and said.get("command"):
            return Command(said["command"], self._head.get("environment"), name, said.get("directory"))
        raise BadJob("the %s is %r, which is nothing that this worker knows" % (name, said))


class Times:
    """Seconds by phase; a phase within another is not counted twice."""

    def __init__(self) -> None:
        self._began = time.time()
        self._start = self._since = time.monotonic()
        self._seconds: dict[str, float] = {}

    def phase(self, name: str) -> None:
        """What went by since the last call was this phase."""
        now = time.monotonic()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now

    def timed(self, blocks: Iterator[bytes], name: str, other: str) -> Iterator[bytes]:
        """Give blocks: their coming is one phase, what is done between another."""
        for block in blocks:
            self.phase(name)
            yield block
            self.phase(other)
        self.phase(name)

    def facts(self) -> dict[str, float]:
        """Seconds of each phase, ``total``, and ``began``: when, by this node's clock, in seconds since 1970."""
        seconds = {name: round(taken, 6) for name, taken in self._seconds.items()}
        total = round(time.monotonic() - self._start, 6)
        return dict(seconds, total=total, began=round(self._began, 6))


class Tasks:
    """Carries out orders.

    Args:
        job: of the run.
        call: of the gateway: ``call(do, head, body)``.
        peers: reads from other workers; None where there is no way.
        scratch: this worker's directory.
        worker: its id.
        cache: opens the node's cache; None where nothing is kept.
    """

    def __init__(
        self,
        job: Job,
        call: Callable[..., Any],
        peers: Peers | None,
        scratch: str,
        worker: str,
        cache: Callable[[], Pieces] | None = None,
    ) -> None:
        self._job = job
        self._call = call
        self._peers = peers
        self._scratch = scratch
        self._worker = worker
        self._cache = cache
        self._pieces: Pieces | None = None
        self._keeps = False  # what is mapped goes into the cache
        self.done_fraction = 0.0

    def map(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Map a split; returns what ``work.done`` says: ``outputs`` {path, index} and ``times``."""
        self.done_fraction = 0.0
        job, times, task, attempt = self._job, Times(), int(order["task"]), int(order["attempt"])
        path = os.path.join(self._scratch, "map-%d-%d" % (task, attempt))
        room = self._room()
        try:
            into = gathered_by(self._with_environment(job.combiner, order), job.partitions, job.memory_bytes, room)
            split = order["input"]
            blocks = self._counted(self._blocks(split), split)
            if isinstance(job.mapper, Command):
                # Reading and mapping go on at once, in different threads: they are one phase.
                map_with_command(self._with_environment(job.mapper, order), blocks, into)
                times.phase("map")
            else:
                map_with_function(job.mapper, times.timed(blocks, "read", "map"), job.records, into)
                times.phase("map")
            index = into.finish(path)
            times.phase("sort")
            kept = self._kept()
        except BaseException:
            remove(path)
            raise
        finally:
            shutil.rmtree(room, ignore_errors=True)
        facts = {"outputs": {"path": path, "index": index}, "times": times.facts()}
        return dict(facts, kept=kept) if kept else facts

    def reduce(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Reduce a partition; returns what ``work.done`` says: ``outputs`` {name, size, digest, records}, ``times``."""
        self.done_fraction = 0.0
        job, times = self._job, Times()
        room = self._room()
        output: Output | None = None
        try:
            size = sum(int(one["size"]) for one in order["maps"])
            parts = Fetcher(self._call, self._peers, room).fetch(order["maps"], lambda came: self._fetched(came, size))
            times.phase("fetch")
            program = Program(job.combiner, self._with_environment(job.reducer, order), job.is_text)
            output = self._output(order)
            pairs = reduce_into(list(parts), size, program, job.memory_bytes, room)
            write_reduced(pairs, program, job.form, output)
            times.phase("reduce")
            facts = output.finish()
            times.phase("write")
        except BaseException:
            if output is not None:
                output.abandon()
            raise
        finally:
            shutil.rmtree(room, ignore_errors=True)
        facts["name"] = order["output"]["name"]
        return {"outputs": facts, "records": facts["records"], "times": times.facts()}

    def _blocks(self, split: Mapping[str, Any]) -> Iterator[bytes]:
        """The lines of a split: those that the node's cache has, if the front end said which they are."""
        self._keeps = bool(split.get("keep"))
        if self._keeps and self._pieces is None and self._cache is not None:
            self._pieces = self._cache()
        if not self._keeps or self._pieces is None:
            return blocks_of(split, self._reader(split))
        path = self._pieces.find(str(split["digest"])) if split.get("digest") else None
        if path is not None:
            self._keeps = False
            return lines_of(local_chunks(path, 0, None))
        return self._pieces.through(blocks_of(split, self._reader(split)))

    def _kept(self) -> str | None:
        """What the lines of the split that was mapped are called in the cache, if they were kept."""
        return self._pieces.keep() if self._keeps and self._pieces is not None else None

    def _room(self) -> str:
        """An empty directory for what one order keeps on disk meanwhile."""
        room = os.path.join(self._scratch, "order")
        shutil.rmtree(room, ignore_errors=True)
        os.mkdir(room, 0o700)
        return room

    def _output(self, order: Mapping[str, Any]) -> Output:
        said, attempt = order["output"], int(order["attempt"])
        if said.get("path"):
            return LocalOutput(said["path"], "%s-%d" % (self._worker, attempt))
        return RelayedOutput(self._call, said["name"], attempt)

    def _reader(self, split: Mapping[str, Any]) -> Callable[[int, int], bytes]:
        def read(start: int, length: int) -> bytes:
            return self._call("file.read", {"url": split["url"], "start": start, "length": length})[1]  # type: ignore[no-any-return]

        return read

    def _counted(self, blocks: Iterator[bytes], split: Mapping[str, Any]) -> Iterator[bytes]:
        stop = split.get("stop") or split.get("size")
        size = max(1, int(stop or 0) - int(split.get("start") or 0))
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            if stop and not split.get("compression"):
                self.done_fraction = min(1.0, done / size)

    def _fetched(self, came: int, size: int) -> None:
        self.done_fraction += 0.5 * came / max(1, size)

    @staticmethod
    def _with_environment(part: Any, order: Mapping[str, Any]) -> Any:
        """A command with what it may want to know: Serai's names, and those that Hadoop streaming has."""
        if not isinstance(part, Command):
            return part
        split = order.get("input") or {}
        number = int(order["task"] if order["kind"] == "map" else order["partition"])
        told = {
            "SERAI_TASK": "%s-%d" % (order["kind"], number),
            "SERAI_ATTEMPT": str(order["attempt"]),
            "mapreduce_task_partition": str(number),
            "mapreduce_task_ismap": "true" if order["kind"] == "map" else "false",
        }
        if split:
            told["mapreduce_map_input_file"] = str(split.get("url"))
            told["mapreduce_map_input_start"] = str(split.get("start") or 0)
            if split.get("stop") is not None:
                told["mapreduce_map_input_length"] = str(int(split["stop"]) - int(split.get("start") or 0))
        return part.with_environment(told)


def remove(path: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(path)
