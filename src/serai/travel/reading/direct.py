"""A file at its origin, by HTTP: ``https://``, ``s3://`` by a URL that was signed, ``store://`` by a token for the run.

What may be shown there is a *grant*: of one file, to be read, for a while. The front end makes it, and another one when
it is refused or about to expire; the user's own credentials never come here. A grant is in memory and nowhere else.

An origin that cannot be reached from this node is let alone for a while, by all programs of its executor: they have the
front end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
import urllib.parse

from . import web
from .sources import OF_THE_FILE, Source, Stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

SILENT_S = 30.0
SPARE_S = 20.0  # a grant that expires so soon is renewed first
UNREACHED_S = 300.0  # an origin that could not be reached is not tried for so long
MOST_REDIRECTS = 5
MOST_SERVERS = 64  # to which connections are kept: an origin may lead to another one each time
MOST_WORDS = 300
REFUSED = frozenset({400, 401, 403})  # S3 answers 400 where a token of it has expired, and 403 for a URL
_MOVED = frozenset({301, 302, 303, 307, 308})
_servers: dict[tuple[Any, ...], web.Server] = {}
_lock = threading.Lock()


class Unreached:
    """Origins that could not be reached from this node, for all programs of an executor.

    Args:
        directory: the executor's own; made if it is not there.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32])

    def why(self, name: str) -> str:
        """Why an origin is not to be tried now; empty where it may be."""
        try:
            with open(self._path(name), encoding="utf-8", errors="replace") as file:
                age_s = time.time() - os.fstat(file.fileno()).st_mtime
                return file.read(MOST_WORDS) if -UNREACHED_S < age_s < UNREACHED_S else ""
        except OSError:
            return ""

    def note(self, name: str, why: str) -> None:
        """It could not be reached; where this cannot be written, it is tried again."""
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            path = self._path(name)
            draft = "%s.%d.%d" % (path, os.getpid(), threading.get_ident())
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
                file.write(why[:MOST_WORDS])
            os.replace(draft, path)


class Direct(Source):
    """One file at its origin.

    Args:
        name: of the origin, for people: "store nest.lab:9094".
        size: of the file as the front end has catalogued it, in bytes.
        renew: asks the front end for a grant, and says whether the last one was refused; empty where there is none.
        grant: what is shown at first; None to ask for one. ``url``; ``token`` and ``fingerprint`` of a store; ``etag``
            and ``modified``, which tell the version; ``life_s``, the seconds until it expires.
        stamp: tells this version of the file from others.
        memory: of origins that cannot be reached.
        silent_s: how long it may be silent.
    """

    def __init__(
        self,
        name: str,
        size: int,
        renew: Callable[[bool], Mapping[str, Any]],
        grant: Mapping[str, Any] | None = None,
        *,
        stamp: str = "",
        memory: Unreached | None = None,
        silent_s: float = SILENT_S,
    ) -> None:
        self.name, self.size = name, size
        self._renew, self._stamp, self._memory, self._silent_s = renew, stamp, memory, silent_s
        self._lock = threading.Lock()
        self._grant: Mapping[str, Any] | None = None
        self._until = 0.0
        if grant is not None:
            self._take(grant)

    def _take(self, grant: Mapping[str, Any]) -> Mapping[str, Any]:
        if not grant.get("url"):
            raise OSError(errno.ENODATA, "nothing lets this node read it there now")
        self._grant = grant
        self._until = time.monotonic() + float(grant.get("life_s") or float("inf"))
        return grant

    def _shown(self, refused: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The grant; another one where it has been refused, or is about to expire."""
        with self._lock:
            late = time.monotonic() > self._until - SPARE_S
            if self._grant is None or self._grant is refused or late:
                return self._take(self._renew(refused is not None))
            return self._grant

    def stat(self, path: str) -> Stat:
        """See `Source`: as the front end has seen it. Nobody is asked."""
        why = self._memory.why(self.name) if self._memory is not None else ""
        if why:
            raise OSError(errno.EHOSTUNREACH, why)
        return Stat("file", self.size, 0, 0o444, self._stamp)

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`; ESTALE where it is another version than that of the grant."""
        came = False
        try:
            for data in self._read(start, length):
                came = True
                yield data
        except (OSError, ValueError) as error:
            number, said = getattr(error, "errno", None) or errno.EIO, getattr(error, "strerror", None)
            words = "%s: %s" % (self.name, said or "it cannot be asked")  # others may say what is secret
            if self._memory is not None and (not came or number == errno.ETIMEDOUT) and number not in OF_THE_FILE:
                self._memory.note(self.name, words)
            raise OSError(number, words) from None

    def _read(self, start: int, length: int) -> Iterator[bytes]:
        if length <= 0:
            return
        grant = self._shown()
        answer = self._ask(grant, start, length)
        if answer.response.status in REFUSED:
            _pass_over(answer)
            answer = self._ask(self._shown(grant), start, length)
        whole = self._check(answer, start, length)
        came = 0
        for data in answer.pieces():
            came += len(data)
            if came > length:
                raise OSError(errno.EIO, "it sends more than was asked for")
            yield data
        if came < length and (whole or start + came < self.size):
            raise OSError(errno.ECONNRESET, "it broke off")

    def _ask(self, grant: Mapping[str, Any], start: int, length: int) -> web.Answer:
        """Ask for a part, wherever that leads; the answer's status is still to be looked at."""
        url, token = str(grant["url"]), str(grant.get("token") or "")
        headers = {"Range": "bytes=%d-%d" % (start, start + length - 1)} if start or length < self.size else {}
        if token and not url.startswith("https:"):
            raise OSError(errno.EACCES, "a token is shown with TLS only")
        if token:
            headers["Authorization"] = "Bearer " + token
        for turn in range(MOST_REDIRECTS):
            parts = urllib.parse.urlsplit(url)
            target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            server = _server(parts, str(grant.get("fingerprint") or ""), self._silent_s, abroad=turn > 0)
            answer = server.ask("GET", target, headers, fine=True)
            if answer.response.status not in _MOVED or token:
                return answer
            _pass_over(answer)
            url = _followed(url, answer.response.headers.get("Location", ""))
        raise OSError(errno.ELOOP, "it leads elsewhere again and again")

    def _check(self, answer: web.Answer, start: int, length: int) -> bool:
        """Make sure that an answer is what was asked for; returns whether it is the whole file.

        Raises:
            OSError: it is not.
        """
        response = answer.response
        error: OSError | None = None
        if response.status not in (200, 206):
            error = _unwell(response.status)
        elif response.headers.get("Content-Encoding", "identity") != "identity":
            error = OSError(errno.EOPNOTSUPP, "it does not give the bytes as they are")
        elif response.status == 200 and (start or length < self.size):
            error = OSError(errno.EOPNOTSUPP, "it does not give parts of files")
        elif self._is_another(response, start):
            error = OSError(errno.ESTALE, "it has changed since the run looked at it")
        if error is not None:
            answer.close()
            raise error
        return bool(response.status == 200)

    def _is_another(self, response: Any, start: int) -> bool:
        """Whether this is another version of the file than was catalogued."""
        size = str(self.size)
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").partition("/")
            if whole not in (size, "*") or not span.startswith("bytes %d-" % start):
                return True
        elif response.headers.get("Content-Length", size) != size:
            return True
        grant = self._grant or {}
        for key, header in (("etag", "ETag"), ("modified", "Last-Modified")):
            if grant.get(key):
                shown = response.headers.get(header, "")
                return _strong(shown) != _strong(str(grant[key]))
        return False


def _pass_over(answer: web.Answer) -> None:
    """Nobody wants the body, which is short as a rule."""
    with contextlib.suppress(OSError):
        answer.rest(web.SMALL)


def _strong(etag: str) -> str:
    return etag[2:] if etag.startswith("W/") else etag  # noqa: FURB188 - 3.8


def _unwell(status: int) -> OSError:
    if status in (404, 410):
        return OSError(errno.ENOENT, "it is not there any more")
    if status == 416:
        return OSError(errno.ESTALE, "it has changed since the run looked at it")
    if status in REFUSED:
        return OSError(errno.EACCES, "it refuses this node (%d)" % status)
    return OSError(errno.EIO, "it answers %d" % status)


def _followed(url: str, location: str) -> str:
    """Where a redirection leads.

    Raises:
        OSError: to where nobody is followed, as it is out of TLS. That it is to this very host is seen later.
    """
    found = urllib.parse.urljoin(url, location)
    parts = urllib.parse.urlsplit(found)
    host = parts.hostname or ""
    downgraded = url.startswith("https:") and parts.scheme != "https"
    if not location or downgraded or parts.scheme not in ("http", "https") or not host:
        raise OSError(errno.EACCES, "it leads to where nobody is followed")
    return found


def _server(parts: urllib.parse.SplitResult, fingerprint: str, silent_s: float, *, abroad: bool) -> web.Server:
    """The connections to a server, which all sources of this process share."""
    host, plain = parts.hostname or "", parts.scheme == "http"
    try:
        port = parts.port or (80 if plain else 443)
    except ValueError as error:
        raise OSError(errno.EINVAL, "it has no such port") from error
    key = (host, port, plain, fingerprint, silent_s, abroad)
    with _lock:
        found = _servers.pop(key, None)
        if found is None:
            pin = fingerprint or None
            found = web.Server(host, port, fingerprint=pin, silent_s=silent_s, plain=plain, abroad=abroad)
        _servers[key] = found
        if len(_servers) > MOST_SERVERS:
            _servers.pop(next(iter(_servers))).close()  # which was asked least lately
        return found
