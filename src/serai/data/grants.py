"""What lets nodes read inputs at their origins, without the user's own credentials: made here, shown there.

Of a ``store://`` it is a token of the run's own, narrowed from the user's to the run's inputs: to be read, for a while,
ended with the run. Of ``s3://`` it is a URL that was signed here. An ``https://`` URL is what it is; one that holds a
password, and whatever only this host reaches, is never passed on.
"""

from __future__ import annotations

import contextlib
import contextvars
import ipaddress
import itertools
import re
import threading
import urllib.parse
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from typing import TYPE_CHECKING, Any, NamedTuple

from serai.errors import AccessError, SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serai.clock import Clock

__all__ = ["Grants", "origin_of", "version_of"]

LIFE_S = 1800.0  # of a grant; one that is half as old is made anew before it is shown again
WAIT_S = 5.0  # for one: then the front end sends the file, and the next ones for so long:
LATE_S = 30.0
AGAIN_S = 2.0  # a grant that was refused is not made anew more often
ASKED_S = 20.0  # a store that says nothing for so long is given up
END_S = 5.0
MOST_MAKING = 64
MOST_ASKED = 500  # files in one request to a store
MOST_SIFTED = 50  # times that files, of which the store refuses one, are asked for in two halves
MOST_FILES = 2000  # of one token, as the appliance has it
MOST_EXPECTED = 100_000
SAFE = "/%:@!$&'()*+,;=~-._"
_SCHEME = re.compile(r"(store|s3a?|https?)://", re.ASCII)


def origin_of(url: str) -> str:
    """The origin of a URL that nodes may read straight from, for people: "store nest.lab:9094".

    It is empty where they may not. There is always a blank in it, and never in the name of a node.
    """
    found = _SCHEME.match(url)
    if found is None or "::" in url:
        return ""
    try:
        if found[1] == "store":
            from serai.access.stores.wire import server_of  # noqa: PLC0415 - urllib3 is slow to import

            server, _ = server_of(url)
            return "" if _is_own(server.host) else f"store {server.where}"
        if found[1].startswith("s3"):
            return _s3_origin(url)
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc or not parts.hostname or _is_own(parts.hostname) or parts.port == 0:
            return ""
    except (ValueError, SeraiError):
        return ""
    return f"{found[1]} {parts.netloc.lower()}"


def _s3_origin(url: str) -> str:
    from serai.access.stores.objects import S3FileSystem  # noqa: PLC0415 - s3fs is slow to import

    endpoint = S3FileSystem._get_kwargs_from_urls(url).get("endpoint_url")  # noqa: SLF001 - fsspec's own protocol
    if endpoint is None:
        return f"s3 {S3FileSystem._strip_protocol(url).partition('/')[0]}"  # noqa: SLF001 - the same
    parts = urllib.parse.urlsplit(endpoint)
    return "" if _is_own(parts.hostname or "") else f"s3 {parts.netloc.lower()}"


def _is_own(host: str) -> bool:
    """Whether a name means another host on each host."""
    host = host.lower().rstrip(".")
    if host in {"", "localhost"} or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address.is_unspecified


def version_of(url: str, info: Mapping[str, Any]) -> tuple[str, str]:
    """What tells the version of a file where it is asked by HTTP: its ETag, and when it changed; empty where unknown.

    Args:
        url: of the file.
        info: what its file system says of it.
    """
    etag = str(info.get("etag") or info.get("ETag") or "")
    if not etag and url.startswith("store://") and {"ino", "size", "mtime_ns"} <= info.keys():
        etag = f'"{info["ino"]:x}-{info["size"]:x}-{info["mtime_ns"]:x}"'  # as the appliance makes it
    return etag, str(info.get("Last-Modified") or "")


class Grants:
    """The grants of a run. Any thread may call it.

    Args:
        clock: tells the time.
        say: is told, once for each origin, why nodes are not let to read there.
        life_s: of a grant.
    """

    def __init__(
        self, clock: Clock, say: Callable[[str], object] = lambda _words: None, life_s: float = LIFE_S
    ) -> None:
        self._clock, self._say, self._life_s = clock, say, life_s
        self._session = contextvars.copy_context()  # whoever makes the run may have said which keys are meant
        self._lock = threading.Lock()
        self._making: dict[str, Future[None]] = {}
        self._made: dict[str, _Made] = {}  # by URL
        self._late: dict[str, float] = {}  # origins that took too long: until when they are not waited for
        self._said: set[str] = set()
        self._stores: dict[str, _Store] = {}
        self._closed = False

    def expect(self, urls: Iterable[str]) -> None:
        """Files will be wanted: what is made for the first of them may be made for the others, too."""
        for url in urls:
            if url.startswith("store://") and not self._closed and (origin := origin_of(url)):
                with contextlib.suppress(OSError, SeraiError):  # said when one is wanted
                    self._store(origin, url).expect(url)

    def grant(
        self, url: str, version: tuple[str, str] = ("", ""), *, anew: bool = False, wait_s: float = WAIT_S
    ) -> dict[str, Any]:
        """What lets a node read a file, see `serai.travel.reading.direct`; empty where nothing does, or not in time.

        Args:
            url: of the file.
            version: see `version_of`.
            anew: what was made before was refused.
            wait_s: for one that is to be made; it is made even if nobody waits.
        """
        origin, now = origin_of(url), self._clock.now()
        if not origin or (url.startswith("http:") and not any(version)):  # anybody might answer
            return {}
        with self._lock:
            made = self._made.get(url)
            if made is not None and now < (min(made.until, made.at + AGAIN_S) if anew else made.until):
                return self._told(origin, made, version)
            making = self._making.get(url)
            if self._closed or now < self._late.get(origin, float("-inf")) or len(self._making) >= MOST_MAKING:
                return {}
            if making is None:
                making = self._making[url] = Future()
                session = self._session.copy()
                make = threading.Thread(
                    target=session.run, args=(self._make, origin, url, anew), name="grant", daemon=True
                )
                make.start()
        try:
            making.result(wait_s)
        except LateError:
            with self._lock:
                if wait_s:
                    self._late[origin] = self._clock.now() + LATE_S
            return {}
        with self._lock:
            made = self._made.get(url)
            return {} if made is None else self._told(origin, made, version)

    def _told(self, origin: str, made: _Made, version: tuple[str, str]) -> dict[str, Any]:
        if not made.found:
            return {}
        facts = {"kind": "origin", "name": origin, "etag": version[0], "modified": version[1], **made.found}
        if "life_s" in made.found:
            facts["life_s"] = made.found["life_s"] - (self._clock.now() - made.at)
        return {name: value for name, value in facts.items() if value}

    def _make(self, origin: str, url: str, anew: bool) -> None:
        at, why = self._clock.now(), ""
        found: Mapping[str, Any] = {}
        try:
            if url.startswith("store:"):
                found = self._store(origin, url).grant(url, anew=anew)
            elif url.startswith("s3"):
                found = _signed(url, self._life_s)
            else:
                found = {"url": _encoded(url)}
        except Exception as error:  # noqa: BLE001 - whatever it was, the front end sends the file, or says what is wrong
            why = (
                error.what
                if isinstance(error, SeraiError)
                else getattr(error, "strerror", None) or type(error).__name__
            )
        with self._lock:
            making = self._making.pop(url)
            if len(self._made) >= MOST_EXPECTED:
                self._made.clear()
            if not self._closed:
                self._made[url] = _Made(found, at, at + (self._life_s / 2 if found else LATE_S))
            news = bool(why) and origin not in self._said and not self._closed
            self._said.add(origin) if news else None
        making.set_result(None)
        if news:
            with self._lock:  # who ends it all waits for this: there is nobody to tell afterwards
                if not self._closed:
                    self._say(f"nodes cannot be let to read straight from {origin}: {why}")

    def _store(self, origin: str, url: str) -> _Store:
        with self._lock:
            if self._closed:  # nobody would end its tokens
                raise AccessError("the run has ended", host=origin)
            if origin not in self._stores:
                self._stores[origin] = _Store(url, self._clock.now, self._life_s)
            return self._stores[origin]

    def close(self) -> None:
        """End all of it: tokens of stores are good for nothing any more; signed URLs expire."""
        with self._lock:
            self._closed = True
            self._made.clear()
            stores, self._stores = list(self._stores.values()), {}
        ends = [threading.Thread(target=store.end, name="end-grants", daemon=True) for store in stores]
        for end in ends:
            end.start()
        until = self._clock.now() + END_S
        for end in ends:
            end.join(max(0.0, until - self._clock.now()))


class _Made(NamedTuple):
    """A grant, when it was begun to be made, and until when it is shown."""

    found: Mapping[str, Any]
    at: float
    until: float


class _Store:
    """The run's tokens for one appliance.

    Args:
        url: of any file of it.
        now: tells the time.
        life_s: of a token.
    """

    def __init__(self, url: str, now: Callable[[], float], life_s: float) -> None:
        from serai.access.stores.wire import wire_of  # noqa: PLC0415 - urllib3 is slow to import

        self._wire, self._now, self._life_s = wire_of(url), now, life_s
        self._lock = threading.Lock()  # is held while the store is asked
        self._telling = threading.Lock()  # for a moment only
        self._expected: dict[str, None] = {}
        self._tokens: dict[str, str] = {}  # by name
        self._files: dict[str, dict[str, None]] = {}  # by the name of the token that is for them
        self._renewed: dict[str, float] = {}
        self._ended = False

    def expect(self, url: str) -> None:
        self._expect([_path(url)])

    def _expect(self, paths: Iterable[str]) -> None:
        with self._telling:
            for path in paths:
                if len(self._expected) < MOST_EXPECTED:
                    self._expected[path] = None

    def grant(self, url: str, *, anew: bool) -> Mapping[str, Any]:
        path = _path(url)
        with self._lock:
            if self._ended:
                return {}
            name = next((name for name, files in self._files.items() if path in files), "")
            if not name or self._now() - self._renewed[name] >= (AGAIN_S if anew else self._life_s / 2):
                name = self._ask(name, path)
            began, token = self._renewed[name], self._tokens[name]
        from serai.access.stores.wire import quoted  # noqa: PLC0415 - see above

        return {
            "url": f"https://{self._wire.server.where}{quoted(path)}",
            "token": token,
            "fingerprint": self._wire.fingerprint,
            "life_s": self._life_s - (self._now() - began),
        }

    def _ask(self, name: str, path: str) -> str:
        """Ask for a token for a file and others that are expected, or renew the one that is for it; returns its name.

        Raises:
            OSError, SeraiError: it gives none.
        """
        if name:
            try:
                return self._request(name, [path])
            except OSError:
                if self._lives(name):
                    raise  # it is the file's fault
            self._give_back(name)
        last, others = next(reversed(self._files), ""), self._next(path)
        into = last if last and len(self._files[last]) <= MOST_FILES // 2 - MOST_ASKED else ""  # links count twice
        try:
            return self._request(into, [path, *others])
        except (OSError, AccessError) as error:
            if not _is_refusal(error):
                raise
            if into and not self._lives(into):
                self._expect([path, *others])
                self._give_back(into)
                return self._ask("", path)
        try:
            name = self._request(into, [path])
        except (OSError, SeraiError):
            self._expect(others)
            raise
        self._sift(name, others)
        return name

    def _sift(self, name: str, paths: list[str]) -> None:
        """Let a token be for those files, of some, that the store does not refuse: it does not say which it does."""
        parts = [paths] if paths else []
        for _ in range(MOST_SIFTED):
            if not parts:
                return
            part = parts.pop()
            half = len(part) // 2
            some = [one for one in (part[:half], part[half:]) if one]
            for one in some:
                try:
                    self._request(name, one)
                except (OSError, AccessError) as error:
                    if not _is_refusal(error):
                        return  # each is asked for when it is wanted
                    if len(one) > 1:
                        parts.append(one)

    def _request(self, name: str, paths: list[str]) -> str:
        """Ask for a token for files; into the one of a name, or a new one."""
        began = self._now()
        said = {"paths": paths, "life_s": self._life_s}
        found = self._wire.json("POST", "/.serai/tokens" + (f"/{name}" if name else ""), said, read_s=ASKED_S)
        made = str(found["name"])
        if "token" in found:
            self._tokens[made] = str(found["token"])
        self._files.setdefault(made, {}).update(dict.fromkeys(paths))
        self._renewed[made] = began
        return made

    def _lives(self, name: str) -> bool:
        """Whether there is still such a token: it ends with the user's own, which a store that starts makes anew."""
        try:
            self._request(name, [])
        except OSError:
            return False
        return True

    def _give_back(self, name: str) -> None:
        """A token has ended: its files are for others."""
        self._expect(self._files.pop(name))
        del self._tokens[name], self._renewed[name]

    def _next(self, path: str) -> list[str]:
        """Further files that are expected; each is told once."""
        with self._telling:
            self._expected.pop(path, None)
            found = list(itertools.islice(self._expected, MOST_ASKED - 1))
            for one in found:
                del self._expected[one]
        return found

    def end(self) -> None:
        """End all tokens."""
        with self._lock:
            self._ended = True
            names, self._tokens = list(self._tokens), {}
        for name in names:
            with contextlib.suppress(OSError, SeraiError):  # it expires
                self._wire.json("DELETE", f"/.serai/tokens/{name}", read_s=END_S)


def _is_refusal(error: Exception) -> bool:
    """Whether a store answered, and to us, that it does not give something."""
    return not isinstance(error, AccessError) or type(error) is AccessError


def _path(url: str) -> str:
    """The path of a file in its store."""
    from serai.access.stores.wire import server_of  # noqa: PLC0415 - urllib3 is slow to import

    return "/" + server_of(url)[1].lstrip("/")


def _signed(url: str, life_s: float) -> Mapping[str, Any]:
    """A URL that reads one object, for a while.

    Raises:
        SeraiError, OSError: there are no keys, or no such profile.
    """
    from serai.access.files import filesystem_for  # noqa: PLC0415 - s3fs is slow to import

    # Other services do not know the older signature, which is the library's choice where no region is named.
    filesystem, path = filesystem_for(url, config_kwargs={"signature_version": "s3v4"})
    with filesystem._told():  # noqa: SLF001 - its own way to say what is wrong
        signed = str(filesystem.sign(path, expiration=int(life_s)))
    host = urllib.parse.urlsplit(signed).hostname or ""
    return {} if _is_own(host) else {"url": signed, "life_s": life_s}


def _encoded(url: str) -> str:
    """An HTTP URL as a request has it."""
    parts = urllib.parse.urlsplit(url)
    path, query = urllib.parse.quote(parts.path or "/", SAFE), urllib.parse.quote(parts.query, SAFE + "?")
    netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, ""))
