"""An agent behind pipes, driven by hand: every wait has a deadline, and nothing may be left of it at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from serai.travel.boot import EXECUTOR
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEADLINE_S = 40.0  # for what takes a moment on a machine at rest; a busy one has processes wait for their turn
LINUX = sys.platform.startswith("linux")


@dataclass
class Frame:
    """A frame that an agent sent."""

    op: int
    lane: int
    ident: int
    head: dict[str, Any]
    body: bytes


@dataclass
class Ended:
    """How a task ended."""

    cause: int
    code: int | None
    out: bytes
    err: bytes
    result: bytes
    detail: str | None
    took_us: int
    files: list[int] | None


@dataclass
class Outcome:
    """What became of a bundle."""

    ended: dict[int, Ended] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)
    frames: int = 0


def until(holds: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    """Wait for a condition of the world outside."""
    end = time.monotonic() + seconds
    pause = 0.001
    while not holds():
        assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
        time.sleep(pause)
        pause = min(0.05, pause * 2)


def living(token: str) -> list[int]:
    """The processes that have the token among their arguments or in their environment; zombies have neither."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
                if token.encode() in words:
                    found.append(int(place.name))
    return found


def as_result(frame: Frame) -> Frame:
    """The last result of a bundle as a result that says so: most tests ask for either."""
    if frame.op == wire.LAST:
        return Frame(wire.RESULT, frame.lane, frame.ident, {**frame.head, "last": 1}, frame.body)
    return frame


def unpack_results(frame: Frame, outcome: Outcome) -> None:
    """Add what a RESULT frame says to an outcome."""
    head, at = frame.head, 0
    outcome.frames += 1
    outcome.returned += head.get("returned", [])
    for n, task in enumerate(head.get("ids", [])):
        parts = []
        for size in head["sizes"][n] if "sizes" in head else (0, 0, 0):
            parts.append(frame.body[at : at + size])
            at += size
        assert task not in outcome.ended, f"task {task} ended twice"
        outcome.ended[task] = Ended(
            cause=head["cause"][n] if "cause" in head else 0,
            code=head["exit"][n] if "exit" in head else 0,
            out=parts[0],
            err=parts[1],
            result=parts[2],
            detail=head.get("detail", {}).get(str(n)),
            took_us=head["took"][n],
            files=head.get("files", {}).get(str(n)),
        )
    assert at == len(frame.body)


class AgentHarness:
    """An agent in a process of its own, and the frames that it sends.

    Args:
        scratch: where it makes its directory.
        python: the interpreter that it runs on.
        source: the program, in place of the usual one.
    """

    def __init__(self, scratch: Path, python: str = sys.executable, source: str | None = None) -> None:
        self.scratch = scratch
        self.run = "r" + uuid.uuid4().hex[:12]  # in the environment of every task: so they can be found
        self.errors = scratch / f"{self.run}.err"
        self.base: Path | None = None
        self.ad: dict[str, Any] = {}
        self.seen: list[Frame] = []  # frames that nobody waited for yet
        self._numbers = itertools.count(1)
        self._frames: queue.Queue[Frame | None] = queue.Queue()
        self._ended = False
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [python, "-u", "-c", source or EXECUTOR.pipe_source()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        reader = wire.Reader(self.process.stdout.fileno())
        while True:
            frames = reader.read()
            if frames is None:
                self._frames.put(None)
                return
            for frame in frames:
                self._frames.put(as_result(Frame(*wire.unpack(frame))))

    # ---- to the agent

    def send(
        self, op: int, lane: int = 0, ident: int = 0, head: dict[str, Any] | None = None, body: bytes = b""
    ) -> None:
        assert self.process.stdin is not None
        wire.write(self.process.stdin.fileno(), wire.pack(op, lane, ident, head, body))

    def hello(self, beat: float = 0.2, silence: float = 60.0, keep: int = 4096, **more: Any) -> dict[str, Any]:
        head = {"run": self.run, "node": "here", "beat": beat, "silence": silence, "keep": keep}
        self.send(wire.HELLO, head={**head, "scratch": str(self.scratch), **more})
        self.ad = self.wait(wire.AD).head
        self.base = Path(self.ad["base"])
        return self.ad

    def number(self) -> int:
        return next(self._numbers)

    def work(self, *argv: str, **head: Any) -> int:
        """Send a work of commands."""
        ident = self.number()
        self.send(wire.WORK, wire.EVERY_LANE, ident, {"kind": "command", "argv": list(argv), **head})
        return ident

    def function(self, function: Any, init: bytes = b"", **head: object) -> int:
        """Send a work of functions; bytes are taken as pickled already."""
        ident = self.number()
        body = function if isinstance(function, bytes) else cloudpickle.dumps(function)
        self.send(wire.WORK, wire.EVERY_LANE, ident, {"kind": "function", "init": len(init), **head}, init + body)
        return ident

    def bundle(self, work: int, ids: Sequence[int], lane: int = 0, body: bytes = b"", **head: Any) -> int:
        """Send a bundle and return its number."""
        ident = self.number()
        self.send(wire.RUN, lane, ident, {"w": work, "ids": list(ids), **head}, body)
        return ident

    def calls(self, work: int, calls: Sequence[tuple[Any, ...] | bytes], lane: int = 0) -> tuple[int, list[int]]:
        """Send a bundle of calls by their arguments; returns (bundle, tasks)."""
        bodies = [call if isinstance(call, bytes) else cloudpickle.dumps((call, {})) for call in calls]
        ids = [self.number() for _ in calls]
        return self.bundle(work, ids, lane, b"".join(bodies), len=[len(body) for body in bodies]), ids

    # ---- from the agent

    def wait(self, op: int, holds: Callable[[Frame], object] = lambda _: True, seconds: float = DEADLINE_S) -> Frame:
        """Return the first frame of an operation for which something holds; keeps the others."""
        for n, frame in enumerate(self.seen):
            if frame.op == op and holds(frame):
                return self.seen.pop(n)
        end = time.monotonic() + seconds
        while True:
            frame = self._next(end, f"operation {op}")
            if frame.op == op and holds(frame):
                return frame
            self.seen.append(frame)

    def _next(self, end: float, what: str) -> Frame:
        try:
            frame = self._frames.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            pytest.fail(f"no {what} before the deadline; seen: {self.seen[-5:]}; {self.said()}")
        if frame is None:
            self._ended = True
            pytest.fail(f"the agent ended while {what} was waited for; seen: {self.seen[-5:]}; {self.said()}")
        return frame

    @staticmethod
    def until(holds: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
        """Wait for a condition of the world outside."""
        until(holds, what, seconds)

    def tasks(self) -> list[int]:
        """The processes of tasks of this run."""
        return living(self.run)

    def has(self, op: int) -> bool:
        """Whether such a frame came that nobody waited for."""
        return any(one.op == op for one in self.seen)

    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8", errors="replace")[-2000:]

    def outcome(self, bundle: int, seconds: float = DEADLINE_S) -> Outcome:
        """Wait for the last of a bundle."""
        outcome = Outcome()
        end = time.monotonic() + seconds
        while True:
            frame = self.wait(wire.RESULT, lambda one: one.ident == bundle, end - time.monotonic())
            unpack_results(frame, outcome)
            if frame.head.get("last"):
                return outcome

    def one(
        self,
        *argv: str,
        lane: int = 0,
        inputs: Sequence[tuple[int, str]] = (),
        outputs: Sequence[str] = (),
        landing: Sequence[tuple[str, str]] = (),
        **head: Any,
    ) -> Ended:
        """Run one command and return how it ended."""
        facts: tuple[tuple[str, Sequence[Any]], ...] = (("in", inputs), ("out", outputs), ("land", landing))
        own: dict[str, Any] = {name: [values] for name, values in facts if values}
        task = self.number()
        return self.outcome(self.bundle(self.work(*argv, **head), [task], lane, b"", **own)).ended[task]

    def shell(self, script: str, lane: int = 0, **head: Any) -> Ended:
        return self.one("sh", "-c", script, lane=lane, **head)

    def call(self, function: Any, *args: Any, lane: int = 0, **head: Any) -> Ended:
        """Call one function and return how it ended."""
        bundle, [task] = self.calls(self.function(function, **head), [args], lane)
        return self.outcome(bundle).ended[task]

    def running(self, task: int) -> None:
        """Wait until a heartbeat says that a task runs."""
        self.wait(wire.BEAT, lambda one: any(now[0] == task for now in one.head.get("lanes", {}).values()))

    def lane_pid(self, lane: int = 0) -> int:
        ended = self.one("sh", "-c", "echo $PPID", lane=lane)
        return int(ended.out)

    # ---- its end

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def gone(self, seconds: float = DEADLINE_S) -> int:
        """Wait until the agent's process has ended, and check that nothing of the run is left."""
        code = self.process.wait(seconds)
        if LINUX:
            until(lambda: not living(self.run), f"no process of {self.run} is left")
        return code

    def close(self) -> None:
        self.hang_up()
        try:
            self.gone()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(DEADLINE_S)
            self._listener.join(DEADLINE_S)
            assert self.process.stdout is not None
            self.process.stdout.close()
        if self.base is not None:
            assert not self.base.exists()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    place = tmp_path / "scratch"
    place.mkdir()
    return place


@pytest.fixture
def start(scratch: Path) -> Iterator[Callable[..., AgentHarness]]:
    """Start agents; each must have ended, or ends well, with the test."""
    started: list[AgentHarness] = []

    def begin(python: str = sys.executable, source: str | None = None) -> AgentHarness:
        started.append(AgentHarness(scratch, python, source))
        return started[-1]

    yield begin
    for one in started:
        if one.process.returncode is None:
            one.close()
        else:
            one.hang_up()
            if one.base is not None:
                shutil.rmtree(one.base, ignore_errors=True)
            one._listener.join(DEADLINE_S)
            assert one.process.stdout is not None
            one.process.stdout.close()


@pytest.fixture
def agent(start: Callable[..., AgentHarness]) -> AgentHarness:
    """An agent that has checked in."""
    one = start()
    one.hello()
    return one


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentHarness]:
    """An agent for the many tests that leave it as it was; starting one is most of what they cost."""
    one = AgentHarness(tmp_path_factory.mktemp("lasting"))
    one.hello()
    yield one
    one.close()
