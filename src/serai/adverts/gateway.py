"""The gateway at the front end: what nodes may ask of it, over the one way that they have.

It listens on a unix socket in a directory that only this user enters; ssh forwards it to the nodes
(``Connection.forward_back``). Whoever connects proves that it knows the token, and is shown the same.

Each request is handled in a thread of its own, because many of them wait: for work, for a change. There are limits on
connections, on requests under way per connection, and on threads; what is beyond a limit is refused as ``unavailable``
and not queued.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from serai.errors import DeadlineExceeded, QueueFull, SeraiError, UsageError
from serai.travel import frames
from serai.travel.gateway import (
    ANSWER,
    ASK,
    GREETING_S,
    HELLO,
    LARGEST,
    LARGEST_GREETING,
    MOST_CALLS,
    PROVE,
    REFUSE,
    VERSION,
    WELCOME,
    Writer,
    proof,
    read_frame,
    same,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO

__all__ = ["Gateway", "Handler", "Statistics", "told"]

Handler = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]  # (head, body) -> (head, body)

MOST_CONNECTIONS = 512
MOST_THREADS = 1024  # requests under way altogether: as good as all of them only wait
SEND_S = 60.0  # for a node to take an answer; one that does not is let go of
_SOCKET_PATH_BYTES = 104 - 1  # the shortest sun_path, with its NUL (BSD, macOS)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a gateway does now, and has done.

    Attributes:
        connections: that are open, proved or not yet.
        under_way: requests that are being handled.
        handled: requests that were answered, well or badly.
        refused: connections that did not prove that they know the token.
    """

    connections: int
    under_way: int
    handled: int
    refused: int


def told(error: Exception) -> dict[str, str]:
    """How a handler's error is told to the node: its kind and one sentence."""
    if isinstance(error, FileNotFoundError):
        kind = "not_found"
    elif isinstance(error, FileExistsError):
        kind = "exists"
    elif isinstance(error, PermissionError):
        kind = "claimed"
    elif isinstance(error, UsageError):
        kind = "usage"
    elif (isinstance(error, SeraiError) and error.transient) or isinstance(error, DeadlineExceeded):
        kind = "unavailable"
    else:
        return {"kind": "failed", "what": f"{type(error).__name__}: {error}"}
    return {"kind": kind, "what": error.what if isinstance(error, SeraiError) else str(error)}


class Gateway:
    """Answers the calls of nodes.

    Args:
        handlers: what may be asked for, by name. A handler takes the head and the body and returns an answer's; it is
            called from several threads, and what it raises is told to the node (see `told`). One that waits must end by
            itself, within a minute or so.
        room: where the socket's directory is made; below /tmp where this is too long for a socket's path.

    Attributes:
        address: the path of the socket.
        token: what a node must know. It is a secret: it goes to nodes by a file of mode 0600 or a standard input.
    """

    def __init__(self, handlers: Mapping[str, Handler], room: Path) -> None:
        self._handlers = dict(handlers)
        self._lock = threading.Lock()
        self._open: set[_Caller] = set()
        self._handled = self._refused = 0
        self._closed = False
        self._threads = _Threads(MOST_THREADS)
        self.token = secrets.token_hex(32)
        self._directory = _private_directory(room)
        self.address = str(self._directory / "g")
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # It gets its name when it listens: who is refused by that name may take its directory away (`_sweep`).
            self._server.bind(f"{self.address}~")
            self._server.listen(128)
            os.rename(f"{self.address}~", self.address)
        except OSError:
            self.close()
            raise
        threading.Thread(target=self._accept, name="gateway", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all nodes and remove the socket; what handlers still do is not waited for."""
        with self._lock:
            self._closed = True
            callers = list(self._open)
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for caller in callers:
            caller.end()
        self._threads.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def statistics(self) -> Statistics:
        """What it does now, and has done."""
        with self._lock:
            return Statistics(len(self._open), self._threads.busy, self._handled, self._refused)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                if self._closed:
                    return
                threading.Event().wait(0.05)  # no descriptor is free just now
                continue
            with self._lock:
                room = len(self._open) < MOST_CONNECTIONS and not self._closed
                caller = _Caller(sock)
                if room:
                    self._open.add(caller)
            if room:
                threading.Thread(target=self._serve, args=(caller,), name="gateway-node", daemon=True).start()
            else:
                with contextlib.suppress(OSError):
                    caller.say(REFUSE, 0, {"kind": "unavailable", "what": f"{MOST_CONNECTIONS} are connected"}, b"", 0)
                caller.close()

    def _serve(self, caller: _Caller) -> None:
        try:
            if not caller.greet(self.token):
                with self._lock:
                    self._refused += 1
                return
            while (frame := read_frame(caller.stream, LARGEST)) is not None:
                op, ident, said, body = frame
                if op != ASK:
                    return
                self._take(caller, ident, said, body)
        except (OSError, ValueError):
            return  # the node is gone, or broken: its calls are lost, and it knows
        finally:
            caller.close()
            with self._lock:
                self._open.discard(caller)

    def _take(self, caller: _Caller, ident: int, said: dict[str, Any], body: bytes) -> None:
        handler = self._handlers.get(str(said.get("do")))
        head = said.get("head")
        if handler is None or not isinstance(head, dict):
            caller.say(REFUSE, ident, {"kind": "usage", "what": f"nothing here does {said.get('do')!r}"}, b"", SEND_S)
            return
        if not caller.places.acquire(blocking=False):
            what = f"{MOST_CALLS} calls of this connection are under way"
            caller.say(REFUSE, ident, {"kind": "unavailable", "what": what}, b"", SEND_S)
        elif not self._threads.run(lambda: self._handle(caller, ident, handler, head, body)):
            caller.places.release()
            what = f"{MOST_THREADS} calls are under way"
            caller.say(REFUSE, ident, {"kind": "unavailable", "what": what}, b"", SEND_S)

    def _handle(self, caller: _Caller, ident: int, handler: Handler, head: dict[str, Any], body: bytes) -> None:
        op = ANSWER
        try:
            answer, data = handler(head, body)
            if len(data) > LARGEST:
                raise QueueFull(f"an answer of {len(data)} bytes is longer than {LARGEST}")  # noqa: TRY301 - told alike
            frame = frames.pack(op, 0, ident, answer, data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node is told
            frame = frames.pack(REFUSE, 0, ident, told(error))
        with self._lock:
            self._handled += 1
        caller.places.release()  # before the answer: the node counts its calls too, and may ask again at once
        with contextlib.suppress(OSError):
            caller.writer.send(frame, SEND_S)
            return
        caller.end()


class _Caller:
    """One connection of a node."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.stream: BinaryIO = sock.makefile("rb")
        self.writer = Writer(sock)
        self.places = threading.BoundedSemaphore(MOST_CALLS)

    def say(self, op: int, ident: int, head: dict[str, Any], body: bytes, deadline_s: float) -> None:
        """Send a frame."""
        self.writer.send(frames.pack(op, 0, ident, head, body), deadline_s)

    def greet(self, token: str) -> bool:
        """Exchange proofs; False when the node does not know the token."""
        self._sock.settimeout(GREETING_S)
        nonce = secrets.token_hex(16)
        self.say(HELLO, 0, {"version": VERSION, "nonce": nonce}, b"", GREETING_S)
        frame = read_frame(self.stream, LARGEST_GREETING)
        if frame is None:
            return False
        op, _, head, _ = frame
        nonces = f"{nonce}{head.get('nonce')}"
        if op != PROVE or not same(head.get("proof"), proof(token, "node", nonces)):
            self.say(
                REFUSE, 0, {"kind": "refused", "what": "the token is not the one of this gateway"}, b"", GREETING_S
            )
            return False
        self.say(WELCOME, 0, {"proof": proof(token, "front", nonces)}, b"", GREETING_S)
        self._sock.settimeout(None)
        return True

    def end(self) -> None:
        """Wake the thread that reads, which closes it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self.end()
        self.stream.close()
        self._sock.close()


class _Threads:
    """Threads that are made when all others are busy, end when they had nothing to do for a while, and hold up no exit.

    `concurrent.futures` would wait at exit for those that wait for work on behalf of a node.
    """

    IDLE_S = 10.0

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._alive = 0
        self._idle = 0  # that no job was promised to
        self._closed = False

    @property
    def busy(self) -> int:
        """How many work now."""
        return self._alive - self._idle

    def run(self, job: Callable[[], None]) -> bool:
        """Run it soon, on a thread of its own; False when there are too many."""
        with self._lock:
            if self._closed or (not self._idle and self._alive >= self._most):
                return False
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
                return True
            self._alive += 1
        threading.Thread(target=self._work, args=(job,), name="gateway-call", daemon=True).start()
        return True

    def close(self) -> None:
        """Let idle threads end; busy ones do when they are done."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._jobs.put(None)
            self._idle = 0

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            job()
            job = self._next()
        with self._lock:
            self._alive -= 1

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._closed:
                return None
            self._idle += 1
        while True:
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=self.IDLE_S)
            with self._lock:
                if self._idle:  # nothing was promised to us, so we may go
                    self._idle -= 1
                    return None


def _private_directory(room: Path) -> Path:
    """A new directory of mode 0700."""
    room = room.absolute()
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = "gw-"
    if len(str(room).encode()) + len("/gw-12345678/g~") > _SOCKET_PATH_BYTES:
        room, prefix = Path("/tmp"), "serai-gw-"  # noqa: S108 - the name below it is drawn, and ours alone
    _sweep(room, prefix)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=room))


def _sweep(room: Path, prefix: str) -> None:
    """Remove the directories of gateways of ours that were killed: nobody listens at their sockets."""
    for directory in room.glob(f"{prefix}????????"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            if directory.lstat().st_uid != os.geteuid():
                continue
            sock.settimeout(0)
            try:
                sock.connect(str(directory / "g"))
            except ConnectionRefusedError:
                shutil.rmtree(directory, ignore_errors=True)
