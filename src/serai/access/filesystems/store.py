"""``store://``: the files of a storage appliance (`serai store serve`), for fsspec, over HTTP or TLS.

A path is taken as it stands, from the top of what is served: nothing in it is percent-encoded. The token is read from
``token_file``, or from where `serai.access.stores.trust` keeps it. A certificate that nobody signed is known by its
fingerprint, from ``known_stores`` or at the URL's very end: ``store://host:9094/cms?fingerprint=sha256:…``.
"""

from __future__ import annotations

import os
from typing import Any

from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.stores.certificates import normal_fingerprint
from serai.access.stores.remote import StoreFiles
from serai.access.stores.wire import DEFAULT_PORT, Server, server_of
from serai.errors import UsageError

__all__ = ["StoreFileSystem"]

EXPIRY_S = 2.0  # how old a listing may be that is used once more
MOST_LISTINGS = 1000
_PREFIX = "store://"


class StoreFileSystem(HostedFileSystem):
    """The files of one appliance; an instance keeps no connection, and pickles.

    Args:
        host: a name or an address.
        port: of the appliance.
        fingerprint: of its certificate; None: the one that is remembered, or the authorities that this host trusts.
        token_file: a file (mode 0600) with the token; None: the user's own place for it.
        lot: the lot that written files are charged to; None: one of the user's with room, or none.
        auto_mkdir: whether writing makes missing directories, as fsspec's local files can.
        listings_expiry_time: seconds for which a listing is used again; `ls` alone does so.
        storage_options: those that every file system of fsspec has.
    """

    protocol = "store"
    root_marker = "/"

    def __init__(
        self,
        host: str = "",
        port: int | None = None,
        *,
        fingerprint: str | None = None,
        token_file: str | None = None,
        lot: str | None = None,
        auto_mkdir: bool = False,
        listings_expiry_time: float | None = EXPIRY_S,
        **storage_options: Any,
    ) -> None:
        if not host:
            raise UsageError("which store?", hint="write store://HOST:PORT/PATH, or give host=")
        pin = None if fingerprint is None else normal_fingerprint(fingerprint)
        server = Server(host, DEFAULT_PORT if port is None else int(port), pin, token_file)
        super().__init__(
            auto_mkdir=auto_mkdir,
            listings_expiry_time=listings_expiry_time,
            max_paths=MOST_LISTINGS,
            **storage_options,
        )
        self._url = f"{_PREFIX}{server.where}"
        self._store = StoreFiles(server, lot)

    @property
    def far(self) -> Any:
        """The appliance's files."""
        return self._store

    @property
    def fsid(self) -> str:
        """Tells appliances apart."""
        return self._url

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = os.fspath(path)
        if path.startswith(_PREFIX):
            path = server_of(path)[1]
        return "/" + path.strip("/") if not path.startswith("/") else path.rstrip("/") or "/"

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        return self._url + str(self._strip_protocol(name))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if not path.startswith(_PREFIX):
            return {}
        server, _ = server_of(path)
        found: dict[str, Any] = {"host": server.host, "port": server.port}
        return found if server.fingerprint is None else found | {"fingerprint": server.fingerprint}
