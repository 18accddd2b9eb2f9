"""The files of a Chirp server, with the face of `serai.access.filesystems.far.PorterFiles`.

A file is written beside its place and renamed, as everywhere here. Times are whole seconds. Digests but MD5,
and copies, are made from here, because the server makes none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import secrets
import stat
from typing import TYPE_CHECKING, Any, Self

from serai.access.stores.chirp_wire import PIECE, Connection, Server, connected, word
from serai.clock import SystemClock
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["ChirpFiles"]

MOST_LINKS = 40
MOST_ENTRIES = 10_000_000
_STAT = re.compile(rb"(?:-?[0-9]+ ){12}-?[0-9]+ ?")


class ChirpFiles:
    """The files of one server. Requests that change nothing are made once more after a lost connection.

    Args:
        server: which.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def _asked(self, act: Callable[[Connection], _T], *, again: bool = False) -> _T:
        try:
            with connected(self.server) as wire:
                return act(wire)
        except HostUnreachable:
            if not again:
                raise
        with connected(self.server, new=True) as wire:
            return act(wire)

    def _do(self, *words: bytes | int, path: str) -> int:
        return self._asked(lambda wire: wire.ask(*words, path=path))

    def facts(self) -> HostFacts:
        """Whose files these are: whoever the server takes us for."""

        def ask(wire: Connection) -> bytes:
            return _text(wire, wire.ask(b"whoami", PIECE))

        name = self._asked(ask, again=True).decode("utf-8", "surrogateescape")
        return HostFacts(host=self.server.where, boot="", user=name, uid=-1, home="/")

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""

        def ask(wire: Connection) -> dict[str, Any]:
            try:
                found = _stat(wire, b"lstat", path)
            except FileNotFoundError:
                above = posixpath.dirname(path)
                if above != path and not stat.S_ISDIR(_stat(wire, b"stat", above)["mode"]):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
                raise
            return _linked(wire, path, found, follow=follow)

        return self._asked(ask, again=True)

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """See `PorterFiles.rows`; one question for each directory."""
        own = self.info(path)
        found: list[dict[str, Any]] = []
        todo = [("", 1)] if own["type"] == "directory" else []
        while todo:
            below, level = todo.pop()
            here = f"{path.rstrip('/')}/{below}".rstrip("/") or "/"
            try:
                entries = self._asked(lambda wire, here=here: _entries(wire, here), again=True)  # type: ignore[misc] # mypy does not see the default
            except PermissionError:
                if not below:
                    raise
                continue
            for name, row in entries:
                found.append({**row, "name": below + name})
                if row["type"] == "directory" and (depth is None or level < depth):
                    todo.append((f"{below}{name}/", level + 1))
        return own, found

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""
        with connected(self.server) as wire:
            if start == 0 and stop is None:
                yield from wire.pieces(wire.ask(b"getfile", word(path), path=path))
                return
            fd, found = _open(wire, path, b"r", 0)
            try:
                if found["type"] == "directory":
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                at, end, _ = slice(start, stop).indices(found["size"])
                while at < end:
                    count = wire.ask(b"pread", fd, min(PIECE, end - at), at, path=path)
                    wire.expect(count, 0, min(PIECE, end - at))
                    if not count:
                        break
                    at += count
                    yield b"".join(wire.pieces(count))
            finally:
                if wire.whole:
                    wire.ask(b"close", fd, path=path)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one."""
        try:
            return b"".join(self.read_from(path, start, stop))
        except HostUnreachable:
            with connected(self.server, new=True):
                pass
            return b"".join(self.read_from(path, start, stop))

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order."""
        for path, start, stop in wanted:
            try:
                yield self.read(path, start, stop)
            except Exception as error:  # noqa: BLE001 - whoever asked decides
                yield error

    def ahead(self, path: str, start: int, stop: int) -> None:
        """Nothing is read ahead."""

    # ---- writing

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        target, mode = self._target(path, how, parents=parents)
        draft = _draft(target)

        def act(wire: Connection) -> None:
            wire.ask(b"putfile", word(draft), 0o600 if mode is None else mode, len(data), path=path)
            wire.whole = False
            wire.send(data)
            wire.answer(path)
            wire.whole = True
            wire.ask(b"chmod", word(draft), 0o644 if mode is None else mode, path=path)
            _place(wire, draft, target, exclusive=how == "x")

        try:
            self._asked(act)
        except BaseException:
            self._drop(draft)
            raise

    def _target(self, path: str, how: str, *, parents: bool) -> tuple[str, int | None]:
        """Where a file really goes, through links, and the permissions of what is there."""
        for _ in range(MOST_LINKS):
            try:
                found = self.info(path, follow=False)
            except FileNotFoundError:
                if parents:
                    self.mkdir(posixpath.dirname(path) or "/", parents=True, exist_ok=True)
                else:
                    self.info(posixpath.dirname(path) or "/")
                return path, None
            if how == "x":
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if found["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if not found["islink"]:
                return path, stat.S_IMODE(found["mode"])
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), found["destination"]))
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _drop(self, draft: str) -> None:
        with contextlib.suppress(OSError, HostUnreachable):
            self._do(b"unlink", word(draft), path=draft)

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> Writing:
        """See `PorterFiles.writing`."""
        target, mode = self._target(path, how, parents=parents)
        return Writing(self, target, how, keep=keep, mode=mode)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        with connected(self.server) as wire:
            fd, _ = _open(wire, path, b"wc", 0o600)
            at = start
            for piece in pieces:
                at = _write(wire, fd, piece, at, path)
            wire.ask(b"ftruncate", fd, at, path=path)
            wire.ask(b"close", fd, path=path)
        return at

    # ---- changing

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        above = posixpath.dirname(path.rstrip("/"))
        if parents and above not in {"", "/", path}:
            try:
                self.info(above)
            except FileNotFoundError:
                self.mkdir(above, parents=True, exist_ok=True)
        try:
            self._do(b"mkdir", word(path), 0o755, path=path)
        except FileExistsError:
            if not exist_ok or self.info(path)["type"] != "directory":
                raise

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._do(b"rmdir", word(path), path=path)

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for path in paths:
            self._do(b"rmall" if recursive and self._is_directory(path) else b"unlink", word(path), path=path)

    def _is_directory(self, path: str) -> bool:
        return bool(self.info(path, follow=False)["type"] == "directory")

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file, by way of this machine."""
        found = self.info(source)
        if found["type"] == "directory":
            self.mkdir(target, parents=True, exist_ok=True)
            return
        with self.writing(target, "w", parents=parents) as writing:
            for piece in self.read_from(source):
                writing.write(piece)
        self.stamp(target, mode=stat.S_IMODE(found["mode"]), mtime_ns=found["mtime_ns"] if keep_times else None)

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""
        if parents:
            self.mkdir(posixpath.dirname(target) or "/", parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.info(target)["type"] == "directory":
                target = f"{target}/{posixpath.basename(source)}"
        self.replace(source, target)

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""
        self._do(b"rename", word(source), word(target), path=source)

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""
        if not truncate:
            try:
                self.stamp(path, mode=None, mtime_ns=int(SystemClock().wall() * 1e9))
            except FileNotFoundError:
                pass
            else:
                return
        self.put(path, b"", "w", parents=parents)

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time; a server may take less of a mode than was said."""
        if mode is not None:
            self._do(b"chmod", word(path), mode, path=path)
        if mtime_ns is not None:
            second = mtime_ns // 10**9
            self._do(b"utime", word(path), second, second, path=path)

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a link."""
        self._do(b"link" if hard else b"symlink", word(destination), word(path), path=path)

    # ---- digests

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`; the bytes travel here, but for MD5 of whole files."""
        found: dict[str, str] = {}
        for path in paths:
            if kind == "md5" and not start and stop is None:
                asked = self._asked(
                    lambda wire, path=path: _text(wire, wire.ask(b"md5", word(path), path=path)),  # type: ignore[misc] # mypy does not see the default
                    again=True,
                )
                found[path] = asked.hex()
                continue
            made = hashlib.new(kind, usedforsecurity=False)
            for piece in self.read_from(path, start, stop):
                made.update(piece)
            found[path] = made.hexdigest()
        return found


class Writing:
    """A file that is being written; as a context, it is finished, or given up after an error."""

    def __init__(self, files: ChirpFiles, path: str, how: str, *, keep: bool, mode: int | None) -> None:
        self._files, self._final, self._how, self._keep, self._mode = files, path, how, keep, mode
        self._path = path if how == "a" else _draft(path)
        self._stack = contextlib.ExitStack()
        self._wire: Connection | None = None
        self._fd, self._at = -1, 0

    def begin(self) -> None:
        """Open it.

        Raises:
            OSError: it cannot be written.
        """
        if self._wire is None:
            wire = self._stack.enter_context(connected(self._files.server))
            try:
                flags = b"wc" if self._how == "a" else b"wcx"
                self._fd, found = _open(wire, self._path, flags, 0o644 if self._mode is None else self._mode)
            except BaseException:
                self._stack.close()
                raise
            self._wire, self._at = wire, found["size"]

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        self.begin()
        assert self._wire is not None  # noqa: S101 - for the reader of types
        self._at = _write(self._wire, self._fd, data, self._at, self._final)

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        self.begin()
        assert self._wire is not None  # noqa: S101 - for the reader of types
        self._wire.ask(b"close", self._fd, path=self._final)
        self._stack.close()
        if self._how != "a":
            self._files.stamp(self._path, mode=0o644 if self._mode is None else self._mode, mtime_ns=None)
            if not self._keep:
                self._place(exclusive=self._how == "x")

    def _place(self, *, exclusive: bool) -> None:
        with connected(self._files.server) as wire:
            _place(wire, self._path, self._final, exclusive=exclusive)
        self._path = self._final

    def commit(self, *, exclusive: bool = False) -> None:
        """Put in its place what was kept."""
        if self._path != self._final:
            self._place(exclusive=exclusive)

    def discard(self) -> None:
        """Give it up."""
        if self._wire is not None and self._wire.whole:
            with contextlib.suppress(OSError, HostUnreachable):
                self._wire.ask(b"close", self._fd)
        self._stack.close()
        if self._path != self._final:
            self._files._drop(self._path)  # noqa: SLF001 - its other half

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.finish()
        except BaseException:
            self.discard()
            raise


def _draft(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name[:60]}.{secrets.token_hex(6)}.serai")


def _place(wire: Connection, draft: str, target: str, *, exclusive: bool) -> None:
    if exclusive:  # a rename would take away what came meanwhile
        wire.ask(b"link", word(draft), word(target), path=target)
        wire.ask(b"unlink", word(draft), path=draft)
    else:
        wire.ask(b"rename", word(draft), word(target), path=target)


def _open(wire: Connection, path: str, flags: bytes, mode: int) -> tuple[int, dict[str, Any]]:
    fd = wire.ask(b"open", word(path), flags, mode, path=path)
    return fd, _told(wire)


def _text(wire: Connection, size: int) -> bytes:
    """A short answer, in one."""
    wire.expect(size, 0, PIECE)
    return b"".join(wire.pieces(size))


def _told(wire: Connection) -> dict[str, Any]:
    """The facts of a file that come next."""
    line = wire.line()
    if not _STAT.fullmatch(line):
        raise wire.not_spoken()
    return _facts(line)


def _write(wire: Connection, fd: int, data: bytes | memoryview, at: int, path: str) -> int:
    view = memoryview(data).cast("B")
    while view:
        count = wire.ask(b"pwrite", fd, min(PIECE, len(view)), at, data=view[:PIECE], path=path)
        wire.expect(count, 1, min(PIECE, len(view)))
        at, view = at + count, view[count:]
    return at


def _stat(wire: Connection, how: bytes, path: str) -> dict[str, Any]:
    wire.ask(how, word(path), path=path)
    return _told(wire)


def _facts(line: bytes) -> dict[str, Any]:
    numbers = [int(one) for one in line.split()]
    mode = numbers[2]
    return {
        "type": "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other",
        "size": numbers[7],
        "mode": mode,
        "ino": numbers[1],
        "nlink": numbers[3],
        "mtime_ns": numbers[11] * 10**9,
        "ctime_ns": numbers[12] * 10**9,
        "islink": stat.S_ISLNK(mode),
    }


def _linked(wire: Connection, path: str, found: dict[str, Any], *, follow: bool) -> dict[str, Any]:
    """What is told of a link: where it leads, and with `follow` what is there."""
    if not found["islink"]:
        return found
    destination = _text(wire, wire.ask(b"readlink", word(path), PIECE, path=path)).decode("utf-8", "surrogateescape")
    there = _stat(wire, b"stat", path) if follow else found
    return {**there, "islink": True, "destination": destination}


def _entries(wire: Connection, path: str) -> list[tuple[str, dict[str, Any]]]:
    """What is in a directory. A name may hold line feeds: it ends where a line of numbers follows."""
    wire.ask(b"getlongdir", word(path), path=path)
    wire.whole = False
    found: list[tuple[str, dict[str, Any]]] = []
    name: list[bytes] = []
    while len(found) < MOST_ENTRIES:
        line = wire.line()
        if name and _STAT.fullmatch(line):
            text = b"\n".join(name).decode("utf-8", "surrogateescape")
            name = []
            if text not in {".", ".."} and "/" not in text and "\0" not in text:  # else it leads out of the directory
                found.append((text, _facts(line)))
        elif not line and not name:
            break
        else:
            name.append(line)
    wire.whole = True
    return [(name, _entry(wire, f"{path.rstrip('/')}/{name}", row)) for name, row in found]


def _entry(wire: Connection, path: str, row: dict[str, Any]) -> dict[str, Any]:
    """A link in a listing is told as the file that it leads to, and as nothing to walk into."""
    if not row["islink"]:
        return row
    told = {**row, "type": "other"}
    with contextlib.suppress(OSError):
        told = _linked(wire, path, row, follow=True)
    return {**told, "type": "file" if told["type"] == "file" else "other"}
