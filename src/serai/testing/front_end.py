"""A front end made for tests: it speaks with one agent, in frames, over whatever link an engine gives."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any, Self

from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.dispatch.ports import Engine, Link, NodeSpec

CHECK_IN_S = 60.0
TASK_S = 40.0
KEEP = 64 * 1024  # bytes of a standard stream in a result; a longer one comes in pieces

_pack: Any = wire.pack  # what travels has no types
_unpack: Any = wire.unpack


class FrontEnd:
    """The front end's side of one link: collects what the agent says.

    Attributes:
        frames: (operation, lane, identifier, head, body) in the order of their arrival.
        ends: how often the end was told.
    """

    def __init__(self, engine: Engine, spec: NodeSpec) -> None:
        self.frames: list[tuple[int, int, int, dict[str, Any], bytes]] = []
        self.ends = 0
        self.overlaps = 0
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._bundle = 0
        self.spec = spec
        self.link: Link = engine.connect(spec, self._deliver)

    def _deliver(self, frame: bytes | None) -> None:
        alone = self._taking.acquire(blocking=False)
        try:
            with self._changed:
                self.overlaps += not alone
                if frame is None:
                    self.ends += 1
                else:
                    self.overlaps += self.ends  # nothing comes after the end
                    self.frames.append(_unpack(frame))
                self._changed.notify_all()
        finally:
            if alone:
                self._taking.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def send(self, op: int, lane: int = 0, ident: int = 0, head: object = None, body: bytes = b"") -> None:
        """Send a frame."""
        self.link.send(_pack(op, lane, ident, head, body))

    def wait(self, condition: Callable[[], Any], within_s: float, what: str) -> Any:
        """Wait until a condition over what came is true, and return it."""
        with self._changed:
            found = self._changed.wait_for(lambda: condition() or self.ends, within_s) and condition()
        words = [frame[3] for frame in self.frames if frame[0] in {wire.TROUBLE, wire.LANE_DIED}]
        assert found, f"{what}: not within {within_s:g} s (ended: {self.ends}, trouble: {words})"
        return found

    def wait_end(self, within_s: float) -> None:
        """Wait until the end was told."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ends, within_s), f"no end within {within_s:g} s"

    def check_in(self, *, silence_s: float = 60.0, beat_s: float = 0.2) -> dict[str, Any]:
        """Say hello; returns the ad."""
        hello = {"run": "contract", "beat": beat_s, "silence": silence_s, "keep": KEEP}
        self.send(wire.HELLO, head=hello | {"node": self.spec.name, "scratch": self.spec.scratch})
        ad: dict[str, Any] = self.wait(lambda: self._first(wire.AD), CHECK_IN_S, "the ad")[3]
        return ad

    def _first(self, op: int) -> Any:
        return next((frame for frame in self.frames if frame[0] == op), None)

    def work(self, ident: int, function: Callable[..., Any] | None = None) -> None:
        """Make a work: of commands, or of a function that every Python has."""
        body = b"" if function is None else pickle.dumps(function, 4)
        kind = "command" if function is None else "function"
        self.send(wire.WORK, wire.EVERY_LANE, ident, {"kind": kind, "init": 0}, body)

    def command(self, work: int, task: int, argv: Sequence[str], *, lane: int = 0, **more: Any) -> int:
        """Send a command; returns the number of its bundle."""
        self._bundle += 1
        head = {"w": work, "ids": [task], "argv": [list(argv)], **more}
        self.send(wire.RUN, lane, self._bundle, head)
        return self._bundle

    def calls(self, work: int, tasks: Sequence[int], arguments: Sequence[tuple[Any, ...]], *, lane: int = 0) -> None:
        """Send calls of a work's function as one bundle."""
        self._bundle += 1
        bodies = [pickle.dumps((one, {}), 4) for one in arguments]
        head = {"w": work, "ids": list(tasks), "len": [len(body) for body in bodies]}
        self.send(wire.RUN, lane, self._bundle, head, b"".join(bodies))

    def ended(self) -> dict[int, dict[str, Any]]:
        """How tasks ended, by their number; a task that ended twice is an error."""
        found: dict[int, dict[str, Any]] = {}
        for op, _, _, head, body in self.frames:
            if op not in {wire.RESULT, wire.LAST}:
                continue
            at = 0
            for n, task in enumerate(head.get("ids", ())):
                sizes = head["sizes"][n] if "sizes" in head else (0, 0, 0)
                out, err, result = (body[at + sum(sizes[:i]) : at + sum(sizes[: i + 1])] for i in range(3))
                at += sum(sizes)
                assert task not in found, f"task {task} ended twice"
                found[task] = {
                    "cause": head["cause"][n] if "cause" in head else 0,
                    "exit": head["exit"][n] if "exit" in head else 0,
                    "detail": (head.get("detail") or {}).get(str(n), ""),
                    "files": (head.get("files") or {}).get(str(n)),
                    "out": out,
                    "err": err,
                    "result": result,
                }
        return found

    def end_of(self, task: int, within_s: float = TASK_S) -> dict[str, Any]:
        """Wait for the end of a task."""
        found: dict[str, Any] = self.wait(lambda: self.ended().get(task), within_s, f"the end of task {task}")
        return found

    def value_of(self, task: int, within_s: float = TASK_S) -> Any:
        """Wait for the end of a call; returns what it returned."""
        return pickle.loads(self.end_of(task, within_s)["result"])  # noqa: S301 - of the suite's own functions

    def piece(self, task: int, **head: Any) -> bytes:
        """Put together what came as OUTPUT frames of a task with such a head, which must be whole."""
        data = bytearray()
        size = -1
        for op, _, ident, facts, body in self.frames:
            if op == wire.OUTPUT and ident == task and all(facts.get(name) == value for name, value in head.items()):
                assert facts["at"] == len(data)
                size = facts["size"]
                data += body
        assert len(data) == size
        return bytes(data)

    def put(self, key: int, data: bytes) -> None:
        """Bring an input, in pieces."""
        for at in range(0, max(1, len(data)), wire.CHUNK):
            head = {"at": at, "size": len(data), "mode": 0o644}
            self.send(wire.FILE, wire.EVERY_LANE, key, head, data[at : at + wire.CHUNK])
