"""Where files come from: one small port, and a directory here, which is the plainest that has it.

Paths begin with ``/``, are relative to what the source is for, and hold what bytes names have by surrogates
(`os.fsdecode`). Errors are ``OSError`` with an errno: they are what the program is told.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import secrets
import stat as modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Content(Protocol):
        """Bytes to be written."""

        def read(self, size: int = -1, /) -> bytes:
            """The next ones; none at the end."""
            ...


CHUNK = 1 << 18
# What says something of one file, and nothing of where it is.
OF_THE_FILE = frozenset({errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP, errno.EISDIR, errno.ENODATA})

# kind: "file", "directory" or "other"; mode: its permissions; stamp: another text for each version of its bytes.
Stat = collections.namedtuple("Stat", ("kind", "size", "mtime_ns", "mode", "stamp"))  # noqa: PYI024 - 3.8, no typing


def unknown(number: int, path: str) -> OSError:
    """An errno about a path."""
    return OSError(number, os.strerror(number), path)


class Source:
    """Files to be read, and written where `writable`. Its methods are called from several threads.

    Attributes:
        identity: tells it apart from others, also between programs; blocks are kept under it.
        writable: whether anything can be changed.
        stops: whether a reading is ended by itself when the other side is silent.
        name: where bytes come from, as the record says it: a peer or an origin; empty for all others.
        missed: origins that they were to come from and did not, and why.
    """

    identity = ""
    writable = False
    name = ""
    missed: dict[str, str] = {}  # noqa: RUF012 - who has some has a dictionary of its own

    def stat(self, path: str) -> Stat:
        """What is known of a path, links being followed."""
        raise unknown(errno.ENOSYS, path)

    def listed(self, path: str) -> Iterable[tuple[str, Stat | None]]:
        """The names in a directory; None for facts that would have to be asked for."""
        raise unknown(errno.ENOSYS, path)

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """Bytes of a file as they come; fewer only where the file ends.

        Args:
            path: which.
            stamp: its version; ESTALE where the source notices that it is another.
            start: of the first byte.
            length: how many.
        """
        raise unknown(errno.ENOSYS, path)

    def write(self, path: str, content: Content, size: int, mode: int | None) -> None:
        """Put a whole file in its place at once; it is the former one, or none, until then.

        Args:
            path: which.
            content: what to put there, at its beginning.
            size: of the content.
            mode: its permissions; None leaves them to the source.
        """
        raise unknown(errno.EROFS, path)

    def make_directory(self, path: str, mode: int) -> None:
        """Make a directory."""
        raise unknown(errno.EROFS, path)

    def remove(self, path: str, *, directory: bool) -> None:
        """Remove a file, or an empty directory."""
        raise unknown(errno.EROFS, path)

    def rename(self, path: str, target: str) -> None:
        """Rename, in place of what is there."""
        raise unknown(errno.EROFS, path)

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""
        raise unknown(errno.EROFS, path)

    def space(self) -> tuple[int, int]:
        """Bytes there are, and bytes that are free; zeros where nobody knows."""
        return 0, 0

    def close(self) -> None:
        """Let go of connections."""


class Directory(Source):
    """A directory of this host.

    Args:
        root: which.
    """

    writable = True

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self.identity = "directory:" + self._root

    def _at(self, path: str) -> str:
        return self._root + path if path != "/" else self._root

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        return _of(os.stat(self._at(path)))

    def listed(self, path: str) -> Iterable[tuple[str, Stat | None]]:
        """See `Source`."""
        with os.scandir(self._at(path)) as entries:
            for one in entries:
                try:
                    yield one.name, _of(one.stat())
                except OSError:  # a link that leads nowhere, or it is gone
                    yield one.name, None

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`."""
        fd = os.open(self._at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if _of(os.fstat(fd)).stamp != stamp:
                raise unknown(errno.ESTALE, path)
            while length:
                data = os.pread(fd, min(CHUNK, length), start)
                if not data:
                    return
                start, length = start + len(data), length - len(data)
                yield data
        finally:
            os.close(fd)

    def write(self, path: str, content: Content, size: int, mode: int | None) -> None:
        """See `Source`."""
        final = self._at(path)
        with contextlib.suppress(OSError):
            final = os.path.realpath(final)  # a link stays one
        draft = "%s/.%s.%s.serai" % (os.path.dirname(final), os.path.basename(final)[:100], secrets.token_hex(6))
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                while size:
                    data = content.read(min(CHUNK * 4, size))
                    if not data:
                        raise unknown(errno.EIO, path)  # noqa: TRY301 - the draft goes away
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) or 0 :]
                    size -= len(data)
            if mode is None:
                with contextlib.suppress(OSError):
                    mode = modes.S_IMODE(os.stat(final).st_mode)
            os.chmod(draft, 0o644 if mode is None else mode & 0o777)
            os.replace(draft, final)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def make_directory(self, path: str, mode: int) -> None:
        """See `Source`."""
        os.mkdir(self._at(path), mode & 0o777)

    def remove(self, path: str, *, directory: bool) -> None:
        """See `Source`."""
        (os.rmdir if directory else os.unlink)(self._at(path))

    def rename(self, path: str, target: str) -> None:
        """See `Source`."""
        os.rename(self._at(path), self._at(target))

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """See `Source`."""
        if mode is not None:
            os.chmod(self._at(path), mode & 0o777)
        if mtime_ns is not None:
            os.utime(self._at(path), ns=(mtime_ns, mtime_ns))

    def space(self) -> tuple[int, int]:
        """See `Source`."""
        found = os.statvfs(self._root)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _of(found: os.stat_result) -> Stat:
    mode = found.st_mode
    kind = "directory" if modes.S_ISDIR(mode) else "file" if modes.S_ISREG(mode) else "other"
    version = "%x-%x-%x" % (found.st_ino, found.st_size, found.st_mtime_ns)
    return Stat(kind, found.st_size, found.st_mtime_ns, modes.S_IMODE(mode), version)


class Gathered(Source):
    """Files of several sources under names of their own, all in one directory: what a task reads.

    Args:
        places: for each name, the source and the path there.
    """

    def __init__(self, places: dict[str, tuple[Source, str]]) -> None:
        for name in places:
            if not name or "/" in name or name in (".", "..") or "\0" in name:
                raise ValueError("%r is no name of a file" % name)
        self._places = places
        self.writable = False

    def place(self, path: str) -> tuple[Source, str]:
        """The source of a path, and its path there."""
        name = path[1:]
        if name not in self._places:
            raise unknown(errno.ENOENT, path)
        return self._places[name]

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        if path == "/":
            return Stat("directory", 0, 0, 0o555, "")
        source, there = self.place(path)
        return source.stat(there)

    def listed(self, path: str) -> Iterable[tuple[str, Stat | None]]:
        """See `Source`."""
        if path != "/":
            raise unknown(errno.ENOTDIR, path)
        return [(name, None) for name in self._places]

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`."""
        source, there = self.place(path)
        return source.read(there, stamp, start, length)

    def close(self) -> None:
        """See `Source`."""
        for source in {id(one): one for one, _ in self._places.values()}.values():
            source.close()


class FirstOf(Source):
    """The same file from several sources: one that fails is followed by the next, for good; the origin comes last.

    Args:
        places: each a source and the path there.
        digest: of the content, where it is known: then its blocks are known by it wherever they come from.
    """

    def __init__(self, places: list[tuple[Source, str]], digest: str = "") -> None:
        self._places, self._at = places, 0
        self._gave, self._sure = False, bool(digest)
        self._stamps: dict[int, str] = {}  # of sources but the first
        self.name, self.missed = places[0][0].name, {}
        self.identity = "digest:" + digest if digest else ""

    def _now(self) -> tuple[int, Source, str]:
        at = self._at
        return (at, *self._places[at])

    def _failed(self, at: int, error: OSError) -> bool:
        """Whether there is another."""
        if self._places[at][0].name and error.errno not in OF_THE_FILE:
            self.missed[self._places[at][0].name] = str(error.strerror or error)
        if at + 1 >= len(self._places):
            return False
        self._at = max(self._at, at + 1)
        self.name = self._places[self._at][0].name
        return True

    def stat(self, path: str) -> Stat:
        """See `Source`."""
        while True:
            at, source, there = self._now()
            try:
                return source.stat(there)
            except OSError as error:
                if not self._failed(at, error):
                    raise

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        """See `Source`; goes on at the next source where one breaks off.

        Where one says that the file has changed, what was read already may be of another version than what the next
        one has, unless all go by its digest: then that is the end.
        """
        while length > 0:
            at, source, there = self._now()
            try:
                if at and at not in self._stamps:
                    self._stamps[at] = source.stat(there).stamp
                for data in source.read(there, self._stamps.get(at, stamp), start, length):
                    start, length = start + len(data), length - len(data)
                    self._gave = True
                    yield data
            except OSError as error:
                mixed = self._gave and not self._sure and error.errno == errno.ESTALE
                if mixed or not self._failed(at, error):
                    raise
            else:
                return

    def close(self) -> None:
        """See `Source`."""
        for source, _ in self._places:
            source.close()
