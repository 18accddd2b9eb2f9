"""Sources over HTTP: a storage appliance, and the objects that an executor of the run has in its cache.

Plain HTTP is spoken to this host only. Else it is TLS: the certificate is known by its fingerprint, compared before
anything is said, or signed by an authority that this host trusts. The token is read from a file that only this user may
read, and anew when it is refused, since tokens are renewed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import http.client
import io
import json
import os
import socket
import ssl
import stat as modes
import threading
import time
import urllib.parse

from .patience import Pace, Paced
from .sources import Source, Stat, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from .sources import Content

CONNECT_S = 5.0  # for a name, and for a connection to any of its addresses
MOST_ADDRESSES = 4
SILENT_S = 30.0
MOST_KEPT = 12  # connections
CHUNK = 1 << 18
SMALL = 1 << 16
LONGEST_TOKEN = 4096
MOST_ROWS_BYTES = 256 << 20
_STATUS = {
    301: errno.EISDIR,
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ENOENT,
    405: errno.EACCES,
    409: errno.EIO,
    412: errno.ESTALE,
    507: errno.ENOSPC,
}


def make(said: Mapping[str, Any]) -> Source:
    """A source from its description, see `mount.wrap.make`."""
    server = Server(
        str(said["host"]),
        int(said["port"]),
        fingerprint=said.get("fingerprint"),
        token_file=said.get("token_file"),
        silent_s=float(said.get("silent_s", SILENT_S)),
    )
    if said["kind"] == "peer":
        digest = str(said.get("digest", ""))
        made = Objects(server, str(said.get("object") or "objects/" + digest), int(said["size"]), digest)
        made.name = str(said.get("name", ""))
        return made
    return Store(server, str(said.get("path", "/")))


def token_from(path: str) -> str:
    """The token in a file.

    Raises:
        OSError: it cannot be read, or others may read it.
    """
    with open(path, encoding="ascii") as file:
        if modes.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PermissionError(errno.EACCES, "others may read it: chmod 600", path)
        return file.read(LONGEST_TOKEN).strip()


class Server:
    """Connections to one server; threads may share it.

    Args:
        host: a name or an address.
        port: of it.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
        token_file: where the token is; None for none.
        silent_s: how long it may be silent.
        plain: whether it is spoken to without TLS; None: only if it is this host.
        abroad: whether it must not be this host, nor on its link, whatever its name says.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        fingerprint: str | None = None,
        token_file: str | None = None,
        silent_s: float = SILENT_S,
        plain: bool | None = None,
        abroad: bool = False,
    ) -> None:
        self.host, self.port, self.silent_s, self._abroad = host, port, silent_s, abroad
        here = self.host in ("localhost", "::1") or self.host.startswith("127.")
        self._plain = here if plain is None else plain
        self._context: ssl.SSLContext | None = None
        self.fingerprint = fingerprint.lower().split(":", 1)[-1].replace(":", "") if fingerprint else None
        self._token_file = token_file
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._token: str | None = None

    @property
    def where(self) -> str:
        """The server, for people."""
        return "%s:%d" % (self.host, self.port)

    def _connection(self) -> http.client.HTTPConnection:
        secure = self.fingerprint or not self._plain
        if secure:  # which names the port in its requests only if it is not the usual one: signatures are over that
            made: http.client.HTTPConnection = http.client.HTTPSConnection(self.host, self.port, context=self._tls())
        else:
            made = http.client.HTTPConnection(self.host, self.port)
        made.auto_open = 0  # it would connect again in a way of its own
        made.response_class = self._response  # type: ignore[assignment]  # whatever makes one
        made.sock = plain = _connected(self.host, self.port, self._abroad)
        if secure:
            try:
                made.sock = self._wrapped(plain)
            except BaseException:
                plain.close()
                raise
        made.sock.settimeout(self.silent_s)
        with contextlib.suppress(OSError):
            made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return made

    def _response(self, *args: Any, **more: Any) -> http.client.HTTPResponse:
        """An answer that is given up when it comes too slowly, its head included."""
        made = http.client.HTTPResponse(*args, **more)
        made.fp = io.BufferedReader(Paced(made.fp.detach(), Pace(self.silent_s)))
        return made

    def _tls(self) -> ssl.SSLContext:
        """How TLS is talked; made once, because hundreds of certificates are read for it."""
        if self._context is None:
            self._context = _pinned() if self.fingerprint else ssl.create_default_context()
        return self._context

    def _wrapped(self, plain: socket.socket) -> ssl.SSLSocket:
        """TLS to the server itself; nothing is said to anybody else."""
        wrapped = self._tls().wrap_socket(plain, server_hostname=self.host)
        shown = wrapped.getpeercert(binary_form=True) or b""
        if self.fingerprint and not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), self.fingerprint):
            wrapped.close()
            raise PermissionError(errno.EACCES, "the server's certificate is not the one that is known")
        return wrapped

    def _authorization(self, *, anew: bool = False) -> dict[str, str]:
        if self._token_file is None:
            return {}
        if self._token is None or anew:
            self._token = token_from(self._token_file)
        return {"Authorization": "Bearer " + self._token}

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        again: bool = True,
        fine: bool = False,
    ) -> Answer:
        """Ask, and return the answer with its body still to be read.

        Args:
            method: HTTP's.
            target: the path, encoded.
            headers: further ones.
            body: bytes, or a file of a length that the headers say.
            again: whether it may be asked twice.
            fine: whether an answer is one whatever its status is.

        Raises:
            OSError: there is no answer, or it is an error.
        """
        renewed = False
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            kept = connection is not None
            try:
                if connection is None:
                    connection = self._connection()
                connection.request(method, target, body, {**(headers or {}), **self._authorization(anew=renewed)})
                response = connection.getresponse()
            except (http.client.HTTPException, OSError) as error:
                if connection is not None:
                    connection.close()
                if kept and again and not isinstance(error, (socket.timeout, TimeoutError)):
                    continue  # it had been closed meanwhile; all that are idle are tried at most
                raise _as_os_error(error, self.where) from error
            answer = Answer(self, connection, response)
            if fine:
                return answer
            if response.status == 401 and again and not renewed:
                answer.rest()
                renewed = True
                continue
            if response.status >= 300:
                self._raise(answer, target)
            return answer

    def _raise(self, answer: Answer, target: str) -> None:
        status, name = answer.response.status, answer.response.headers.get("Serai-Errno", "")
        data = answer.rest(SMALL)
        what = ""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            what = str(json.loads(data.decode("utf-8"))["error"])
        number = getattr(errno, name, 0) if name.isidentifier() else 0
        number = number if isinstance(number, int) and number else _STATUS.get(status, errno.EIO)
        raise OSError(number, what or os.strerror(number), target.partition("?")[0])  # what is behind it may be secret

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """A connection is free."""
        with self._lock:
            if len(self._idle) < MOST_KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()


class Answer:
    """An answer whose body is to be read."""

    def __init__(self, server: Server, connection: http.client.HTTPConnection, response: Any) -> None:
        self.server, self.response = server, response
        self._connection = connection

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes; given up early, the connection is closed."""
        whole = False
        try:
            while True:
                data = self.response.read1(CHUNK)
                if not data:
                    break
                yield data
            if self.response.length:
                raise ConnectionResetError(errno.ECONNRESET, "it broke off")
            self.response.read()  # of nothing: else it does not know that it is over
            whole = True
        except (http.client.HTTPException, OSError) as error:
            raise _as_os_error(error, self.server.where) from error
        finally:
            if whole and not self.response.will_close:
                self.server.keep(self._connection)
            else:
                self._connection.close()

    def close(self) -> None:
        """Nobody reads the body."""
        self.response.close()
        self._connection.close()

    def rest(self, most: int = MOST_ROWS_BYTES) -> bytes:
        """The body, whole."""
        found = bytearray()
        for data in self.pieces():
            found += data
            if len(found) > most:
                raise OSError(errno.EIO, "the answer is too long")
        return bytes(found)


def _pinned() -> ssl.SSLContext:
    """TLS to whoever has one certificate, which is compared by whoever connects: that is stricter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _connected(host: str, port: int, abroad: bool = False) -> socket.socket:
    """A connection, within `CONNECT_S` for the name and all addresses together.

    Raises:
        OSError: there is none in time.
    """
    until = time.monotonic() + CONNECT_S
    found = _addresses(host, port)[:MOST_ADDRESSES]
    if abroad and any(_is_own(str(one[4][0])) for one in found):
        raise PermissionError(errno.EACCES, "it leads to where nobody is followed")
    error = OSError(errno.EHOSTUNREACH, "its name leads nowhere")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(max(0.5, (until - time.monotonic()) / (len(found) - number)))
            made.connect(address)
            made.settimeout(CONNECT_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as one:
            made.close()
            error = one
        else:
            return made
    raise error


def _is_own(address: str) -> bool:
    """Whether an address means another host on each host."""
    import ipaddress  # noqa: PLC0415 - few are led elsewhere

    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_unspecified


def _addresses(host: str, port: int) -> list[Any]:
    """What a name leads to: the system's own resolver may take for ever."""
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)
        except UnicodeError:
            found.append(OSError(errno.EINVAL, "it is no name of a host"))

    if ":" in host or not host.strip("0123456789."):
        look()
    else:
        thread = threading.Thread(target=look, name="name", daemon=True)
        thread.start()
        thread.join(CONNECT_S - 1.0)
    if not found:
        raise OSError(errno.ETIMEDOUT, "nobody says in time where its name leads")
    if isinstance(found[0], OSError):
        raise found[0]
    return list(found[0])


def _as_os_error(error: Exception, where: str) -> OSError:
    if isinstance(error, PermissionError):
        return error
    if isinstance(error, socket.gaierror):
        return OSError(errno.EHOSTUNREACH, "%s: its name leads nowhere: %s" % (where, error.strerror))
    if isinstance(error, socket.timeout) and not error.errno:
        return OSError(errno.ETIMEDOUT, "%s said nothing in time" % where)
    if isinstance(error, ssl.SSLError):
        return OSError(errno.EACCES, "%s: %s" % (where, error))
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, "%s: %s" % (where, error.strerror))
    return OSError(errno.ECONNRESET, "%s: %s" % (where, type(error).__name__))


def _ranged(answer: Answer, start: int, length: int) -> Iterator[bytes]:
    """The bytes of a range, whether or not the server knows ranges."""
    skip = start if answer.response.status == 200 else 0
    for data in answer.pieces():
        if skip >= len(data):
            skip -= len(data)
            continue
        piece = data[skip : skip + length] if skip or len(data) > length else data
        skip, length = 0, length - len(piece)
        yield piece
        if not length and (answer.response.status == 200 or len(piece) < len(data)):
            return  # what comes beyond is not read: it may have no end


class Store(Source):
    """The files of an appliance (``serai store serve``), below one directory.

    Args:
        server: where it is.
        top: the directory.
    """

    writable = True

    def __init__(self, server: Server, top: str) -> None:
        self._server, self._top = server, "/" + top.strip("/") if top.strip("/") else ""
        self.identity = "store:%s:%s%s" % (server.where, server.fingerprint or "", self._top)

    def _target(self, path: str) -> str:
        return urllib.parse.quote(self._at(path).encode("utf-8", "surrogateescape"), safe="/")

    def _at(self, path: str) -> str:
        return self._top + path if path != "/" else self._top or "/"

    def _call(self, do: str, *, again: bool = False, **said: Any) -> bytes:
        body = json.dumps(dict(said, do=do)).encode("ascii")
        headers = {"Content-Type": "application/json"}
        return self._server.ask("POST", "/.serai/files", headers, body, again=again).rest()

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        return _stat_of(json.loads(self._call("stat", path=self._at(path), follow=True, again=True).decode("ascii")))

    def listed(self, path: str) -> Iterable[tuple[str, Stat | None]]:
        """See `Source`."""
        lines = self._call("rows", path=self._at(path), depth=1, again=True).splitlines()
        if json.loads(lines[0].decode("ascii"))["type"] != "directory":
            raise unknown(errno.ENOTDIR, path)
        rows = [json.loads(line.decode("ascii")) for line in lines[1:]]
        return [(str(row["name"]), _stat_of(row) if row["type"] != "other" else None) for row in rows]

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`."""
        headers = {"Range": "bytes=%d-%d" % (start, start + length - 1), "If-Match": '"%s"' % stamp}
        return _ranged(self._server.ask("GET", self._target(path), headers), start, length)

    def write(self, path: str, content: Content, size: int, mode: int | None) -> None:
        """See `Source`; the appliance puts it in its place when all of it has come."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._server.ask("PUT", self._target(path), headers, content if size else b"", again=False).rest()
        if mode is not None:
            with contextlib.suppress(OSError):
                self.stamp(path, mode=mode, mtime_ns=None)

    def make_directory(self, path: str, mode: int) -> None:
        """See `Source`."""
        self._call("mkdir", path=self._at(path), parents=False, exist_ok=False)

    def remove(self, path: str, *, directory: bool) -> None:
        """See `Source`."""
        self._call("remove", paths=[self._at(path)], directory=directory)

    def rename(self, path: str, target: str) -> None:
        """See `Source`."""
        self._call("move", source=self._at(path), target=self._at(target))

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """See `Source`."""
        self._call("stamp", path=self._at(path), mode=mode, mtime_ns=mtime_ns)

    def space(self) -> tuple[int, int]:
        """See `Source`."""
        found = json.loads(self._server.ask("GET", "/.serai/status").rest().decode("utf-8"))
        return int(found["capacity"]), int(found["free"])

    def close(self) -> None:
        """See `Source`."""
        self._server.close()


def _stat_of(found: Mapping[str, Any]) -> Stat:
    kind = found["type"] if found["type"] in ("file", "directory") else "other"
    size, mtime_ns = int(found["size"]), int(found["mtime_ns"])
    stamp = "%x-%x-%x" % (int(found["ino"]), size, mtime_ns)  # as the appliance's ETag
    return Stat(kind, size, mtime_ns, int(found.get("mode", 0o644)) & 0o777, stamp)


class Objects(Source):
    """One object in the cache of an executor: ``GET /objects/<digest>`` or ``/files/<number>``, with ranges.

    Args:
        server: the executor's.
        name: of the object there.
        size: in bytes.
        digest: of the object, in hexadecimal; empty where it is not known.
    """

    def __init__(self, server: Server, name: str, size: int, digest: str) -> None:
        if not all(part.isalnum() for part in name.split("/")):
            raise ValueError("%r is no name of an object" % name)
        self._server, self._name, self._size = server, name, size
        self.identity = "digest:" + digest if digest else "peer:%s/%s" % (server.where, name)

    def stat(self, path: str) -> Stat:
        """See `Source`; what is in a cache does not change."""
        return Stat("file", self._size, 0, 0o444, self._name)

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`."""
        headers = {"Range": "bytes=%d-%d" % (start, start + length - 1)}
        return _ranged(self._server.ask("GET", "/" + self._name, headers), start, length)

    def close(self) -> None:
        """See `Source`."""
        self._server.close()
