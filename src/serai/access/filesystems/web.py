"""``http://`` and ``https://`` of fsspec, which say why something cannot be had and not only that it is not there."""

from __future__ import annotations

import errno
import os
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError, ClientConnectorCertificateError, ClientResponseError
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem, HTTPStreamFile

from serai.errors import AccessError, HostUnreachable

__all__ = ["WebFiles"]

DROPPED = 1 << 20  # bytes at once
_REFUSED = frozenset({401, 403, 407})
_ABSENT = frozenset({404, 410})


class WebFiles(HTTPFileSystem):
    """Files of web servers.

    fsspec's own reads long files in parts alone, and takes whatever goes wrong with a look at a file for its absence:
    a server that is down, a name that nobody knows, a refusal.
    """

    async def _info(self, url: str, *, refresh: bool = True, **options: Any) -> dict[str, Any]:
        """What a server says of a file, asked anew each time; ``index`` is True of a page that lists a directory."""
        del refresh  # nothing is kept
        try:
            found: dict[str, Any] = await super()._info(url, **options)
        except FileNotFoundError as error:
            raise _plainly(url, error) from error
        page = urlsplit(str(found.get("url", url))).path.endswith("/") or not urlsplit(url).path
        return found | {"index": page and found.get("mimetype") == "text/html"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        """A file; of a server that gives no parts a long one is a stream, where fsspec's own gives up in the middle."""
        if mode == "rb" and block_size is None and not options.get("size"):
            found = self.info(path)
            size = options["size"] = found["size"]
            long = size is not None and size > self.block_size
            if found.get("partial") is False or (long and not sync(self.loop, self._gives_parts, path)):
                session = sync(self.loop, self.set_session)
                return _Stream(self, path, mode=mode, loop=self.loop, session=session, **self.kwargs)
        return super()._open(path, mode, block_size, **options)

    async def _gives_parts(self, url: str) -> bool:
        session = await self.set_session()
        known = {**self.kwargs, "headers": {**self.kwargs.get("headers", {}), "Range": "bytes=0-0"}}
        async with session.get(self.encode_url(url), **known) as answer:
            return bool(answer.status != HTTPStatus.OK)  # other troubles are told when the file is read


class _Stream(HTTPStreamFile):
    """A file that comes from its beginning; what lies before a place that is wanted is read and dropped."""

    def seek(self, loc: int, whence: int = 0) -> int:
        """Go on, never back."""
        while whence == os.SEEK_SET and self.loc < loc and self.read(min(loc - self.loc, DROPPED)):
            pass
        super().seek(loc, whence)
        return loc


def _plainly(url: str, error: FileNotFoundError) -> Exception:
    """What is behind an absence."""
    reason, host = error.__cause__, urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(reason, ClientResponseError):
        if reason.status in _REFUSED:
            return PermissionError(errno.EACCES, f"the server answers {reason.status} {reason.message}", url)
        if reason.status not in _ABSENT:
            return AccessError(f"the server answers {reason.status} {reason.message}", host=host)
    elif isinstance(reason, ClientConnectorCertificateError):
        return AccessError(f"its certificate is not believed: {reason.certificate_error}", host=host)
    elif isinstance(reason, ClientConnectionError | TimeoutError):
        why = str(reason) or "it said nothing"
        return HostUnreachable(f"the web server does not answer: {why}", host=host)
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
