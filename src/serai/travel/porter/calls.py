"""Calls: each is asked once, may send and take bytes while it runs, and ends with one answer.

Frames carry the number of their call. Bytes flow under credit, so that a slow reader holds up its own call and nothing
else: a side sends no more than WINDOW bytes ahead of what the other said that it took.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time

from ..frames import data_header, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Optional

    Send = Callable[..., None]  # takes a frame, or its beginning and its body
    Answer = Optional["tuple[Mapping[str, Any], bytes]"]
    Handler = Callable[["Call"], Answer]

CALL = 1  # {"do", …}, body
DATA = 2  # body: a piece, in either direction
END = 3  # no more pieces from this side
TAKEN = 4  # {"bytes"}: the other side may send so many more
CANCEL = 5  # the caller does not want the answer any more
ANSWER = 6  # {…}, body: the call has ended well
FAILED = 7  # {"errno", "what", "path"} or {"kind", "what"}: it has ended badly

WINDOW = 4 << 20  # bytes
PIECE = 256 << 10  # bytes in a frame
PULSE_S = 2.0  # how often a long call gives a sign of life
MOST_THREADS = 64  # calls that run at once; more wait for their turn
MOST_WAITING = 10000  # calls; a caller that asks for more is refused


LATER: Answer = ({}, b"later")  # a handler returns this very object when `Call.end` will be called with the answer


class Cancelled(Exception):
    """The caller has gone, or does not want the answer any more."""


class Trouble(Exception):
    """A call cannot be done, for a reason that no errno says.

    Args:
        kind: a word that the caller can act on.
        what: one sentence.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what


class Call:
    """One call, as its handler sees it.

    Attributes:
        head: what was asked, with "do".
        body: the bytes that came with it.
    """

    def __init__(self, number: int, head: dict[str, Any], body: bytes, board: Switchboard) -> None:
        self.number = number
        self.head = head
        self.body = body
        self._board = board
        self._ready = threading.Condition()
        self._pieces: collections.deque[bytes] = collections.deque()
        self._ended = False
        self._cancelled = False
        self._room = WINDOW

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more; a handler that takes long looks now and then."""
        return self._cancelled

    def write(self, data: bytes) -> None:
        """Send bytes to the caller; waits while it has not taken what was sent before.

        Raises:
            Cancelled: nobody wants them.
        """
        view = memoryview(data)
        while view:
            with self._ready:
                if not self._room and not self._cancelled:
                    with self.aside():
                        while not self._room and not self._cancelled:
                            self._ready.wait()
                if self._cancelled:
                    raise Cancelled
                size = min(len(view), self._room, PIECE)
                self._room -= size
            self._board.send(data_header(DATA, self.number, size), view[:size])
            view = view[size:]

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes that the caller sends, until it says that these were all.

        Raises:
            Cancelled: it has gone.
        """
        while True:
            with self._ready:
                if not (self._pieces or self._ended or self._cancelled):
                    with self.aside():
                        while not (self._pieces or self._ended or self._cancelled):
                            self._ready.wait()
                if self._cancelled:
                    raise Cancelled
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
            yield piece
            self._board.send(pack(TAKEN, 0, self.number, {"bytes": len(piece)}))

    def wait(self, deadline_s: float) -> None:
        """Sleep, or wake when the call is cancelled.

        Raises:
            Cancelled: it was.
        """
        with self._ready:
            if deadline_s and not self._cancelled:
                self._ready.wait(deadline_s)
            if self._cancelled:
                raise Cancelled

    def end(self, make: Callable[[], Answer]) -> None:
        """End a call whose handler returned LATER.

        Args:
            make: returns the answer, or raises what a handler would.
        """
        self._board.finish(self, make)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While a handler waits for something that may be long in coming, its thread does not count."""
        self._board.go_aside()
        try:
            yield
        finally:
            self._board.come_back()

    def heed(self, op: int, head: Mapping[str, Any], body: bytes) -> None:
        """Take a frame that belongs to this call."""
        with self._ready:
            if op == DATA:
                self._pieces.append(body)
            elif op == END:
                self._ended = True
            elif op == TAKEN:
                self._room += int(head["bytes"])
            elif op == CANCEL:
                self._cancelled = True
            self._ready.notify_all()


class Pulse:
    """Gives a sign of life now and then, so that whoever waits can tell work from a hang."""

    def __init__(self, call: Call | None) -> None:
        self._call = call
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that work goes on.

        Raises:
            Cancelled: nobody waits for it.
        """
        if self._call is None:
            return
        if self._call.cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - self._last > PULSE_S:
            self._last = now
            self._call.write(b".")


class Switchboard:
    """Takes frames, runs the calls in threads, and sends the answers.

    Args:
        handlers: by what is asked; each returns the answer's head and body, or None for an empty one.
        send: sends a frame; may be called from several threads.
    """

    def __init__(self, handlers: Mapping[str, Handler], send: Send) -> None:
        self._handlers = handlers
        self.send = send
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._queue: queue.Queue[Call] = queue.Queue(MOST_WAITING)
        self._idle = 0
        self._threads = 0

    def feed(self, frame: bytes) -> None:
        """Take a frame from the caller."""
        op, _, number, head, body = unpack(frame)
        if op != CALL:
            call = self._calls.get(number)
            if call is not None:
                call.heed(op, head, body)
            return
        call = Call(number, head, body, self)
        with self._lock:
            self._calls[number] = call
            more = self._idle <= self._queue.qsize() and self._threads < MOST_THREADS
            self._threads += more
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._end(call, FAILED, {"kind": "full", "what": "%d calls wait already" % MOST_WAITING})
        if more:
            threading.Thread(target=self._work, daemon=True).start()

    def hang_up(self) -> None:
        """Cancel every call: the caller has gone."""
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            call.heed(CANCEL, {}, b"")

    def go_aside(self) -> None:
        """A thread waits for its caller: another may run in its place."""
        with self._lock:
            self._threads -= 1
            more = self._idle < self._queue.qsize()
            self._threads += more
        if more:
            threading.Thread(target=self._work, daemon=True).start()

    def come_back(self) -> None:
        """It goes on."""
        with self._lock:
            self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            call = self._queue.get()
            with self._lock:
                self._idle -= 1
            self._run(call)

    def _run(self, call: Call) -> None:
        def handle() -> Answer:
            call.wait(0)
            return self._handlers.get(str(call.head.get("do")), _nobody)(call)

        self.finish(call, handle)

    def finish(self, call: Call, make: Callable[[], Answer]) -> None:
        """End a call with what ``make`` returns or raises."""
        try:
            answer = make()
            if answer is LATER:
                return
            head, body = answer or ({}, b"")
            self._end(call, ANSWER, head, body)
        except Cancelled:
            self._end(call, FAILED, {"kind": "cancelled", "what": "it was cancelled"})
        except Trouble as trouble:
            self._end(call, FAILED, {"kind": trouble.kind, "what": trouble.what})
        except OSError as error:
            facts = {"errno": error.errno, "what": error.strerror or str(error), "path": _text(error.filename)}
            self._end(call, FAILED, facts)
        except Exception as error:  # noqa: BLE001 - whatever it is: the caller waits for an end
            self._end(call, FAILED, {"kind": "broken", "what": "%s: %s" % (type(error).__name__, error)})

    def _end(self, call: Call, op: int, head: Mapping[str, Any], body: bytes = b"") -> None:
        with self._lock:
            self._calls.pop(call.number, None)
        with contextlib.suppress(OSError):  # the caller has gone
            self.send(pack(op, 0, call.number, head, body))


def _nobody(call: Call) -> Answer:
    raise Trouble("usage", "nothing here does %s" % call.head.get("do"))


def _text(name: Any) -> str | None:
    if name is None or isinstance(name, str):
        return name
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
