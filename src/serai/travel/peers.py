"""Carrying files between nodes of a run: directly where they reach each other.

Each has a server. It listens with TLS only, and both sides must show the run's own certificate, exactly that one:
whoever has its key is of the run. A request is one frame {"path", "start", "size"}; the answer is a frame and, where it
is well, the bytes behind it. Only files that were registered are given, or that whoever has the server finds by a name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import ssl
import stat
import struct
import tempfile
import threading
import time

from . import frames
from .reading.patience import Pace, Paced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, BinaryIO, Union

    from .caching.objects import Filling

    Writable = Union[BinaryIO, Filling]

GET, GIVEN, REFUSED = 1, 2, 3
MOST_CONNECTIONS = 64
IDLE_S = 60.0  # a connection that asks for nothing is closed
CONNECT_S = 2.0  # for a connection and its handshake: a peer that cannot be reached is not waited for
UNREACHABLE_S = 60.0  # a peer that did not answer is not asked again for so long
TRANSFER_S = 30.0  # for some bytes to come
CHUNK = 1 << 18
LONGEST_HEAD = 1 << 16
STRANGER_S = 15.0  # for all that a peer does before it has shown a certificate or a token


class Unreachable(OSError):
    """A peer cannot be reached directly, or is not one of this run."""


class Gone(Exception):
    """A peer was reached and does not have what was asked for."""


class Changed(OSError):
    """A file is not what it was when it was offered."""


class Offer:
    """A file that others may read.

    Args:
        path: where it is.
        is_same: whether it is what is offered, by what there is to know of it.
    """

    def __init__(self, path: str, is_same: Callable[[os.stat_result], bool] = lambda _info: True) -> None:
        self.path = path
        self._is_same = is_same

    def check(self, file: BinaryIO) -> os.stat_result:
        """Make sure that an open file is it; returns what there is to know of it.

        Raises:
            Changed: it is not.
        """
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or not self._is_same(info):
            raise Changed(errno.ESTALE, "it has changed since the run looked at it")
        return info


def opened(offer: Offer) -> BinaryIO:
    """Open what is offered; whoever does closes it.

    Raises:
        OSError: it cannot be opened.
        Changed: it is something else.
    """
    file = open(os.open(offer.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0)  # noqa: SIM115 - see above
    try:
        offer.check(file)
    except OSError:
        file.close()
        raise
    return file


def pour(file: BinaryIO, start: int, size: int, connection: ssl.SSLSocket, offer: Offer) -> bool:
    """Send a part of an open file, the last of it only if it is still what was offered; returns whether all was."""
    file.seek(start)
    left = size
    while left:
        data = file.read(min(CHUNK, left))
        left -= len(data)
        if not left:
            try:
                offer.check(file)
            except Changed:
                return False
        if not data:
            return False  # it became shorter: the peer notices
        connection.sendall(data)
    return True


def context(certificate: str, key: str, scratch: str, server: bool) -> ssl.SSLContext:
    """A TLS context for the run's own: it has the certificate, and trusts nothing else.

    Args:
        certificate: of the run, in PEM.
        key: its private key, in PEM; it is on disk for a moment, readable for this user alone.
        scratch: a directory of mode 0700.
        server: for the side that listens.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False  # it is the certificate that is compared, not a name in it
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(cadata=certificate)
    fd, path = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(certificate.rstrip() + "\n" + key)
        made.load_cert_chain(path)
    finally:
        os.unlink(path)
    return made


def check_peer(connection: ssl.SSLSocket, certificate: bytes) -> None:
    """Make sure that the other side has the run's certificate itself, not one that it signed.

    Raises:
        ssl.SSLError: it has another.
    """
    if connection.getpeercert(binary_form=True) != certificate:
        raise ssl.SSLError("the peer's certificate is not that of the run")


def listening_sockets() -> list[socket.socket]:
    """Sockets of one port on every interface, IPv6 and IPv4; they listen only when a server begins to.

    Raises:
        OSError: there is no port to be had.
    """
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            both = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            try:
                both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                both.bind(("::", 0))
            except OSError:
                both.close()
                raise
            return [both]
    only = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        only.bind(("0.0.0.0", 0))  # noqa: S104 - peers are elsewhere; TLS and the certificate keep others out
    except OSError:
        only.close()
        raise
    return [only]


def own_addresses() -> list[str]:
    """The addresses under which other hosts may reach this one."""
    found: list[str] = []
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        found.append(connection[2])  # where the front end, at least, found it
    found += _interface_addresses()
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)]
    return [one for one in dict.fromkeys(found) if not one.startswith(("127.", "fe80:")) and one not in ("::1", "")]


def _interface_addresses() -> list[str]:
    """Linux: the first address of each interface, and those of IPv6."""
    found: list[str] = []
    try:
        import fcntl  # noqa: PLC0415 - Unix only

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
                    found.append(socket.inet_ntoa(answer[20:24]))
    except (ImportError, OSError, AttributeError):
        pass
    with contextlib.suppress(OSError, ValueError), open("/proc/net/if_inet6") as file:
        found += [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in file]
    return found


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS's own takes away what another thread reads from


def _finds_nothing(_name: str) -> None:
    """What a server finds that knows registered files only."""


class Server:
    """Gives files to others of the run.

    Args:
        sockets: bound, not listening yet.
        certificate: of the run, in PEM.
        key: its key.
        scratch: a directory of mode 0700.
        find: gives a file that was not registered, by the name that a peer asked for; None where there is none. Any
            thread.
        at_once: so many transfers at a time; whoever asks for one more is refused, and tries somebody else.
        by_http: answers one request of a peer that shows no certificate, and says whether there may be another: (its
            connection, what comes from it, what to call when it has shown that it may ask). Without this, such peers
            are refused.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        certificate: str,
        key: str,
        scratch: str,
        find: Callable[[str], Offer | None] = _finds_nothing,
        at_once: int = MOST_CONNECTIONS,
        by_http: Callable[[ssl.SSLSocket, BinaryIO, Callable[[], object]], bool] | None = None,
    ) -> None:
        self._by_http = by_http
        self._find = find
        self._turns = threading.Semaphore(at_once)
        self._sockets = list(sockets)
        self._context = context(certificate, key, scratch, server=True)
        if by_http is not None:
            self._context.verify_mode = ssl.CERT_OPTIONAL
        self._certificate = ssl.PEM_cert_to_DER_cert(certificate)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        for one in self._sockets:
            one.listen(MOST_CONNECTIONS)
            threading.Thread(target=self._accept, args=(one,), name="peers", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._sockets[0].getsockname()[1])

    def register(self, path: str, size: int) -> None:
        """Let peers read a file."""
        with self._lock:
            self._files[path] = size

    def forget(self, path: str) -> None:
        """Let them no more."""
        with self._lock:
            self._files.pop(path, None)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed.set()
            connections = list(self._open)
        for one in (*self._sockets, *connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            one.close()

    def _accept(self, listening: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                if self._closed.is_set():
                    return
                time.sleep(0.05)  # no descriptor is left: others will be closed
                continue
            with self._lock:
                full = self._closed.is_set() or len(self._open) >= MOST_CONNECTIONS
                if not full:
                    self._open.add(connection)
            if full:
                connection.close()
            else:
                threading.Thread(target=self._serve, args=(connection,), name="peer", daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            plain.settimeout(CONNECT_S * 5)
            with self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection:
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(connection)
                try:
                    self._talk(connection)
                finally:
                    with self._lock:
                        self._open.discard(connection)
        except (OSError, ValueError, TypeError):
            pass  # no peer of this run, or one that has gone
        finally:
            with self._lock:
                self._open.discard(plain)
            plain.close()

    def _talk(self, connection: ssl.SSLSocket) -> None:
        """Answer a peer's requests. Until it has proved that it is one, it has little time, however it spends it."""
        strange = threading.Timer(STRANGER_S, _shut, (connection,))
        strange.daemon = True
        strange.start()
        try:
            connection.do_handshake()
            by_http = self._by_http if connection.getpeercert(binary_form=True) is None else None
            if by_http is None:
                check_peer(connection, self._certificate)
                strange.cancel()
            connection.settimeout(IDLE_S)
            stream = connection.makefile("rb")
            while by_http(connection, stream, strange.cancel) if by_http else self._answer(connection, stream):
                pass
        finally:
            strange.cancel()

    def _answer(self, connection: ssl.SSLSocket, stream: BinaryIO) -> bool:
        """Answer one request; whether there may be another."""
        request = read_frame(stream)
        if request is None:
            return False
        _, head = request
        path, start, size = str(head.get("path")), int(head.get("start", -1)), int(head.get("size", -1))
        if not self._turns.acquire(blocking=False):
            connection.sendall(frames.pack(REFUSED, head={"what": "it serves as many as it may", "busy": 1}))
            return True
        try:
            return self._give(connection, path, start, size)
        finally:
            self._turns.release()

    def _give(self, connection: ssl.SSLSocket, name: str, start: int, size: int) -> bool:
        with self._lock:
            has = self._files.get(name)
        offer = Offer(name) if has is not None else self._find(name)
        nothing = frames.pack(REFUSED, head={"what": "there is no such part of %s" % name})
        if offer is None:
            connection.sendall(nothing)
            return True
        try:
            file = opened(offer)
        except OSError as error:
            connection.sendall(frames.pack(REFUSED, head={"what": "%s: %s" % (name, error.strerror)}))
            return True
        with file:
            there = os.fstat(file.fileno()).st_size if has is None else has
            if start < 0 or size < 0 or start + size > there:
                connection.sendall(nothing)
                return True
            connection.sendall(frames.pack(GIVEN, head={"size": size}))
            return pour(file, start, size, connection, offer)


def read_frame(stream: BinaryIO) -> tuple[int, dict[str, Any]] | None:
    """Read a frame that has no body: (op, head), or None at the end.

    Raises:
        ValueError: it is none.
    """
    header = stream.read(frames.HEADER.size)
    if len(header) < frames.HEADER.size:
        return None
    _, _, _, head_length, body_length = frames.HEADER.unpack(header)
    if head_length > LONGEST_HEAD or body_length:
        raise ValueError("no frame of a peer")
    op, _, _, head, _ = frames.unpack(header + stream.read(head_length))
    return op, head


class Peers:
    """Reads from others' servers; keeps connections, and remembers whom it cannot reach.

    Args:
        certificate: of the run, in PEM.
        key: its key.
        scratch: a directory of mode 0700.
    """

    def __init__(self, certificate: str, key: str, scratch: str) -> None:
        self._context = context(certificate, key, scratch, server=False)
        self._certificate = ssl.PEM_cert_to_DER_cert(certificate)
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, ...], list[tuple[ssl.SSLSocket, io.BufferedReader]]] = {}
        self._unreachable: dict[tuple[str, ...], float] = {}  # until when that is believed

    def fetch(self, addresses: Iterable[str], port: int, wanted: dict[str, Any], into: Writable) -> None:
        """Read a part of a peer's file.

        Args:
            addresses: of the peer, tried in their order.
            port: of its server.
            wanted: ``path``, ``start`` and ``size``.
            into: where the bytes go; what came of a broken connection is overwritten.

        Raises:
            Unreachable: there is no way, or it broke; the caller may know another.
            Gone: the peer has no such part.
        """
        peer = (*addresses, str(port))
        with self._lock:
            if time.monotonic() < self._unreachable.get(peer, 0.0):
                raise Unreachable("it could not be reached before")
            idle = self._idle.get(peer)
            kept = idle.pop() if idle else None
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):
                self._ask(peer, kept, wanted, into)
                return
        try:
            self._ask(peer, self._connect(peer[:-1], port), wanted, into)
        except (OSError, ValueError) as error:
            with self._lock:
                self._unreachable[peer] = time.monotonic() + UNREACHABLE_S
            raise Unreachable("%s: %s" % (" ".join(peer), error)) from error

    def _connect(self, addresses: Sequence[str], port: int) -> tuple[ssl.SSLSocket, io.BufferedReader]:
        error: OSError = Unreachable("it has no address")
        for address in addresses:
            try:
                plain = socket.create_connection((address, port), CONNECT_S)
            except OSError as one:
                error = one
                continue
            try:
                connection = self._context.wrap_socket(plain)
                check_peer(connection, self._certificate)
            except (OSError, ValueError) as one:
                plain.close()
                error = one if isinstance(one, OSError) else Unreachable(str(one))
                continue
            connection.settimeout(TRANSFER_S)
            raw = Paced(connection.makefile("rb", buffering=0), Pace(TRANSFER_S))
            return connection, io.BufferedReader(raw)
        raise error

    def _ask(
        self,
        peer: tuple[str, ...],
        way: tuple[ssl.SSLSocket, io.BufferedReader],
        wanted: dict[str, Any],
        into: Writable,
    ) -> None:
        connection, stream = way
        stream.raw.pace = Pace(TRANSFER_S)  # type: ignore[attr-defined]  # as `_connect` made it
        well = False
        try:
            connection.sendall(frames.pack(GET, head=wanted))
            answer = read_frame(stream)
            if answer is None:
                raise Unreachable("it closed the connection")
            op, head = answer
            if op == REFUSED:
                well = True
                raise Gone(str(head.get("what")))
            into.seek(0)
            into.truncate()
            left = int(wanted["size"])
            while left:
                data = stream.read(min(CHUNK, left))
                if not data:
                    raise Unreachable("the connection ended early")
                into.write(data)
                left -= len(data)
            well = True
        finally:
            if well:
                with self._lock:
                    self._idle.setdefault(peer, []).append(way)
            else:
                stream.close()
                connection.close()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            ways = [way for idle in self._idle.values() for way in idle]
            self._idle.clear()
        for connection, stream in ways:
            stream.close()
            connection.close()
