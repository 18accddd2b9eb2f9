"""Sources behind the front end: whatever it can reach, ``ssh://``, ``any://``, ``s3://`` and so on, over the gateway.

Calls are ``file.stat`` {url} and ``file.read`` {url, start, length}: files, to be read. The front end decides which.
``file.grant`` {url} asks for what lets this node read one at its origin, see `direct`.
"""

from __future__ import annotations

import errno
import os
import threading

from ..gateway import LARGEST, Gateway, GatewayError
from .sources import Source, Stat
from .web import token_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


SILENT_S = 30.0
STEP = 1 << 20  # bytes of one answer
PART = min(4 << 20, LARGEST)
_KINDS = {
    "not_found": errno.ENOENT,
    "exists": errno.EEXIST,
    "claimed": errno.EACCES,
    "usage": errno.EINVAL,
    "deadline": errno.ETIMEDOUT,
    "lost": errno.ECONNRESET,
    "refused": errno.EACCES,
}
_connections: dict[tuple[str, str], Line] = {}
_lock = threading.Lock()


def line_of(said: Mapping[str, Any]) -> Line:
    """The connection to the front end of a source's description."""
    address = str(said.get("address") or os.environ.get("SERAI_GATEWAY", ""))
    token_file = str(said.get("token_file") or os.environ.get("SERAI_GATEWAY_TOKEN_FILE", ""))
    if not address or not token_file:
        raise ValueError("a gateway is named by SERAI_GATEWAY and SERAI_GATEWAY_TOKEN_FILE")
    with _lock:
        return _connections.setdefault((address, token_file), Line(address, token_file))


def make(said: Mapping[str, Any]) -> Source:
    """A source from its description, see `mount.wrap.make`."""
    line = line_of(said)
    silent_s = float(said.get("silent_s", SILENT_S))
    made = Relayed(line, str(said["url"]), silent_s)
    made.identity = str(said.get("identity") or made.identity)
    return made


class Line:
    """The one connection to the front end; made anew when it is lost.

    Args:
        address: of the gateway's socket.
        token_file: where its token is.
    """

    def __init__(self, address: str, token_file: str) -> None:
        self._address, self._token_file = address, token_file
        self._lock = threading.Lock()
        self._gateway: Gateway | None = None

    def call(self, do: str, head: Mapping[str, Any], body: bytes = b"", silent_s: float = SILENT_S) -> Any:
        """Call the front end.

        Raises:
            OSError: it says no, or nothing.
        """
        with self._lock:
            try:
                if self._gateway is None or self._gateway.lost:
                    self._gateway = Gateway(self._address, token_from(self._token_file))
            except GatewayError as error:
                raise _as_os_error(error) from error
            gateway = self._gateway
        try:
            return gateway.call(do, head, body, silent_s)
        except GatewayError as error:
            raise _as_os_error(error) from error


def _as_os_error(error: GatewayError) -> OSError:
    name = error.what.partition(":")[0]
    number = getattr(errno, name, 0) if name.startswith("E") and name.isalnum() else 0
    return OSError(number if isinstance(number, int) and number else _KINDS.get(error.kind, errno.EIO), error.what)


class Relayed(Source):
    """A file behind the front end.

    Args:
        line: to it.
        url: of it, as the front end knows it.
        silent_s: how long it may be silent.
    """

    def __init__(self, line: Line, url: str, silent_s: float) -> None:
        self._line, self._url, self._silent_s = line, url, silent_s
        self.identity = url.rstrip("/")

    def _at(self, path: str) -> str:
        return self._url.rstrip("/") + path if path != "/" else self._url

    def _call(self, do: str, path: str, body: bytes = b"", **said: Any) -> Any:
        return self._line.call("file." + do, dict(said, url=self._at(path)), body, self._silent_s)

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        return _stat_of(self._call("stat", path)[0])

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`."""
        while length:
            wanted = min(STEP, length)
            data = self._call("read", path, start=start, length=wanted)[1]
            if data:
                yield data
            if len(data) < wanted:
                return
            start, length = start + len(data), length - len(data)


def _stat_of(found: Mapping[str, Any]) -> Stat:
    return Stat(
        str(found["kind"]), int(found["size"]), int(found["mtime_ns"]), int(found["mode"]) & 0o777, str(found["stamp"])
    )
