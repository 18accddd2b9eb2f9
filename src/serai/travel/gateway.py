"""The gateway, seen from a node: calls of the front end over the one way that the node has.

The front end listens on a unix socket, which ssh forwards to a socket on the node: no port is opened anywhere. Whoever
connects proves that it knows the run's token, and the front end proves it back; the token itself never travels. Calls
are frames with an identifier, so several may be under way at once and a long one holds up no other.

A lost connection is an error and is not made again here: only the caller knows what was done and what was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import select
import socket
import stat
import threading
import time

from . import frames

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, BinaryIO

VERSION = 1
HELLO, PROVE, WELCOME, ASK, ANSWER, REFUSE = range(1, 7)
LARGEST = 8 * 1024 * 1024  # bytes of a body, either way
LARGEST_HEAD = 1024 * 1024  # bytes of a head
LARGEST_GREETING = 4096  # bytes of a frame before the token was proved
MOST_CALLS = 16  # under way at once on one connection
GREETING_S = 10.0  # for the exchange of proofs, each way
SHORTEST_SEND_S = 5.0  # for a frame to leave: a call with a short deadline still may not cut a frame in two


class GatewayError(Exception):
    """A call did not end well.

    Attributes:
        kind: ``not_found``, ``exists``, ``claimed``, ``usage``, ``unavailable`` or ``failed`` as the front end says it;
            ``lost`` (the connection), ``deadline`` (the call was made and nothing is known of it) or ``refused`` (the
            token) from here.
        what: one sentence.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(kind, what)
        self.kind = kind
        self.what = what

    def __str__(self) -> str:
        return "%s: %s" % (self.kind, self.what)

    @property
    def transient(self) -> bool:
        """Whether the same call may well succeed later, over a new connection where this one is lost."""
        return self.kind in ("lost", "deadline", "unavailable")


def proof(token: str, side: str, nonces: str) -> str:
    """What shows that a side knows the token: "front" or "node", and both nonces, so that no proof serves twice."""
    return hmac.new(token.encode(), (side + ":" + nonces).encode(), hashlib.sha256).hexdigest()


def same(one: object, other: str) -> bool:
    """Compare what a peer says is a proof, in a time that does not depend on where they differ."""
    return isinstance(one, str) and hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def read_frame(stream: BinaryIO, largest: int = LARGEST) -> tuple[int, int, dict[str, Any], bytes] | None:
    """Read one frame: (op, ident, head, body), or None at the end of the stream.

    Raises:
        ValueError: it is no frame, or larger than it may be.
        OSError: the connection broke, or was silent for longer than its timeout.
    """
    header = stream.read(frames.HEADER.size)
    if len(header) < frames.HEADER.size:
        return None
    _, _, _, head_length, body_length = frames.HEADER.unpack(header)
    if head_length > min(LARGEST_HEAD, largest) or body_length > largest:
        raise ValueError("a frame of %d bytes is larger than it may be" % (head_length + body_length))
    rest = stream.read(head_length + body_length)
    if len(rest) < head_length + body_length:
        return None
    op, _, ident, head, body = frames.unpack(header + rest)
    if not isinstance(head, dict):
        raise ValueError("the head of a frame is an object")  # noqa: TRY004 - a broken peer, like other such frames
    return op, ident, head, body


class Writer:
    """Sends frames over a socket, one at a time, from several threads, each with a deadline.

    Args:
        sock: a connected socket in blocking mode; another thread may read from it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, data: bytes, deadline_s: float) -> None:
        """Send a frame.

        Raises:
            OSError: the connection broke, or the other side did not take the frame in time; no more can be sent then.
        """
        end = time.monotonic() + deadline_s
        if not self._lock.acquire(timeout=deadline_s):
            raise OSError("the other side takes nothing")
        try:
            view = memoryview(data)
            while view:
                try:
                    view = view[self._sock.send(view, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    self._await_room(end)
        finally:
            self._lock.release()

    def _await_room(self, end: float) -> None:
        waiter = select.poll()
        waiter.register(self._sock, select.POLLOUT)
        if not waiter.poll(max(0.0, end - time.monotonic()) * 1000.0):
            raise OSError("the other side takes nothing")


class _Call:
    """A call that is under way."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.answer = None  # type: tuple[int, dict[str, Any], bytes] | None


class Gateway:
    """A connection to the front end. Its methods may be called from several threads.

    Args:
        address: the path of the socket on this node.
        token: what the run's own know.
        deadline_s: for the connection and the proofs.

    Raises:
        GatewayError: ``lost``: nobody answers there; ``refused``: the token is not the right one, or the other side
            does not know it.
    """

    def __init__(self, address: str, token: str, deadline_s: float = GREETING_S) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_CALLS)
        self._calls = {}  # type: dict[int, _Call]
        self._last = 0
        self._lost = ""  # why, once it is
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stream = self._sock.makefile("rb")
        self._writer = Writer(self._sock)
        try:
            self._sock.settimeout(deadline_s)
            self._sock.connect(address)
            self._greet(token, deadline_s)
            self._sock.settimeout(None)
        except (OSError, ValueError) as error:
            self._abandon()
            raise GatewayError("lost", "%s: %s" % (address, error)) from error
        except GatewayError:
            self._abandon()
            raise
        threading.Thread(target=self._receive, name="gateway", daemon=True).start()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Gateway:
        """Connect as ``$SERAI_GATEWAY`` and ``$SERAI_GATEWAY_TOKEN_FILE`` say.

        Raises:
            GatewayError: as of the class; ``usage``: one of them is not set; ``refused``: others may read the token.
        """
        environment = os.environ if environment is None else environment
        address, path = environment.get("SERAI_GATEWAY", ""), environment.get("SERAI_GATEWAY_TOKEN_FILE", "")
        if not address or not path:
            raise GatewayError("usage", "SERAI_GATEWAY and SERAI_GATEWAY_TOKEN_FILE name the front end's gateway")
        try:
            with open(path, encoding="ascii") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise GatewayError("refused", "%s can be read by others: chmod 600" % path)
                token = file.read(1024).strip()
        except (OSError, ValueError) as error:
            raise GatewayError("refused", "the token cannot be read: %s" % error) from error
        return cls(address, token)

    def __enter__(self) -> Gateway:  # noqa: PYI034 - Self is younger than the Pythons of nodes
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls that are under way are lost."""
        self._lose("it was closed")

    @property
    def lost(self) -> str:
        """Why the connection is no more; empty while it is there."""
        return self._lost

    def call(
        self, do: str, head: Mapping[str, Any] | None = None, body: bytes = b"", deadline_s: float = 60.0
    ) -> tuple[dict[str, Any], bytes]:
        """Let the front end do something.

        Args:
            do: the name of what is asked for, such as ``advert.put``.
            head: its parameters: values that JSON has.
            body: bytes that go with it, 8 MB at most.
            deadline_s: how long to wait for the answer. A deadline that passes takes nothing back.

        Returns:
            The answer's head and body.

        Raises:
            GatewayError: see there.
        """
        if len(body) > LARGEST:
            raise GatewayError("usage", "%s: %d bytes are more than %d" % (do, len(body), LARGEST))
        data = {"do": do, "head": dict(head or {})}
        end = time.monotonic() + deadline_s
        if not self._room.acquire(timeout=max(0.0, deadline_s)):
            raise GatewayError("deadline", "%s: %d calls were under way for %g s" % (do, MOST_CALLS, deadline_s))
        call = _Call()
        with self._lock:
            if self._lost:
                self._room.release()
                raise GatewayError("lost", "%s: %s" % (do, self._lost))
            self._last += 1
            ident = self._last
            self._calls[ident] = call
        try:
            self._writer.send(frames.pack(ASK, 0, ident, data, body), max(SHORTEST_SEND_S, deadline_s))
        except OSError as error:
            self._lose(str(error))
        except (TypeError, ValueError) as error:  # what JSON has not
            self._settle(ident, None)
            raise GatewayError("usage", "%s: %s" % (do, error)) from error
        if not call.over.wait(max(0.0, end - time.monotonic())):
            raise GatewayError("deadline", "%s: no answer within %g s" % (do, deadline_s))
        if call.answer is None:
            raise GatewayError("lost", "%s: %s" % (do, self._lost))
        op, head, body = call.answer
        if op != ANSWER:
            raise GatewayError(str(head.get("kind", "failed")), str(head.get("what", "")))
        return head, body

    def _greet(self, token: str, deadline_s: float) -> None:
        op, head = self._greeting()
        if op != HELLO or head.get("version") != VERSION or not isinstance(head.get("nonce"), str):
            raise ValueError("whoever answers there is no gateway of this version")
        mine = os.urandom(16).hex()
        nonces = head["nonce"] + mine
        said = {"nonce": mine, "proof": proof(token, "node", nonces)}
        self._writer.send(frames.pack(PROVE, head=said), deadline_s)
        op, head = self._greeting()
        if op != WELCOME or not same(head.get("proof"), proof(token, "front", nonces)):
            raise GatewayError("refused", "whoever answers at %s does not know the token" % self.address)

    def _abandon(self) -> None:
        self._stream.close()
        self._sock.close()

    def _greeting(self) -> tuple[int, dict[str, Any]]:
        frame = read_frame(self._stream, LARGEST_GREETING)
        if frame is None:
            raise ValueError("the connection was ended")
        op, _, head, _ = frame
        if op == REFUSE:
            raise GatewayError(str(head.get("kind", "refused")), str(head.get("what", "")))
        return op, head

    def _receive(self) -> None:
        why = "the front end ended it"
        try:
            while True:
                frame = read_frame(self._stream)
                if frame is None:
                    break
                op, ident, head, body = frame
                self._settle(ident, (op, head, body))
        except (OSError, ValueError) as error:
            why = str(error)
        self._lose(why)
        self._abandon()

    def _settle(self, ident: int, answer: tuple[int, dict[str, Any], bytes] | None) -> None:
        """End a call. Its place is free only now, also when nobody waits any more: the front end counts the same."""
        with self._lock:
            call = self._calls.pop(ident, None)
        if call is not None:
            call.answer = answer
            call.over.set()
            self._room.release()

    def _lose(self, why: str) -> None:
        with self._lock:
            first, self._lost = not self._lost, self._lost or why
            waiting = list(self._calls)
        if first:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes the receiving thread, which closes it
        for ident in waiting:
            self._settle(ident, None)
