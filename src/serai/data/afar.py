"""Whatever fsspec reaches, as a source for mounts: in this process, and for nodes through the gateway."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import secrets
import threading
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from serai.access.files import filesystem_for, is_of_objects
from serai.errors import SeraiError, UsageError, errno_of
from serai.travel.reading.sources import Source, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from serai.adverts.gateway import Handler
    from serai.travel.reading.sources import Content

__all__ = ["FarSource", "Reach"]

SENT = 1 << 20
MOST_READ = 4 << 20  # bytes of one answer
MOST_SOURCES = 10_000
_WEB = ("Last-Modified",)
_VERSION = (
    *("etag", "ETag", "checksum", "md5Hash", "ino", "size", "mtime_ns", "mtime", "LastModified", "last_modified"),
    *("Content-MD5", "Digest", *_WEB),  # of web servers
)


class FarSource(Source):
    """A file or a directory that has a URL.

    Args:
        url: any that fsspec or Serai knows.
        ssh_config: the file that ssh is given instead of the user's own.
    """

    writable = True

    def __init__(self, url: str, ssh_config: str | None = None) -> None:
        self._files, top = filesystem_for(url, ssh_config)
        self._top = str(top).rstrip("/") if str(top) != "/" else ""
        self._whole = hasattr(self._files, "read_from") or is_of_objects(self._files)
        self.identity = url.rstrip("/")
        # Of web servers no listings are kept, and this word would go to the client library, which refuses it.
        self._anew = {} if _protocols(self._files) & {"http", "https"} else {"refresh": True}

    def _at(self, path: str) -> str:
        return self._top + path if path != "/" else self._top or "/"

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        with _plain(path):
            try:
                found = self._files.info(self._at(path), **self._anew)
            except TypeError:  # it has no listings to be refreshed
                found = self._files.info(self._at(path))
            return _stat_of(found)

    def listed(self, path: str) -> Iterable[tuple[str, Stat | None]]:
        """See `Source`."""
        with _plain(path):
            there = self._at(path)
            try:
                rows = self._files.ls(there, detail=True, **self._anew)
            except TypeError:
                rows = self._files.ls(there, detail=True)
            found = []
            for row in rows:
                name = str(row["name"]).rstrip("/").rpartition("/")[2]
                # Only the facts of what a link leads to are its file's; those must be asked for.
                # Pages of web servers name files and no sizes.
                told = row.get("type") == "directory" or (row.get("type") == "file" and row.get("size") is not None)
                plain = told and not row.get("islink")
                if name and str(row["name"]).rstrip("/") != there.rstrip("/"):
                    found.append((name, _stat_of(row) if plain else None))
            return found

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`; a change of the file is noticed when it is opened the next time."""
        with _plain(path):
            there = self._at(path)
            if hasattr(self._files, "read_from"):
                yield from self._files.read_from(there, start, start + length)
            else:
                data = self._files.cat_file(there, start=start, end=start + length)
                if len(data) > length:  # and nobody knows which bytes these are
                    raise OSError(errno.EIO, "it does not give parts of files", path)
                yield data if isinstance(data, bytes) else bytes(data)

    def write(self, path: str, content: Content, size: int, mode: int | None) -> None:
        """See `Source`."""
        with _plain(path):
            final = self._at(path)
            if self._whole:
                self._send(content, final)
            else:
                folder, _, name = final.rpartition("/")
                draft = f"{folder}/.{name[:100]}.{secrets.token_hex(6)}.serai"
                try:
                    self._send(content, draft)
                    self._files.mv(draft, final)
                except BaseException:
                    with contextlib.suppress(Exception):
                        self._files.rm_file(draft)
                    raise
            if mode is not None and hasattr(self._files, "chmod"):
                with contextlib.suppress(OSError, NotImplementedError, SeraiError, TypeError, ValueError):
                    self._files.chmod(final, mode)  # of s3fs, it takes something else

    def _send(self, content: Content, there: str) -> None:
        with self._files.open(there, "wb") as file:
            while data := content.read(SENT):
                file.write(data)

    def make_directory(self, path: str, mode: int) -> None:
        """See `Source`."""
        with _plain(path):
            self._files.mkdir(self._at(path), create_parents=False)

    def remove(self, path: str, *, directory: bool) -> None:
        """See `Source`."""
        with _plain(path):
            (self._files.rmdir if directory else self._files.rm_file)(self._at(path))

    def rename(self, path: str, target: str) -> None:
        """See `Source`."""
        with _plain(path):
            move = getattr(self._files, "replace", None) or self._files.mv
            move(self._at(path), self._at(target))

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """See `Source`; where nothing of the kind is kept, nothing happens."""
        if hasattr(self._files, "stamp"):
            with _plain(path):
                self._files.stamp(self._at(path), mode=mode, mtime_ns=mtime_ns)

    def url_at(self, path: str) -> str:
        """The URL of a path."""
        return self.identity + (path if path != "/" else "")


@contextlib.contextmanager
def _plain(path: str) -> Iterator[None]:
    """What went wrong, as an errno."""
    try:
        yield
    except OSError as error:
        if error.errno:
            raise
        number = errno_of(error) or errno.EIO
        raise OSError(number, str(error) or os.strerror(number), path) from error
    except NotImplementedError as error:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path) from error
    except SeraiError as error:
        raise OSError(errno.ECONNRESET if error.transient else errno.EACCES, error.what, path) from error


def _protocols(filesystem: Any) -> set[str]:
    """The schemes of a file system of fsspec."""
    said = filesystem.protocol
    return {said} if isinstance(said, str) else set(said)


def _stat_of(found: Mapping[str, Any]) -> Stat:
    kind = "directory" if found.get("index") else found.get("type", "file")
    kind = kind if kind in {"file", "directory"} else "other"
    changed = found.get("mtime_ns")
    if changed is None:
        for name in ("mtime", "LastModified", "last_modified", "created", *_WEB):
            changed = found.get(name)
            if name in _WEB and changed:
                with contextlib.suppress(ValueError):
                    changed = parsedate_to_datetime(str(changed))
            if isinstance(changed, dt.datetime):
                changed = changed.timestamp()
            if isinstance(changed, int | float):
                changed = int(changed * 1e9)
                break
            changed = None
    mode = found.get("mode")
    mode = int(mode) & 0o777 if isinstance(mode, int) else (0o755 if kind == "directory" else 0o644)
    version = "|".join(f"{name}={found[name]}" for name in _VERSION if found.get(name) is not None)
    return Stat(kind, int(found.get("size") or 0), int(changed or 0), mode, version)


class Reach:
    """What nodes may read through the gateway of their run; see `serai.travel.reading.relayed`.

    Args:
        allowed: whether a URL may be read.
        ssh_config_of: the file that ssh is given for a URL, or None for the user's own.
    """

    def __init__(
        self, allowed: Callable[[str], bool], ssh_config_of: Callable[[str], str | None] = lambda _url: None
    ) -> None:
        self._allowed, self._ssh_config_of = allowed, ssh_config_of
        self._lock = threading.Lock()
        self._sources: dict[str, FarSource] = {}

    def handlers(self) -> dict[str, Handler]:
        """For `serai.adverts.gateway.Gateway`."""
        acts: dict[str, Handler] = {
            "file.stat": lambda head, _: (_told(self._source(head).stat("/")), b""),
            "file.read": self._read,
        }
        return {name: _coded(act) for name, act in acts.items()}

    def _source(self, head: Mapping[str, Any]) -> FarSource:
        url = str(head.get("url"))
        if ".." in url.split("/") or "\0" in url or not self._allowed(url):
            raise PermissionError(errno.EACCES, "it is not for this run", url)
        with self._lock:
            found = self._sources.get(url)
        if found is None:
            found = FarSource(url, self._ssh_config_of(url))
            with self._lock:
                if len(self._sources) > MOST_SOURCES:
                    self._sources.clear()
                self._sources[url] = found
        return found

    def _read(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        start, length = _number(head, "start"), _number(head, "length")
        if length > MOST_READ:
            raise UsageError(f"{length} bytes are not read at once")
        return {}, b"".join(self._source(head).read("/", "", start, length))


def _told(found: Stat) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "size": found.size,
        "mtime_ns": found.mtime_ns,
        "mode": found.mode,
        "stamp": found.stamp,
    }


def _coded(act: Handler) -> Handler:
    """Tells errnos by their names, so that a program on a node is told the same as one here."""

    def handler(head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            return act(head, body)
        except OSError as error:
            if isinstance(error, SeraiError) or error.errno is None or error.errno not in errno.errorcode:
                raise
            raise UsageError(f"{errno.errorcode[error.errno]}: {error.strerror}") from error

    return handler


def _number(head: Mapping[str, Any], key: str) -> int:
    value = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{key}: {value!r} is no number")
    return value
