"""``chirp://host:9094/path``: the files of a Chirp server (of the Cooperative Computing Tools), NeST's descendant.

A path is taken as it stands: nothing in it is percent-encoded. The server is told who we are by ``unix`` on its own
host, else by ``hostname`` or ``address``; ``chirp://host/path?auth=hostname`` says which way. Chirp encrypts nothing.
"""

from __future__ import annotations

import re
from typing import Any

from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.filesystems.naming import served_path
from serai.access.plain.chirp import ChirpFiles
from serai.access.plain.chirp_wire import DEFAULT_PORT, METHODS, Server
from serai.errors import UsageError
from serai.session.url import Url

__all__ = ["ChirpFileSystem"]

_PREFIX = "chirp://"
_AUTH = re.compile(r"\?auth=([a-z,]+)\Z", re.ASCII)


class ChirpFileSystem(HostedFileSystem):
    """The files of one Chirp server; an instance keeps no connection, and pickles.

    Args:
        host: a name or an address.
        port: of the server.
        auth: ways to say who we are, in their order, with commas: ``unix,hostname,address``.
        options: those of `HostedFileSystem`: ``auto_mkdir``, ``listings_expiry_time`` and fsspec's own.
    """

    protocol = "chirp"

    def __init__(self, host: str = "", port: int | None = None, *, auth: str | None = None, **options: Any) -> None:
        if not host:
            raise UsageError("which Chirp server?", hint="write chirp://HOST:PORT/PATH, or give host=")
        methods = tuple(auth.split(",")) if auth else METHODS
        if not set(methods) <= set(METHODS):
            raise UsageError(f"{auth!r} are no ways to log in to a Chirp server", hint="known: " + ",".join(METHODS))
        server = Server(host, DEFAULT_PORT if port is None else int(port), methods)
        super().__init__(f"{_PREFIX}{server.where}", **options)
        self._files = ChirpFiles(server)

    @property
    def far(self) -> ChirpFiles:
        """The server's files."""
        return self._files

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return served_path(path, "chirp", lambda url: "/" + _AUTH.sub("", url)[len(_PREFIX) :].partition("/")[2])

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if not path.startswith(_PREFIX):
            return {}
        said = _AUTH.search(path)
        url = Url.parse(_PREFIX + path[len(_PREFIX) :].partition("/")[0])
        found: dict[str, Any] = {"host": url.host or ""}
        if url.port is not None:
            found["port"] = url.port
        return found if said is None else found | {"auth": said[1]}
