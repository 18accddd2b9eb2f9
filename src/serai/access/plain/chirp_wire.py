"""The Chirp protocol (version 2, as published by its makers): requests of a line, answers that begin with a number.

A connection carries one request at a time, so each process keeps some to a server. Nothing in it is encrypted: a
server is for a network that one trusts, and who is asked is known by name or address alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from serai.clock import SystemClock
from serai.errors import AccessError, HostUnreachable, LoginRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_PORT", "METHODS", "Connection", "Server", "close_all", "connected", "word"]

DEFAULT_PORT = 9094
METHODS = ("unix", "hostname", "address")
CONNECT_S, ANSWER_S = 10.0, 60.0
IDLE_S = 30.0  # a server ends connections that are idle for 60 s
MOST_KEPT = 8
LONGEST_LINE = 16 << 10
PIECE = 1 << 20
_CHALLENGE = re.compile(rb"/[^\0]*/[A-Za-z0-9._-]*challenge[A-Za-z0-9._-]*")
# What the protocol's negative numbers mean. The last ones stand for the server's own trouble.
_ERRORS = {
    -1: errno.EACCES, -2: errno.EACCES, -3: errno.ENOENT, -4: errno.EEXIST, -5: errno.EFBIG, -6: errno.ENOSPC,
    -7: errno.ENOMEM, -8: errno.EINVAL, -9: errno.EMFILE, -10: errno.EBUSY, -11: errno.EAGAIN, -12: errno.EBADF,
    -13: errno.EISDIR, -14: errno.ENOTDIR, -15: errno.ENOTEMPTY, -16: errno.EXDEV, -17: errno.EHOSTDOWN,
    -18: errno.ESRCH, -20: errno.ESTALE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Server:
    """Which server, and as whom.

    Attributes:
        host: a name or an address.
        port: of it.
        methods: by which it is told who we are, in their order: ``unix`` (a file is made on this very host, where the
            server runs), ``hostname``, ``address``.
    """

    host: str
    port: int = DEFAULT_PORT
    methods: tuple[str, ...] = METHODS

    @property
    def where(self) -> str:
        """As it is written in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def word(path: str | bytes) -> bytes:
    """A path as a request has it: blanks, percent signs and what is not printable are encoded."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    if b"\0" in raw:
        raise ValueError("no path holds a NUL")
    return quote_from_bytes(raw, safe="/!\"#$&'()*+,:;<=>?@[\\]^`{|}").encode("ascii")


class Connection:
    """A connection to a server, which knows who we are.

    Raises:
        HostUnreachable: it does not answer.
        LoginRefused: it takes none of our ways to say who we are.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.whole = True  # whether the last answer was read to its end
        self.used = 0.0
        try:
            self._socket = socket.create_connection((server.host, server.port), timeout=CONNECT_S)
        except OSError as error:
            raise HostUnreachable(
                f"the Chirp server does not answer: {error.strerror or error}", host=server.where
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = io.BufferedReader(self._socket.makefile("rb", buffering=0), 64 << 10)
        try:
            self._log_in()
            self._socket.settimeout(ANSWER_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        self.lose()
        self._file.close()
        self._socket.close()

    def lose(self) -> None:
        """Break it off, for whoever uses it."""
        self.whole = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _log_in(self) -> None:
        tried: list[str] = []
        with self._lost_told():
            for method in self.server.methods:
                self._socket.sendall(method.encode("ascii") + b"\n")
                if self.line() != b"yes":
                    tried.append(f"{method}: it is not asked for there")
                    continue
                if method == "unix":
                    self._answer_challenge()
                if self.line() == b"yes" and self.line() == b"yes":
                    self.line(), self.line()  # the method, and who it takes us for
                    return
                tried.append(f"{method}: refused")
        raise LoginRefused(
            "the Chirp server takes none of our ways to say who we are",
            host=self.server.where,
            tried=tuple(tried),
            hint="its owner allows more with chirp_server --auth",
        )

    def _answer_challenge(self) -> None:
        """Make the file that the server names, as whom we run; it is another host's word, so only in its own form."""
        path = self.line()
        made = False
        here = self._socket.getpeername()[0] == self._socket.getsockname()[0]
        if here and _CHALLENGE.fullmatch(path) and b"/../" not in path:
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                made = True
        try:
            self._socket.sendall(b"yes\n" if made else b"no\n")
            if made:
                self._file.peek(1)  # it has looked at the file when it answers
        finally:
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    # ---- requests

    def ask(self, *words: bytes | int, data: bytes | memoryview = b"", path: str = "") -> int:
        """Send a request; returns the number that the answer begins with.

        Args:
            words: of the request, encoded.
            data: what follows it.
            path: what errors name.

        Raises:
            OSError: what the server answers.
            HostUnreachable: the connection was lost.
        """
        line = b" ".join(b"%d" % one if isinstance(one, int) else one for one in words) + b"\n"
        with self._lost_told():
            self._socket.sendall(line)
            if len(data):
                self._socket.sendall(data)
            return self.answer(path)

    def answer(self, path: str = "") -> int:
        """The number that an answer begins with; see `ask`."""
        with self._lost_told():
            text = self.line().split()
        try:
            number = int(text[0])
        except (ValueError, IndexError):
            raise self.not_spoken() from None
        if number < 0:
            code = _ERRORS.get(number, errno.EIO)
            raise OSError(code, f"{os.strerror(code)} (on {self.server.where})", path)
        return number

    def not_spoken(self) -> AccessError:
        """What came is not of the protocol: nobody knows what would come next."""
        self.close()
        return AccessError("what answers there speaks no Chirp", host=self.server.where)

    def expect(self, number: int, least: int, most: int) -> None:
        """Make sure that an answer's number is one that may be.

        Raises:
            AccessError: it is none.
        """
        if not least <= number <= most:
            raise self.not_spoken()

    def line(self) -> bytes:
        """A line of an answer."""
        found = self._file.readline(LONGEST_LINE)
        if not found.endswith(b"\n"):
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "the server ended the connection")
        return found[:-1]

    def send(self, data: bytes | memoryview) -> None:
        """Send what follows a request."""
        with self._lost_told():
            self._socket.sendall(data)

    def pieces(self, size: int) -> Iterator[bytes]:
        """So many bytes of an answer; given up early, the connection is of no use any more."""
        self.whole = False
        while size:
            with self._lost_told():
                piece = self._file.read(min(PIECE, size))
            if not piece:
                self.close()
                raise HostUnreachable("the connection to the Chirp server was lost", host=self.server.where)
            size -= len(piece)
            if not size:
                self.whole = True
            yield piece
        self.whole = True

    @contextlib.contextmanager
    def _lost_told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self.close()
            raise HostUnreachable(
                f"the Chirp server did not answer for {self._socket.gettimeout() or ANSWER_S:.0f} s",
                host=self.server.where,
            ) from error
        except (ConnectionError, ValueError) as error:  # ValueError: it was closed meanwhile
            self.close()
            raise HostUnreachable(
                f"the connection to the Chirp server was lost: {error}", host=self.server.where
            ) from error


_lock = threading.Lock()
_kept: dict[Server, list[Connection]] = {}
_all: set[Connection] = set()
_clock = SystemClock()


def _forget_parents() -> None:
    _kept.clear()
    _all.clear()


os.register_at_fork(after_in_child=_forget_parents)


@contextlib.contextmanager
def connected(server: Server, *, new: bool = False) -> Iterator[Connection]:
    """A connection for some requests; it is kept for later ones unless it was lost.

    Args:
        server: which.
        new: whether it must be a new one, because a kept one may have been lost.
    """
    one: Connection | None = None
    with _lock:
        kept = _kept.setdefault(server, [])
        while kept and (one is None or not one.whole):
            one = kept.pop()
            if new or not one.whole or _clock.now() - one.used > IDLE_S:
                one.close()
                _all.discard(one)
                one = None
    if one is None:
        one = Connection(server)
        with _lock:
            _all.add(one)
    try:
        yield one
    finally:
        one.used = _clock.now()
        with _lock:
            if one.whole and len(kept) < MOST_KEPT:
                kept.append(one)
            else:
                one.close()
                _all.discard(one)


def close_all() -> None:
    """Close all connections; who uses one is told that it was lost."""
    with _lock:
        idle = {one for kept in _kept.values() for one in kept}
        busy = _all - idle
        _all.clear()
        for kept in _kept.values():
            kept.clear()
    for one in idle:
        one.close()
    for one in busy:
        one.lose()
