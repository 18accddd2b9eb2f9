"""``store://``: the files of a storage appliance (`serai store serve`), for fsspec, over HTTP or TLS.

A path is taken as it stands, from the top of what is served: nothing in it is percent-encoded. The token is read from
``token_file``, or from where `serai.access.stores.trust` keeps it. A certificate that nobody signed is known by its
fingerprint, from ``known_stores`` or at the URL's very end: ``store://host:9094/cms?fingerprint=sha256:…``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK

from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.filesystems.naming import served_path
from serai.access.stores.certificates import normal_fingerprint
from serai.access.stores.remote import StoreFiles
from serai.access.stores.wire import DEFAULT_PORT, Server, server_of
from serai.access.stores.writing import SMALL
from serai.errors import UsageError
from serai.travel.porter.drafts import Draft, native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import FileIO

__all__ = ["StoreFileSystem"]

_PREFIX = "store://"


class StoreFileSystem(HostedFileSystem):
    """The files of one appliance; an instance keeps no connection, and pickles.

    Args:
        host: a name or an address.
        port: of the appliance.
        fingerprint: of its certificate; None: the one that is remembered, or the authorities that this host trusts.
        token_file: a file (mode 0600) with the token; None: the user's own place for it.
        lot: the lot that written files are charged to; None: one of the user's with room, or none.
        direct: whether files are read by their paths where the appliance is the user's own and on this host.
        options: those of `HostedFileSystem`: ``auto_mkdir``, ``listings_expiry_time`` and fsspec's own.
    """

    protocol = "store"

    def __init__(
        self,
        host: str = "",
        port: int | None = None,
        *,
        fingerprint: str | None = None,
        token_file: str | None = None,
        lot: str | None = None,
        direct: bool = True,
        **options: Any,
    ) -> None:
        if not host:
            raise UsageError("which store?", hint="write store://HOST:PORT/PATH, or give host=")
        pin = None if fingerprint is None else normal_fingerprint(fingerprint)
        server = Server(host, DEFAULT_PORT if port is None else int(port), pin, token_file)
        super().__init__(f"{_PREFIX}{server.where}", **options)
        self._store = StoreFiles(server, lot, direct=direct)

    @property
    def far(self) -> StoreFiles:
        """The appliance's files."""
        return self._store

    # ---- many files at once

    def pipe_many(self, files: Iterable[tuple[str, bytes | memoryview]]) -> Iterator[tuple[str, OSError | None]]:
        """Write many whole files, small ones many to a request; yields what became of each."""
        named = ((self._strip_protocol(path), data) for path, data in files)
        for path, error in self._store.put_many(named, parents=self.auto_mkdir):
            self.invalidate_cache(path)
            yield path, error

    def write_sized(self, path: str, pieces: Iterable[bytes | memoryview], size: int) -> str:
        """Write a whole file whose size is known, in one request; returns its SHA-256 in hexadecimal."""
        path = self._strip_protocol(path)
        with self._changing(path):
            return self._store.send(path, pieces, size, "w", parents=self.auto_mkdir, sha256=True).hex()

    def put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """Send a file, which is seen there when it is whole; see fsspec."""
        if os.path.isdir(lpath) or os.stat(lpath).st_size <= SMALL:
            super().put_file(lpath, rpath, callback=callback, mode=mode, **kwargs)
            return
        path = self._strip_protocol(rpath)
        with open(lpath, "rb", buffering=0) as file, self._changing(path):
            size = os.fstat(file.fileno()).st_size
            callback.set_size(size)
            how = "x" if mode == "create" else "w"
            self._store.send(path, _read_through(file, callback), size, how, parents=True)

    def pipe(self, path: Any, value: Any = None, **kwargs: Any) -> None:
        """Write one whole file, or many; see fsspec."""
        if not isinstance(path, dict) or kwargs:
            super().pipe(path, value, **kwargs)
            return
        for _, error in self.pipe_many(path.items()):
            if error is not None:
                raise error

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Send files, small ones many to a request; see fsspec."""
        pairs = _Pairs(self)
        AbstractFileSystem.put(pairs, lpath, rpath, recursive=recursive, maxdepth=maxdepth, **kwargs)
        if len(pairs.found) == 1 or kwargs:
            super().put(lpath, rpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **kwargs)
            return
        with self._changing(*{self._parent(there) for _, there in pairs.found}):
            self._send(pairs.found, callback)

    def _send(self, pairs: Sequence[tuple[str, str]], callback: Any) -> None:
        callback.set_size(len(pairs))
        small: list[tuple[str, str]] = []
        for here, there in pairs:
            if os.path.isdir(here):
                self.makedirs(there, exist_ok=True)
            elif os.stat(here).st_size <= SMALL:
                small.append((here, self._strip_protocol(there)))
                continue
            else:
                with callback.branched(here, there) as child:
                    self.put_file(here, there, callback=child)
            callback.relative_update(1)
        files = ((there, _content(here)) for here, there in small)
        for _, error in self._store.put_many(files, parents=True):
            if error is not None:
                raise error
            callback.relative_update(1)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Fetch files, small ones many to a request; see fsspec."""
        pairs = _Pairs(self)
        AbstractFileSystem.get(pairs, rpath, lpath, recursive=recursive, maxdepth=maxdepth, **kwargs)
        if len(pairs.found) == 1 or kwargs:
            super().get(rpath, lpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **kwargs)
            return
        callback.set_size(len(pairs.found))
        names = [self._strip_protocol(there) for there, _ in pairs.found]
        for (there, here), found in zip(pairs.found, self._store.get_small(names), strict=True):
            if isinstance(found, IsADirectoryError):
                os.makedirs(here, exist_ok=True)
            elif isinstance(found, Exception):
                raise found
            elif isinstance(found, int):
                with callback.branched(there, here) as child:
                    self.get_file(there, here, callback=child)
            else:
                draft = Draft(native(os.path.abspath(here)), "w", parents=True)
                try:
                    draft.write(found)
                    draft.commit()
                finally:
                    draft.discard()
            callback.relative_update(1)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return served_path(path, "store", lambda url: server_of(url)[1])

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if not path.startswith(_PREFIX):
            return {}
        server, _ = server_of(path)
        found: dict[str, Any] = {"host": server.host, "port": server.port}
        return found if server.fingerprint is None else found | {"fingerprint": server.fingerprint}


class _Pairs:
    """Stands for a file system where fsspec works out which file goes where, and keeps that instead of doing it."""

    def __init__(self, filesystem: StoreFileSystem) -> None:
        self._filesystem = filesystem
        self.found: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        self.found.append((lpath, rpath))

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        self.found.append((rpath, lpath))


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _read_through(file: FileIO, callback: Any) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(SMALL))
    while count := file.readinto(buffer):
        yield buffer[:count]
        callback.relative_update(count)
