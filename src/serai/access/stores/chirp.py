"""``chirp://host:9094/path``: the files of a Chirp server (of the Cooperative Computing Tools), NeST's descendant.

A path is taken as it stands: nothing in it is percent-encoded. The server is told who we are by ``unix`` on its own
host, else by ``hostname`` or ``address``; ``chirp://host/path?auth=hostname`` says which way. Chirp encrypts nothing.
"""

from __future__ import annotations

import os
import re
from typing import Any

from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.stores.chirp_files import ChirpFiles
from serai.access.stores.chirp_wire import DEFAULT_PORT, METHODS, Server
from serai.errors import UsageError
from serai.session.url import Url

__all__ = ["ChirpFileSystem"]

EXPIRY_S = 2.0  # how old a listing may be that is used once more
MOST_LISTINGS = 1000
_PREFIX = "chirp://"
_AUTH = re.compile(r"\?auth=([a-z,]+)\Z", re.ASCII)


class ChirpFileSystem(HostedFileSystem):
    """The files of one Chirp server; an instance keeps no connection, and pickles.

    Args:
        host: a name or an address.
        port: of the server.
        auth: ways to say who we are, in their order, with commas: ``unix,hostname,address``.
        auto_mkdir: whether writing makes missing directories, as fsspec's local files can.
        listings_expiry_time: seconds for which a listing is used again; `ls` alone does so.
        storage_options: those that every file system of fsspec has.
    """

    protocol = "chirp"
    root_marker = "/"

    def __init__(
        self,
        host: str = "",
        port: int | None = None,
        *,
        auth: str | None = None,
        auto_mkdir: bool = False,
        listings_expiry_time: float | None = EXPIRY_S,
        **storage_options: Any,
    ) -> None:
        if not host:
            raise UsageError("which Chirp server?", hint="write chirp://HOST:PORT/PATH, or give host=")
        methods = tuple(auth.split(",")) if auth else METHODS
        if not set(methods) <= set(METHODS):
            raise UsageError(f"{auth!r} are no ways to log in to a Chirp server", hint="known: " + ",".join(METHODS))
        super().__init__(
            auto_mkdir=auto_mkdir,
            listings_expiry_time=listings_expiry_time,
            max_paths=MOST_LISTINGS,
            **storage_options,
        )
        server = Server(host, DEFAULT_PORT if port is None else int(port), methods)
        self._url = f"{_PREFIX}{server.where}"
        self._files = ChirpFiles(server)

    @property
    def far(self) -> Any:
        """The server's files."""
        return self._files

    @property
    def fsid(self) -> str:
        """Tells servers apart."""
        return self._url

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = os.fspath(path)
        if path.startswith(_PREFIX):
            path = "/" + _AUTH.sub("", path)[len(_PREFIX) :].partition("/")[2]
        return "/" + path.strip("/") if not path.startswith("/") else path.rstrip("/") or "/"

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        return self._url + str(self._strip_protocol(name))

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
