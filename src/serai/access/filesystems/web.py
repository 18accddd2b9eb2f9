"""``http://`` and ``https://`` of fsspec, which say why something cannot be had and not only that it is not there."""

from __future__ import annotations

import errno
import os
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError, ClientConnectorCertificateError, ClientResponseError
from fsspec.implementations.http import HTTPFileSystem

from serai.errors import AccessError, HostUnreachable

__all__ = ["WebFiles"]

_REFUSED = frozenset({401, 403, 407})
_ABSENT = frozenset({404, 410})


class WebFiles(HTTPFileSystem):
    """Files of web servers.

    fsspec's own takes whatever goes wrong with a look at a file for its absence: a server that is down, a name that
    nobody knows, a refusal.
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
