"""The same objects by HTTP: a mount on another node reads parts of them, with the run's token and no certificate.

``GET`` and ``HEAD`` of ``/objects/<digest>`` and ``/files/<number>``, with one range. Nothing else is understood.
"""

from __future__ import annotations

import hmac
import os
import re

from ..peers import Changed, Offer, opened, pour

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import BinaryIO

LONGEST_LINE = 8192
MOST_HEADERS = 64
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})").fullmatch
REASONS = {200: "OK", 206: "Partial Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           405: "Method Not Allowed", 412: "Precondition Failed", 416: "Range Not Satisfiable"}  # fmt: skip


def answer(
    connection: ssl.SSLSocket,
    stream: BinaryIO,
    token: str,
    find: Callable[[str], Offer | None],
    known: Callable[[], object],
) -> bool:
    """Answer one request.

    Args:
        connection: where the answer goes.
        stream: where requests come from.
        token: what a request must show.
        find: gives an object by its name; None where there is none.
        known: called when the token was shown.

    Returns:
        Whether there may be another.
    """
    request = _request(stream)
    if request is None:
        return False
    method, target, headers = request
    shown = headers.get("authorization", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(shown, b"Bearer " + token.encode("ascii")):
        _refuse(connection, 401)
        return False  # who has no token keeps no connection
    known()
    if method not in ("GET", "HEAD"):
        _refuse(connection, 405)
        return False  # it may have a body
    return _give(connection, find(target.lstrip("/")), headers.get("range"), head_only=method == "HEAD")


def _give(connection: ssl.SSLSocket, offer: Offer | None, wanted: str | None, *, head_only: bool) -> bool:
    try:
        file = None if offer is None else opened(offer)
    except Changed:
        _refuse(connection, 412)
        return True
    except OSError:
        file = None
    if offer is None or file is None:
        _refuse(connection, 404)
        return True
    with file:
        size = os.fstat(file.fileno()).st_size
        part = _part(wanted, size)
        if part is None:
            _refuse(connection, 416, "Content-Range: bytes */%d\r\n" % size)
            return True
        start, stop = part
        more = "Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n"
        if wanted is not None:
            more += "Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, size)
        _say(connection, 200 if wanted is None else 206, stop - start, more)
        return head_only or pour(file, start, stop - start, connection, offer)


def _request(stream: BinaryIO) -> tuple[str, str, dict[str, str]] | None:
    """The next request: (method, path, headers by their names in small letters); None at the end.

    Raises:
        ValueError: it is none.
    """
    line = stream.readline(LONGEST_LINE).decode("iso-8859-1")
    if not line:
        return None
    words = line.split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("no request")
    headers: dict[str, str] = {}
    for _ in range(MOST_HEADERS):
        line = stream.readline(LONGEST_LINE).decode("iso-8859-1").rstrip("\r\n")
        if not line:
            return words[0], words[1], headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")


def _part(wanted: str | None, size: int) -> tuple[int, int] | None:
    """The part of a file that is wanted; None where there is no such part."""
    if wanted is None:
        return 0, size
    found = RANGE(wanted)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    start, stop = int(first), min(size, int(last) + 1 if last else size)
    return (start, stop) if start < stop else None


def _refuse(connection: ssl.SSLSocket, status: int, more: str = "") -> None:
    _say(connection, status, 0, more)


def _say(connection: ssl.SSLSocket, status: int, length: int, more: str) -> None:
    if status in (401, 405):
        more += "Connection: close\r\n"
    text = "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n" % (status, REASONS[status], length, more)
    connection.sendall(text.encode("ascii"))
