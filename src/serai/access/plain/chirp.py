"""The files of a Chirp server.

A file is written beside its place and renamed, as everywhere here. Times are whole seconds. Digests but MD5,
and copies, are made from here, because the server makes none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any

from serai.access.plain.chirp_requests import linked, listed, looked_at, opened, placed, told, written
from serai.access.plain.chirp_wire import PIECE, Connection, Server, connected, word
from serai.access.plain.chirp_writing import ChirpWriting
from serai.access.plain.files import PlainFiles, draft_of
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["ChirpFiles"]

MOST_LINKS = 40


class ChirpFiles(PlainFiles):
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
            return told(wire, wire.ask(b"whoami", PIECE))

        name = self._asked(ask, again=True).decode("utf-8", "surrogateescape")
        return HostFacts(host=self.server.where, boot="", user=name, uid=-1, home="/")

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""

        def ask(wire: Connection) -> dict[str, Any]:
            try:
                found = looked_at(wire, b"lstat", path)
            except FileNotFoundError:
                above = posixpath.dirname(path)
                if above != path and not stat.S_ISDIR(looked_at(wire, b"stat", above)["mode"]):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
                raise
            return linked(wire, path, found, follow=follow)

        return self._asked(ask, again=True)

    def entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """See `PlainFiles.entries`."""
        return self._asked(lambda wire: listed(wire, path), again=True)

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""
        with connected(self.server) as wire:
            if start == 0 and stop is None:
                yield from wire.pieces(wire.ask(b"getfile", word(path), path=path))
                return
            fd, found = opened(wire, path, b"r", 0)
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

    def renew(self) -> None:
        """Let go of kept connections to the first that is new."""
        with connected(self.server, new=True):
            pass

    # ---- writing

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        target, mode = self._target(path, how, parents=parents)
        draft = draft_of(target)

        def act(wire: Connection) -> None:
            wire.ask(b"putfile", word(draft), 0o600 if mode is None else mode, len(data), path=path)
            wire.whole = False
            wire.send(data)
            wire.answer(path)
            wire.whole = True
            wire.ask(b"chmod", word(draft), 0o644 if mode is None else mode, path=path)
            placed(wire, draft, target, exclusive=how == "x")

        try:
            self._asked(act)
        except BaseException:
            self.drop(draft)
            raise

    def _target(self, path: str, how: str, *, parents: bool) -> tuple[str, int | None]:
        """Where a file really goes, through links, and the permissions of what is there."""
        for _ in range(MOST_LINKS):
            try:
                found = self.info(path, follow=False)
            except FileNotFoundError:
                if parents:
                    self.make_parents(path)
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

    def drop(self, draft: str) -> None:
        """Remove what did not become a file, if that can be."""
        with contextlib.suppress(OSError, HostUnreachable):
            self._do(b"unlink", word(draft), path=draft)

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> ChirpWriting:
        """See `FarFiles.writing`."""
        target, mode = self._target(path, how, parents=parents)
        return ChirpWriting(self, target, how, keep=keep, mode=mode)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        with connected(self.server) as wire:
            fd, _ = opened(wire, path, b"wc", 0o600)
            at = start
            for piece in pieces:
                at = written(wire, fd, piece, at, path)
            wire.ask(b"ftruncate", fd, at, path=path)
            wire.ask(b"close", fd, path=path)
        return at

    # ---- changing

    def make_directory(self, path: str) -> None:
        """See `PlainFiles.make_directory`."""
        self._do(b"mkdir", word(path), 0o755, path=path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._do(b"rmdir", word(path), path=path)

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for path in paths:
            self._do(b"rmall" if recursive and self._is_directory(path) else b"unlink", word(path), path=path)

    def _is_directory(self, path: str) -> bool:
        return bool(self.info(path, follow=False)["type"] == "directory")

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""
        self._do(b"rename", word(source), word(target), path=source)

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

    def digest_of(self, path: str, start: int, stop: int | None, kind: str) -> str:
        """The digest of one file; the bytes travel here, but for MD5 of a whole file."""
        if kind != "md5" or start or stop is not None:
            return super().digest_of(path, start, stop, kind)
        return self._asked(lambda wire: told(wire, wire.ask(b"md5", word(path), path=path)), again=True).hex()
