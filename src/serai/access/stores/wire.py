"""HTTP to a storage appliance: a pool of connections for each, its certificate checked, errors as the system's own."""

from __future__ import annotations

import errno
import json
import os
import re
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import urllib3
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as LateError

from serai.access.stores.certificates import normal_fingerprint
from serai.access.stores.trust import known_fingerprint, place, read_token, token_path
from serai.errors import AccessError, HostKeyRefused, HostUnreachable, LoginRefused, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

__all__ = ["Server", "Wire", "server_of", "wire_of"]

SCHEME = "store"
DEFAULT_PORT = 9094
CONNECT_S = 10.0
READ_S = 120.0
POOL = 16  # connections that are kept
BLOCK = 1 << 20  # bytes
CALLS = "/.serai/files"
_PINNED = re.compile(r"\?fingerprint=((?:sha256:)?[0-9A-Fa-f:]{64,95})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Server:
    """Which appliance, and how it is known.

    Attributes:
        host: a name or an address.
        port: of it.
        fingerprint: of its certificate, 64 hexadecimal digits; None: the one that is remembered, or else the
            authorities that this host trusts.
        token_file: where the token is; None: the user's own place for it.
    """

    host: str
    port: int = DEFAULT_PORT
    fingerprint: str | None = None
    token_file: str | None = None

    @property
    def where(self) -> str:
        """As it is written in a URL."""
        return place(self.host, self.port)


def server_of(text: str) -> tuple[Server, str]:
    """Reads ``store://host:port/path?fingerprint=…``: the server, and the path as it stands.

    Raises:
        UsageError: it is no such URL.
    """
    prefix = f"{SCHEME}://"
    if not text.startswith(prefix):
        raise UsageError(f"{text!r} is no URL of a store", hint="store://HOST:PORT/PATH")
    pin = _PINNED.search(text)
    if pin is not None:
        text = text[: pin.start()]
    authority, slash, below = text[len(prefix) :].partition("/")
    url = Url.parse(prefix + authority)
    if not url.host:
        raise UsageError("which host?", hint="write store://HOST:PORT/PATH")
    try:
        fingerprint = normal_fingerprint(pin[1]) if pin is not None else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Server(url.host, url.port or DEFAULT_PORT, fingerprint), slash + below


def quoted(path: str) -> str:
    """A path as a request has it."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")


class Wire:
    """Requests to one appliance; threads may share it.

    Plain HTTP is spoken to loopback addresses for which no fingerprint is known, and TLS everywhere else.

    Args:
        server: which.
        environment: where the user's settings are.
    """

    def __init__(self, server: Server, environment: Mapping[str, str]) -> None:
        self.server = server
        self._environment = environment
        pin = server.fingerprint or known_fingerprint(server.host, server.port, environment)
        self._pin = pin
        local = server.host in {"localhost", "::1"} or server.host.startswith("127.")
        self.secure = pin is not None or not local
        common: dict[str, Any] = {
            "maxsize": POOL,
            "retries": False,
            "blocksize": BLOCK,
        }
        self._pool: urllib3.HTTPConnectionPool
        if not self.secure:
            self._pool = urllib3.HTTPConnectionPool(server.host, server.port, **common)
        elif pin is not None:
            self._pool = urllib3.HTTPSConnectionPool(
                server.host,
                server.port,
                assert_fingerprint=pin,
                assert_hostname=False,
                ssl_context=_pinned_context(),
                **common,
            )
        else:
            context = ssl.create_default_context()
            self._pool = urllib3.HTTPSConnectionPool(server.host, server.port, ssl_context=context, **common)

    @property
    def fingerprint(self) -> str:
        """Of the certificate that is expected; empty where an authority has signed it."""
        return self._pin or ""

    def _token(self) -> str | None:
        path = self.server.token_file or token_path(self.server.host, self.server.port, self._environment)
        found = read_token(path)
        if found is None and self.server.token_file:
            raise LoginRefused(f"there is no token in {path}", host=self.server.where)
        return found

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        again: bool = False,
        fine: tuple[int, ...] = (),
        read_s: float = READ_S,
    ) -> BaseHTTPResponse:
        """Ask, and return the answer with its body still to be read (`release` it, or read it all).

        Args:
            method: HTTP's.
            target: the path, encoded.
            headers: further ones.
            body: bytes, or an iterable of bytes.
            again: whether it may be asked twice, because it changes nothing.
            fine: statuses that are no errors though HTTP's classes say so.
            read_s: how long it may send nothing.

        Raises:
            OSError: what the appliance says: `FileNotFoundError`, `PermissionError` and so on.
            AccessError: it cannot be reached, is not the one that is known, or accepts no token.
        """
        token = self._token()
        said = dict(headers or {})
        timeout = urllib3.Timeout(connect=CONNECT_S, read=read_s)
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        response = None
        for last in (False, True):
            try:
                response = self._pool.urlopen(method, target, body, said, timeout=timeout, preload_content=False)
                break
            except HTTPError as error:
                lost = isinstance(error, ProtocolError) and not isinstance(error, SSLError)
                if last or not again or not lost:
                    raise self._unreachable(error) from error
        assert response is not None  # noqa: S101 - either it is there, or an error was raised
        if response.status >= 300 and response.status not in fine:
            self._raise(response, _about(target, body), token is not None)
        return response

    def json(self, method: str, target: str, said: Any = None, *, again: bool = False, read_s: float = READ_S) -> Any:
        """Ask with an object, and return the object that is answered."""
        body = None if said is None else json.dumps(said).encode("ascii")
        headers = {} if said is None else {"Content-Type": "application/json"}
        response = self.request(method, target, headers, body, again=again or method == "GET", read_s=read_s)
        with self.reading():
            return json.loads(response.data or b"null")

    def call(self, do: str, *, again: bool = False, read_s: float = READ_S, **said: Any) -> Any:
        """One of the appliance's own operations on files."""
        return self.json("POST", CALLS, {"do": do, **said}, again=again, read_s=read_s)

    def reading(self) -> _Reading:
        """A context in which a body is read: errors of HTTP become ours."""
        return _Reading(self)

    def pieces(self, response: BaseHTTPResponse, size: int = BLOCK) -> Iterator[bytes]:
        """The bytes of an answer as they come; given up early, its connection is closed."""
        try:
            with self.reading():
                yield from response.stream(size, decode_content=False)
        finally:
            if not response.closed:
                response.close()
            response.release_conn()

    def _unreachable(self, error: HTTPError) -> AccessError:
        where, seen = self.server.where, error
        reason = getattr(error, "reason", None)
        if isinstance(error, SSLError) or isinstance(reason, SSLError | ssl.SSLError):
            if self._pin is not None:
                return HostKeyRefused(
                    "the store's certificate is not the one that is known",
                    host=where,
                    hint="if it was replaced on purpose: serai store trust URL FINGERPRINT",
                )
            return HostKeyRefused(
                "the store's certificate is not known",
                host=where,
                hint=f"ask who runs it for its fingerprint, then: serai store trust store://{where} FINGERPRINT",
            )
        if isinstance(error, NewConnectionError | LateError):
            why = re.sub(r"\A\w+\(host=.*?\): ", "", str(seen))
            return HostUnreachable(
                f"the store does not answer: {why}",
                host=where,
                hint="does `serai store serve` run there, with --listen at an address that is reached from here?",
            )
        mute = "maybe it speaks TLS: serai store trust URL FINGERPRINT, as `serai store serve` prints it"
        return HostUnreachable(
            f"the connection to the store was lost: {seen}", host=where, hint=None if self.secure else mute
        )

    def _raise(self, response: BaseHTTPResponse, about: str, shown: bool) -> None:
        with self.reading():
            data = response.data[:4096]
        try:
            what = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            what = response.reason or "no reason given"
        if response.status == 401:
            path = self.server.token_file or token_path(self.server.host, self.server.port, self._environment)
            raise LoginRefused(
                f"the store refuses the token in {path}: it is wrong, revoked or has expired"
                if shown
                else f"the store wants a token, and there is none in {path}",
                host=self.server.where,
                hint=f"ask who runs it for one (serai store token), and put it into {path} (mode 0600)",
            )
        number = getattr(errno, response.headers.get("Serai-Errno", ""), 0)
        number = number or {
            301: errno.EISDIR,
            403: errno.EACCES,
            404: errno.ENOENT,
            412: errno.EEXIST,
            507: errno.ENOSPC,
        }.get(response.status, 0)
        if number:
            raise OSError(number, what, f"store://{self.server.where}{about}")
        raise AccessError(f"the store answers {response.status}: {what}", host=self.server.where)


class _Reading:
    """Maps errors that come while a body is read."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, IncompleteRead | HTTPError):
            raise self._wire._unreachable(error) from error  # noqa: SLF001 - its other half


def _about(target: str, body: Any) -> str:
    """The path that a request is about."""
    if target == CALLS and isinstance(body, bytes | str):
        said = json.loads(body)
        return str(
            next((said[key] for key in ("path", "source") if key in said), next(iter(said.get("paths", ())), ""))
        )
    return "/" if target.startswith("/.serai/") else unquote(target, errors="surrogateescape")


def _pinned_context() -> ssl.SSLContext:
    """TLS whose peer is known by its fingerprint alone, which `urllib3` compares before anything is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_wires: dict[tuple[Server, str | None], Wire] = {}
_lock = threading.Lock()


def shared_wire(server: Server) -> Wire:
    """The one pool of connections to a server in this process."""
    key = (server, server.fingerprint or known_fingerprint(server.host, server.port, os.environ))
    with _lock:
        return _wires.setdefault(key, Wire(server, os.environ))


def close_all() -> None:
    """Close all connections."""
    with _lock:
        wires = list(_wires.values())
        _wires.clear()
    for wire in wires:
        wire._pool.close()  # noqa: SLF001 - our own


def wire_of(url: str) -> Wire:
    """Requests to the store of a URL."""
    return shared_wire(server_of(url)[0])
