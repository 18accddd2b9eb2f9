"""Inputs by URL while a run goes on: each node uses what lies on it in place, and is sent what lies elsewhere."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.apps.inputs import infos, opened
from serai.data.grants import version_of
from serai.describe.places import url_parts
from serai.dispatch.files.origins import SMALLEST, Found
from serai.errors import SeraiError, TransferFailed
from serai.travel.executor.wire import CHUNK
from serai.travel.reading.patience import Pace

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from serai.clock import Clock
    from serai.dispatch.ports import Place

LIFE_S = 0.5  # without bytes, whoever waits for them says that it is there
STALL_S = 40.0  # without a byte an attempt is given up; a dead host is noticed by ssh before that
PAUSES_S = (0.5, 2.0)  # between attempts at a host that cannot be reached
DOWN_S = 30.0  # a host that could not be reached is tried once only for so long
AHEAD = 4  # pieces of a file that are read and not yet sent
AT_ONCE = 8  # files for one node that are opened at a time: a far host's answers take their time
HOSTED = frozenset({"any", "ssh"})  # schemes whose URLs name a host that may be a node
_TRANSIENT = frozenset({
    errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENETRESET, errno.ETIMEDOUT,
})  # fmt: skip
_STAMPS = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "Last-Modified")


@dataclass(frozen=True, slots=True)
class Linked:
    """The node has the file itself.

    Attributes:
        path: absolute.
    """

    path: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The bytes of the file follow.

    Attributes:
        mode: its permissions.
        why: why it is not used in place on the node that has it; empty elsewhere.
    """

    mode: int
    why: str = ""


class Fetcher:
    """Brings inputs by URL.

    Args:
        configs: see `inputs.ssh_configs`.
        clock: tells the time.
    """

    def __init__(self, configs: Mapping[str, str], clock: Clock) -> None:
        self._configs = configs
        self.clock = clock
        self._lock = threading.Lock()  # guards the following two
        self._hosts: dict[tuple[str, str], _Host | None] = {}
        self._down: dict[tuple[str, str], float] = {}

    def bring(self, url: str, place: Place, ahead: Ahead) -> Iterator[Linked | Opened | bytes | None]:
        """Find the way of an input to a node, and its bytes where it must be sent.

        Args:
            url: of elsewhere.
            place: the node.
            ahead: what was begun before its turn.

        Yields:
            `Linked` alone; or `Opened` and then bytes in pieces of at most `CHUNK`. Now and then None: nothing has
            come for a while.

        Raises:
            TransferFailed: it cannot be read; it names the URL.
        """
        if self.is_known(url) and (path := self.path_on(url, place)) and _usable(path, place):
            yield Linked(path)
            return
        yield from self._bring(url, place, ahead.take(url))

    def whole(self, url: str, stamp: tuple[str, ...]) -> Iterator[bytes | None]:
        """The bytes of a file, in pieces of at most `CHUNK`; now and then None: nothing has come for a while.

        Raises:
            TransferFailed: it cannot be read, or is not what `look` has seen; it names the URL.
        """
        for event in self._bring(url, None, None, stamp):
            if event is None or isinstance(event, bytes):
                yield event

    def _bring(
        self, url: str, place: Place | None, begun: _Attempt | None, stamp: tuple[str, ...] | None = None
    ) -> Iterator[Linked | Opened | bytes | None]:
        host = _key(url)
        so_far = _SoFar(stamp)
        for pause_s in (*PAUSES_S, None):
            attempt = begun or _Attempt(self, url, place, so_far.at)
            begun = None
            try:
                yield from so_far.take(attempt.events())
            except Exception as error:
                lost = _is_transient(error)
                if pause_s is None or not lost or self._is_down(host):
                    if lost:
                        self._note_down(host)
                    raise TransferFailed(f"cannot read its input {url}: {_words(error)}") from error
            else:
                return
            finally:
                attempt.stop()
            yield from self._pause(pause_s)

    def ahead(self, urls: Iterable[str], place: Place) -> Ahead:
        """For the files of a bundle."""
        return Ahead(self, urls, place)

    def _pause(self, pause_s: float) -> Iterator[None]:
        until = self.clock.now() + pause_s
        while (left := until - self.clock.now()) > 0:
            threading.Event().wait(min(left, LIFE_S))
            yield None

    def _is_down(self, host: tuple[str, str]) -> bool:
        """Whether a host could not be reached of late."""
        with self._lock:
            return self.clock.now() - self._down.get(host, float("-inf")) < DOWN_S

    def _note_down(self, host: tuple[str, str]) -> None:
        with self._lock:
            self._down[host] = self.clock.now()

    def is_known(self, url: str) -> bool:
        """Whether nobody need be asked where the file of a URL lies."""
        key = _key(url)
        with self._lock:
            return key in self._hosts or key[0] not in HOSTED

    def path_on(self, url: str, place: Place) -> str | None:
        """The path that a file has on a node; None when it is not there.

        Raises:
            SeraiError, OSError: its host cannot be asked who it is.
        """
        host = self._host(url)
        if host is None or not host.is_of(place.ad):
            return None
        return self._path_at(url, host)

    def _host(self, url: str) -> _Host | None:
        key = _key(url)
        if key[0] not in HOSTED:
            return None
        with self._lock:
            known, host = key in self._hosts, self._hosts.get(key)
        if not known:
            host = _host_of(url, self._configs)
            with self._lock:
                self._hosts[key] = host
        return host

    def _path_at(self, url: str, host: _Host) -> str:
        path = str(opened(url, self._configs)[1])
        return host.home + path[1:] if path.startswith("~") else path

    def look(self, urls: Iterable[str]) -> Iterator[Found]:
        """What there is to know of files for the catalogue; of some, nothing: it is said when they are read."""
        asked = (url for url in urls if not self._is_down(_key(url)))  # else each look would wait for it
        for url, info in infos(asked, self._configs):
            if isinstance(info, Exception):
                if _is_transient(info):
                    self._note_down(_key(url))
                continue
            size = info.get("size")
            if info.get("type") != "file" or not isinstance(size, int) or int(info.get("mode") or 0) & 0o111:
                continue
            if size < SMALLEST:
                continue
            with contextlib.suppress(SeraiError, OSError):
                host = self._host(url)
                path = "" if host is None else self._path_at(url, host)
                yield Found(url, size, _stamp(info), host, path, version_of(url, info))

    def read(self, url: str, at: int) -> Generator[_Facts | bytes]:
        """What is known of a file, and its bytes from an offset on, in pieces of at most `CHUNK`.

        Raises:
            OSError, SeraiError: it cannot be read, or is not as long as it was.
        """
        filesystem, path = opened(url, self._configs)
        info = filesystem.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        size = info.get("size")
        mode = int(info.get("mode") or 0o600) & 0o777
        yield _Facts(mode, _stamp(info))
        for piece in _pieces(filesystem, path, at):
            at += len(piece)
            if size is not None and at > size:
                raise _Changed
            for start in range(0, len(piece), CHUNK):
                yield piece[start : start + CHUNK]
        if size is not None and at != size:
            raise _Changed


@dataclass(frozen=True, slots=True)
class _Facts:
    """A file as it was when it was opened."""

    mode: int
    stamp: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Host:
    """What tells a host's files, seen as a user, from all others; and that user's home."""

    boot: str
    name: str
    uid: int
    root: int
    home: str

    def is_of(self, ad: Mapping[str, Any]) -> bool:
        """Whether a node that checked in so is this host."""
        theirs = (ad.get("boot"), ad.get("host"), ad.get("uid"), ad.get("root"))
        return bool(self.boot) and theirs == (self.boot, self.name, self.uid, self.root)


def _host_of(url: str, configs: Mapping[str, str]) -> _Host | None:
    """Who the host of a URL says it is; None if it does not say."""
    filesystem, path = opened(url, configs)
    mounted = False
    if hasattr(filesystem, "way"):
        way = filesystem.way(path)
        filesystem = way.filesystem
        if way.there != way.here:  # its files are mounted here; who it is, it says itself, if it is up
            filesystem, _ = opened("ssh" + url[len("any") :], configs)
            mounted = True
    try:
        facts, root = filesystem.host_facts(), filesystem.info("/").get("ino")
    except (SeraiError, OSError):
        if mounted:
            return None
        raise
    if not facts.boot or root is None:
        return None
    return _Host(facts.boot, facts.host, facts.uid, root, facts.home)


class _Changed(Exception):
    """A file is not what it was when it was opened."""


class _SoFar:
    """What has come of an input.

    Args:
        stamp: what it must be; None where nobody has looked at it before.

    Attributes:
        at: so many bytes.
    """

    def __init__(self, stamp: tuple[str, ...] | None = None) -> None:
        self.at = 0
        self._stamp = stamp
        self._opened = False

    def take(self, events: Iterator[Any]) -> Iterator[Linked | Opened | bytes | None]:
        """Pass on what an attempt yields; a later one goes on with the file as it was when the first opened it."""
        for event in events:
            if isinstance(event, bytes):
                self.at += len(event)
                yield event
            elif not isinstance(event, _Facts):
                yield event
            elif self._stamp is not None and _differ(self._stamp, event.stamp):
                raise _Changed
            elif not self._opened:
                self._stamp, self._opened = event.stamp, True
                yield Opened(event.mode, event.why)


class _Attempt:
    """One attempt at an input, on a thread of its own: a host that hangs holds up nobody who does not wait for it."""

    def __init__(self, fetcher: Fetcher, url: str, place: Place | None, at: int) -> None:
        self._fetcher = fetcher
        self._url = url
        self._place = place
        self._at = at
        self._events: queue.Queue[Any] = queue.Queue(AHEAD)
        self._stopped = False
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._stopped = True

    def events(self) -> Iterator[Any]:
        """What `Fetcher.read` yields, or a `Linked`; None when nothing has come for a while.

        Raises:
            TimeoutError: nothing came for long, or too little.
            Exception: what the attempt ended with.
        """
        silent_s, pace, now = 0.0, Pace(STALL_S), self._fetcher.clock.now
        while True:
            began = now()
            try:
                event = self._events.get(timeout=LIFE_S)
            except queue.Empty:
                silent_s += LIFE_S
                if silent_s >= STALL_S:
                    raise TimeoutError(errno.ETIMEDOUT, f"nothing came for {STALL_S:g} s") from None
                yield None
                continue
            waited_s, silent_s = silent_s + now() - began, 0.0
            if event is _END:
                return
            if isinstance(event, BaseException):
                raise event
            pace.note(len(event) if isinstance(event, bytes) else 0, waited_s)
            yield event

    def _run(self) -> None:
        try:
            why = ""
            if self._place is not None and (path := self._fetcher.path_on(self._url, self._place)) is not None:
                if _usable(path, self._place):
                    self._put(Linked(path))
                    self._put(_END)
                    return
                why = self._place.not_here.get(path, "others could not be either")
            with contextlib.closing(self._fetcher.read(self._url, self._at)) as events:
                for event in events:
                    if not self._put(_Facts(event.mode, event.stamp, why) if isinstance(event, _Facts) else event):
                        return
            self._put(_END)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._put(error)

    def _put(self, event: Any) -> bool:
        while not self._stopped:
            with contextlib.suppress(queue.Full):
                self._events.put(event, timeout=LIFE_S)
                return True
        return False


class Ahead:
    """Files of one bundle that are opened before their turn.

    Args:
        fetcher: opens them.
        urls: in the order of their turns.
        place: the node they are for.
    """

    def __init__(self, fetcher: Fetcher, urls: Iterable[str], place: Place) -> None:
        self._fetcher = fetcher
        self._urls = collections.deque(dict.fromkeys(urls))
        self._place = place
        self._begun: dict[str, _Attempt] = {}

    def take(self, url: str) -> _Attempt | None:
        """The attempt at a file, if there is one; others are begun."""
        found = self._begun.pop(url, None)
        with contextlib.suppress(ValueError):
            self._urls.remove(url)  # the first, as a rule
        while self._urls and len(self._begun) < AT_ONCE and self._fetcher.is_known(self._urls[0]):
            following = self._urls.popleft()
            try:
                path = self._fetcher.path_on(following, self._place)
            except (SeraiError, OSError):
                continue  # said when its turn comes
            if path is None or not _usable(path, self._place):
                self._begun[following] = _Attempt(self._fetcher, following, self._place, 0)
        return found

    def close(self) -> None:
        """Nobody wants the rest."""
        for attempt in self._begun.values():
            attempt.stop()


_END: Any = object()


def _key(url: str) -> tuple[str, str]:
    """The scheme and the host of a URL."""
    scheme = "" if "::" in url else url.partition("://")[0].lower()
    return scheme, url_parts(url)[0]


def _usable(path: str, place: Place) -> bool:
    return path not in place.not_here and "" not in place.not_here


def _stamp(info: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs when a file has changed."""
    values = [info.get(name) for name in _STAMPS]
    return tuple(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values)


def _differ(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two stamps are of two versions; a listing may tell less of a file than the file itself."""
    return any(a != b and "None" not in {a, b} for a, b in zip(one, other, strict=True))


def _pieces(filesystem: Any, path: str, at: int) -> Iterator[bytes]:
    if hasattr(filesystem, "read_from"):
        yield from filesystem.read_from(path, at)
        return
    with filesystem.open(path, "rb") as file:
        if at:
            file.seek(at)
        while piece := file.read(CHUNK):
            yield piece


def _is_transient(error: Exception) -> bool:
    """Whether trying again may help."""
    if isinstance(error, SeraiError):
        return error.transient or isinstance(error, TimeoutError)
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT
    )


def _words(error: Exception) -> str:
    if isinstance(error, _Changed):
        return "it changed while it was read"
    if isinstance(error, SeraiError):
        return str(error).partition("\n")[0]
    if isinstance(error, FileNotFoundError):  # some file systems raise it with the path alone
        return os.strerror(errno.ENOENT)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
