"""URLs of files on hosts, ``SCHEME://user@host:port/path``: the path is taken as it stands, as fsspec does.

Nothing in it is percent-encoded. ``SCHEME://host/~/x`` is below the login's home directory, and so is a relative path.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable


def _split(text: str, scheme: str) -> tuple[Url | None, str]:
    """Who and where, and the path; a text that is no URL of the scheme is a path alone."""
    prefix = f"{scheme}://"
    if not text.startswith(prefix):
        return None, text
    authority, slash, below = text[len(prefix) :].partition("/")
    return Url.parse(prefix + authority), slash + below


def path_of(url: Any, scheme: str) -> Any:
    """The path of a URL or of a path: absolute, or ``~``, or below ``~/``; of each of a list."""
    if isinstance(url, list):
        return [path_of(one, scheme) for one in url]
    where, path = _split(os.fspath(url), scheme)
    if where is not None and path.startswith("/~") and path[2:3] in {"", "/"}:
        path = path[1:]
    path = path.rstrip("/")
    if not path or path == "~" or path.startswith(("/", "~/")):
        return path or "/"
    return f"~/{path}"


def served_path(url: Any, scheme: str, path_in: Callable[[str], str]) -> Any:
    """The path of a URL or of a path on a server that knows no homes: from the top of what is served.

    Args:
        url: either, or a list.
        scheme: of such URLs.
        path_in: what finds the path in one.
    """
    if isinstance(url, list):
        return [served_path(one, scheme, path_in) for one in url]
    path = os.fspath(url)
    if path.startswith(f"{scheme}://"):
        path = path_in(path)
    return path.rstrip("/") or "/" if path.startswith("/") else "/" + path.strip("/")


def place_of(url: str, scheme: str) -> dict[str, Any]:
    """Host, user and port of a URL, as arguments of its file system."""
    where, _ = _split(url, scheme)
    if where is None:
        return {}
    return {key: value for key in ("host", "user", "port") if (value := getattr(where, key)) is not None}


def url_of(where: Url, path: str) -> str:
    """The URL of a path."""
    return str(Url(where.scheme, where.user, where.host, where.port)) + ("" if path.startswith("/") else "/") + path
