"""What a lane is given at once, and what it says about it."""

from __future__ import annotations

import itertools
import threading
import time

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

FLUSH_S = 0.1  # results wait for company no longer than this
FLUSH_BYTES = 4 << 20  # nor when there is so much of them


class Bundle:
    """Tasks of one work that came together."""

    def __init__(self, ident: int, head: dict[str, Any], body: bytes) -> None:
        self.ident = ident
        self.work: int = head["w"]
        self.ids: list[int] = head["ids"]
        self.argv: list[list[str]] | None = head.get("argv")
        self.inputs: list[list[tuple[Any, str]]] | None = head.get("in")
        self.reads: list[list[Any]] | None = head.get("reads")  # [name, number] of what tasks read from afar
        self.sources: dict[str, dict[str, Any]] = head.get("sources") or {}  # where that is, by number
        self.outputs: list[list[str]] | None = head.get("out")
        self.landing: list[list[tuple[str, str]]] | None = head.get("land")
        self.body = body
        self.next = 0  # index of the first task that was not started; moved under the lane's lock
        self._starts = [0, *itertools.accumulate(head.get("len") or ())]

    def payload(self, index: int) -> bytes:
        """The pickled arguments of a task."""
        return self.body[self._starts[index] : self._starts[index + 1]]


class Report:
    """What a lane sends: what is known of the tasks of a bundle and was not yet sent, and all other frames.

    Args:
        number: the lane's number.
        fd: where frames to the agent go.
        gone: called, by the thread that sends, when the agent is gone; does not return.
    """

    def __init__(self, number: int, fd: int, gone: Callable[[], object]) -> None:
        self._number = number
        self._fd = fd
        self._gone = gone
        self._out = threading.Lock()
        self.flushed = 0.0  # when results were sent last
        self._clear()

    def send(self, frame: bytes) -> None:
        """Send a frame; any thread may."""
        with self._out:
            try:
                wire.write(self._fd, frame)
            except OSError:
                self._gone()

    def send_stream(
        self, bundle: Bundle, task: int, which: int, size: int, chunks: Iterable[tuple[int, bytes]]
    ) -> None:
        """Send a standard stream that is too long for a result as a file."""
        for offset, data in chunks:
            head = {"stream": which, "size": size, "at": offset, "bundle": bundle.ident}
            self.send(wire.pack(wire.OUTPUT, self._number, task, head, data))

    def emit(self, bundle: Bundle, *, last: bool, returned: Sequence[int] = ()) -> None:
        """Send what is known of a bundle. Called with the lane's lock held, as `add` is."""
        head = self.head()
        if returned:
            head["returned"] = list(returned)
        op = wire.LAST if last else wire.RESULT
        self.send(wire.pack(op, self._number, bundle.ident, head, b"".join(self.parts)))
        self._clear()
        self.flushed = time.monotonic()

    def _clear(self) -> None:
        self.ids: list[int] = []
        self.causes: list[int] = []
        self.exits: list[int | None] = []
        self.started_us: list[int] = []
        self.took_us: list[int] = []
        self.rss_kb: list[int] = []
        self.sizes: list[list[int]] = []
        self.parts: list[bytes] = []
        self.details: dict[str, str] = {}
        self.outputs: dict[str, list[int]] = {}
        self.bytes = 0

    def add(  # noqa: PLR0913, PLR0917 - one call per task, on the hot path: facts side by side are quickest
        self,
        task: int,
        cause: int,
        code: int | None,
        started: float,
        took: float,
        rss_kb: int = 0,
        parts: tuple[bytes, bytes, bytes] = (b"", b"", b""),
        detail: str | None = None,
        outputs: list[int] | None = None,
    ) -> None:
        """Add a task that ended; times in seconds, parts are stdout, stderr and the pickled result."""
        if detail:
            self.details[str(len(self.ids))] = detail
        if outputs:
            self.outputs[str(len(self.ids))] = outputs
        self.ids.append(task)
        self.causes.append(cause)
        self.exits.append(code)
        self.started_us.append(int(started * 1e6))
        self.took_us.append(int(took * 1e6))
        self.rss_kb.append(rss_kb)
        out, err, result = len(parts[0]), len(parts[1]), len(parts[2])
        self.sizes.append([out, err, result])
        self.bytes += out + err + result
        self.parts.extend(parts)

    def head(self) -> dict[str, Any]:
        """The head of the frame: parallel lists, left out where all of their entries are the usual ones."""
        head: dict[str, Any] = {"ids": self.ids, "at": self.started_us, "took": self.took_us}
        if any(self.causes):
            head["cause"] = self.causes
        if any(self.exits) or None in self.exits:  # None: there was no exit
            head["exit"] = self.exits
        if any(self.rss_kb):
            head["rss"] = self.rss_kb
        if any(map(any, self.sizes)):
            head["sizes"] = self.sizes
        if self.details:
            head["detail"] = self.details
        if self.outputs:
            head["files"] = self.outputs
        return head
