"""The porter's other end: calls to the small process that a host runs for jobs and files.

One process per host and purpose, over one session of the host's one connection; on this machine, a child. Calls are
pipelined: a hundred may be under way, so a link of 175 ms costs its round trip once and not for each of them.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from serai.access.starting import start_here, start_there
from serai.errors import AccessError, DeadlineExceeded, HostUnreachable, SeraiError, UsageError
from serai.travel.boot import PORTER
from serai.travel.frames import data_header, pack, unpack
from serai.travel.porter.calls import ANSWER, CALL, CANCEL, DATA, END, FAILED, PIECE, TAKEN, WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serai.access.openssh import Target

__all__ = ["Call", "Porter", "close_all", "shared_porter"]

CALL_S = 60.0
MOST_CALLS = 1000  # under way at a time; who asks for more waits


class Call:
    """One call that is under way. Bytes may be sent with `write` and taken from `pieces` until it ends."""

    def __init__(self, porter: Porter, number: int, what: str) -> None:
        self._porter = porter
        self._number = number
        self._what = what
        self._ready = threading.Condition()
        self._pieces: collections.deque[bytes] = collections.deque()
        self._room = WINDOW
        self._answer: tuple[dict[str, Any], bytes] | None = None
        self._error: BaseException | None = None

    def write(self, data: bytes | memoryview, deadline_s: float = CALL_S) -> None:
        """Send bytes; waits while the host has not taken what was sent before.

        Raises:
            DeadlineExceeded: it took nothing for so long.
            OSError, SeraiError: the call has failed, as `result` says.
        """
        view = memoryview(data)
        while view:
            with self._ready:
                self._wait(lambda: self._room or self._ended, deadline_s, "to take what was sent")
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise AccessError(f"{self._what} ended before it had taken all", host=self._porter.host)
                size = min(len(view), self._room, PIECE)
                self._room -= size
            self._porter.send(data_header(DATA, self._number, size), view[:size])
            view = view[size:]

    def finish(self) -> None:
        """Say that no more bytes follow."""
        self._porter.send(pack(END, 0, self._number))

    def pieces(self, deadline_s: float = CALL_S) -> Iterator[bytes]:
        """Yield the bytes that the host sends, until the call ends.

        Raises:
            DeadlineExceeded: nothing came for so long.
            OSError, SeraiError: the call has failed.
        """
        while True:
            with self._ready:
                self._wait(lambda: self._pieces or self._ended, deadline_s, "to send more")
                if not self._pieces:
                    if self._error is not None:
                        raise self._error
                    return
                piece = self._pieces.popleft()
            yield piece
            with contextlib.suppress(OSError, SeraiError):  # it has sent all and gone: nobody needs to know
                self._porter.send(pack(TAKEN, 0, self._number, {"bytes": len(piece)}))

    def result(self, deadline_s: float = CALL_S) -> tuple[dict[str, Any], bytes]:
        """The answer: a head and a body.

        Raises:
            DeadlineExceeded: there is none within ``deadline_s``.
            OSError: what the host's system said: `FileNotFoundError`, `PermissionError` and so on.
            SeraiError: the connection was lost, or the host cannot do it.
        """
        with self._ready:
            self._wait(lambda: self._ended, deadline_s, "to end")
            if self._error is not None:
                raise self._error
            assert self._answer is not None  # noqa: S101 - for the reader of types
            return self._answer

    @property
    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self._ended

    def cancel(self) -> None:
        """Give it up."""
        if not self._ended:
            with contextlib.suppress(OSError, SeraiError):
                self._porter.send(pack(CANCEL, 0, self._number))

    def let_go(self) -> None:
        """Give it up some time soon. Takes no lock, so it may stand in what the garbage collector runs."""
        if not self._ended:
            self._porter.let_go.append(self._number)

    @property
    def _ended(self) -> bool:
        return self._answer is not None or self._error is not None

    def _wait(self, until: Any, deadline_s: float, what: str) -> None:
        end = time.monotonic() + deadline_s
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                self.cancel()
                raise DeadlineExceeded(
                    f"{self._what}: waited {deadline_s:g} s for it {what}", host=self._porter.host, command=self._what
                )
            self._ready.wait(min(left, threading.TIMEOUT_MAX))

    def heed(self, op: int, head: dict[str, Any], body: bytes) -> None:
        """Take a frame of this call."""
        with self._ready:
            if op == DATA:
                self._pieces.append(body)
            elif op == TAKEN:
                self._room += int(head["bytes"])
            elif op == ANSWER:
                self._answer = head, body
            elif op == FAILED:
                self._error = self._porter.error(head, self._what)
            self._ready.notify_all()

    def fail(self, error: BaseException) -> None:
        """End it: the porter is gone."""
        with self._ready:
            if not self._ended:
                self._error = error
            self._ready.notify_all()


class Porter:
    """Calls to one porter. Its methods may be called from several threads.

    Args:
        target: the host, None for this machine.
        python: the interpreter there, as text for its shell; by default ``python3``, here the one that runs this.

    Raises:
        AccessError: the host cannot be reached, or has no fitting interpreter.
    """

    def __init__(self, target: Target | None, python: str | None = None) -> None:
        self.host = None if target is None else target.host
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._slots = threading.BoundedSemaphore(MOST_CALLS)
        self._gone = False
        self.let_go: collections.deque[int] = collections.deque()  # calls that nobody wants any more
        if target is None:
            self._link = start_here(PORTER, python, self._deliver)
        else:
            self._link, _ = start_there(PORTER, target, python, self._deliver)

    def submit(self, do: str, head: Mapping[str, Any] | None = None, body: bytes = b"") -> Call:
        """Begin a call.

        Args:
            do: what is asked, such as ``files.stat``.
            head: its arguments.
            body: bytes that go with it.

        Raises:
            HostUnreachable: the connection was lost.
        """
        while self.let_go:
            with contextlib.suppress(IndexError):  # another thread was faster
                self.send(pack(CANCEL, 0, self.let_go.popleft()))
        self._slots.acquire()
        with self._lock:
            if self._gone:  # its end was told to the calls of then: nobody would tell this one
                self._slots.release()
                raise self._lost()
            number = next(self._numbers)
            call = self._calls[number] = Call(self, number, do)
        try:
            self.send(pack(CALL, 0, number, {"do": do, **(head or {})}, body))
        except BaseException:
            self._forget(number)
            raise
        return call

    def call(
        self, do: str, head: Mapping[str, Any] | None = None, body: bytes = b"", *, deadline_s: float = CALL_S
    ) -> tuple[dict[str, Any], bytes]:
        """Ask, and wait for the answer; see `submit` and `Call.result`."""
        return self.submit(do, head, body).result(deadline_s)

    def send(self, frame: bytes, body: bytes | memoryview = b"") -> None:
        """Send a frame, or its beginning and its body."""
        try:
            self._link.send(frame, body)
        except OSError:
            self._gone = True  # the next who asks for a porter gets another
            raise self._lost() from None

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._gone

    def begin_close(self) -> None:
        """Let it end; `close` waits for that. Many end sooner so than one after another."""
        self._link.end_input()

    def close(self) -> None:
        """End it; calls under way fail."""
        self._link.close()

    def error(self, head: Mapping[str, Any], what: str) -> BaseException:
        """The exception that the head of a FAILED frame stands for."""
        if head.get("errno"):
            path = head.get("path")
            error = OSError(head["errno"], head["what"] if path else f"{head['what']} (on {self.host})", path)
            error.add_note(f"on {self.host}")  # the sentence of one with a path is the system's own
            return error
        kind = UsageError if head.get("kind") == "usage" else AccessError
        return kind(str(head.get("what")), host=self.host, command=what)

    def _lost(self) -> HostUnreachable:
        return HostUnreachable("the connection to its porter was lost", host=self.host)

    def _forget(self, number: int) -> Call | None:
        with self._lock:
            call = self._calls.pop(number, None)
        if call is not None:
            self._slots.release()
        return call

    def _deliver(self, frame: bytes | None) -> None:
        if frame is None:
            with self._lock:
                self._gone = True
                numbers = list(self._calls)
            for number in numbers:
                call = self._forget(number)
                if call is not None:
                    call.fail(self._lost())
            return
        op, _, number, head, body = unpack(frame)
        call = self._forget(number) if op in {ANSWER, FAILED} else self._calls.get(number)
        if call is not None:
            call.heed(op, head, body)


class _Slot:
    """A place for a porter; whoever finds it empty starts one, and others wait for that."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while a porter is started, which takes as long as a login
        self.porter: Porter | None = None
        self.ended = False  # by `close_all`; this and what is put into `porter` change under `_lock`


_lock = threading.Lock()
_slots: dict[tuple[Target | None, str, str | None], _Slot] = {}


def shared_porter(target: Target | None, purpose: str, python: str | None = None) -> Porter:
    """The porter of a host for a purpose (``jobs``, ``files``): one each, made again when it was lost.

    Purposes have their own, so that a large file does not hold up a job's start.

    Raises:
        AccessError: see `Porter`.
    """
    with _lock:
        slot = _slots.setdefault((target, purpose, python), _Slot())
    with slot.lock:
        porter = slot.porter
        if porter is not None and porter.alive:
            return porter
        if porter is not None:
            porter.close()
        porter = None if slot.ended else Porter(target, python)
        with _lock:
            if not slot.ended and porter is not None:
                slot.porter = porter
                return porter
        if porter is not None:
            porter.close()
        host = "local" if target is None else target.host
        raise HostUnreachable("everything that is shared was ended meanwhile", host=host)


def close_all() -> None:
    """End every shared porter. One that is being started is not waited for: whoever starts it ends it."""
    with _lock:
        slots = list(_slots.values())
        _slots.clear()
        for slot in slots:
            slot.ended = True
    for slot in slots:
        if slot.porter is not None:
            slot.porter.begin_close()
    for slot in slots:
        if slot.porter is not None:
            slot.porter.close()


atexit.register(close_all)  # after `connections` was imported, so it runs before connections are closed
os.register_at_fork(after_in_child=_slots.clear)
