"""Paths that a peer names, and what they lead to below one directory, never outside of it.

A path is a tuple of names in bytes. It is followed name by name from the directory's own descriptor, so that nothing
that is renamed or linked meanwhile leads elsewhere; a symbolic link is followed where it stays inside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["RESERVED", "BadTarget", "Kept", "Parts", "Place", "Root", "parts_of", "quoted", "split_target", "text_of"]

Parts = tuple[bytes, ...]

RESERVED = b".serai"  # the appliance's own directory and addresses, at the top
MOST_NAMES = 128
LONGEST_NAME = 255  # bytes
LONGEST_PATH = 4096  # bytes
MOST_LINKS = 40  # as Linux
MOST_KEPT = 64  # directories
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*", re.ASCII)
_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadTarget(ValueError):
    """A request names a path that cannot be one."""


def split_target(target: str) -> tuple[str, str]:
    """The path and the query of a request's target, both still encoded."""
    whole = _ABSOLUTE.match(target)
    if whole is not None:
        target = target[whole.end() :] or "/"
    path, _, query = target.partition("?")
    return path, query


def parts_of(path: str) -> Parts:
    """Reads an encoded path: decoded once, each name looked at.

    Raises:
        BadTarget: it does not begin with a slash, or a name is ``..``, ``.`` or holds a slash or a NUL.
    """
    if not path.startswith("/"):
        raise BadTarget("a path begins with a slash")
    if _BROKEN_PERCENT.search(path) or "#" in path:
        raise BadTarget("% is written %25 and # is written %23")
    return checked(unquote_to_bytes(name.encode("utf-8", "surrogateescape")) for name in path.split("/") if name)


def parts_of_text(path: str) -> Parts:
    """Reads a path as it stands, such as those of commands and JSON; see `parts_of`."""
    if not path.startswith("/"):
        raise BadTarget("a path begins with a slash")
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadTarget("no name holds half a character") from error
    return checked(name for name in raw.split(b"/") if name)


def checked(names: Iterator[bytes] | Sequence[bytes]) -> Parts:
    """Names as a path.

    Raises:
        BadTarget: one cannot be a name, or there are too many.
    """
    parts = tuple(names)
    for name in parts:
        if name in {b"", b".", b".."} or b"/" in name or b"\0" in name or len(name) > LONGEST_NAME:
            raise BadTarget("a name is neither empty, . nor .., and holds neither a slash nor a NUL")
    if len(parts) > MOST_NAMES or sum(map(len, parts)) + len(parts) > LONGEST_PATH:
        raise BadTarget("the path is too long")
    return parts


def quoted(parts: Parts, *, directory: bool = False) -> str:
    """A path as URLs have it."""
    return "/" + "/".join(quote_from_bytes(name, safe="") for name in parts) + ("/" if directory and parts else "")


def text_of(parts: Parts) -> str:
    """A path as it is shown and as JSON has it; bytes that are no UTF-8 become surrogates."""
    return "/" + "/".join(name.decode("utf-8", "surrogateescape") for name in parts)


class Place:
    """Where a path leads: a descriptor of the directory, and a name in it. Valid within `Root.at`.

    Attributes:
        fd: of the directory.
        name: in it; ``.`` for the root itself.
        parts: the path without links.
        found: what was there when it was looked whether it is a link; None for nothing, or where nobody looked.
    """

    __slots__ = ("fd", "found", "name", "parts")

    def __init__(self, fd: int, name: bytes, parts: Parts, found: os.stat_result | None = None) -> None:
        self.fd = fd
        self.name = name
        self.parts = parts
        self.found = found

    def stat(self) -> os.stat_result:
        """What is there: a link itself if it is one."""
        return os.stat(self.name, dir_fd=self.fd, follow_symlinks=False)

    def stat_or_none(self) -> os.stat_result | None:
        """The same, or None where there is nothing."""
        return _look(self.name, self.fd)

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open what is there. A pipe or a device does not make us wait."""
        return os.open(self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)


class Root:
    """The directory that is served.

    Raises:
        UsageError: it is no directory.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self._raw = os.fsencode(self.directory)
        try:
            self.fd = os.open(self._raw, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{directory} cannot be served: {os.strerror(error.errno or 0)}") from error
        self.device = os.fstat(self.fd).st_dev

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def real(self, parts: Parts) -> bytes:
        """The path of a place on this host."""
        return b"/".join((self._raw.rstrip(b"/"), *parts)) or b"/"

    @contextlib.contextmanager
    def at(self, parts: Parts, *, follow: bool = True) -> Iterator[Place]:
        """Go to a path. Nothing needs to be there, but its directory.

        Args:
            parts: the path.
            follow: whether a link at its end is followed; those before are.

        Raises:
            FileNotFoundError, NotADirectoryError: there is no such directory.
            PermissionError: a link leads out.
        """
        fds, names = [self.fd], list[bytes]()  # the first is not ours to close
        try:
            yield self._walk(fds, names, parts, follow=follow)
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def _walk(self, fds: list[int], names: list[bytes], parts: Parts, *, follow: bool) -> Place:
        """Open the directories of a path; there are as many descriptors as names, and the root's."""
        ahead = list(reversed(parts))
        links = 0
        while ahead:
            name = ahead.pop()
            if name == b"..":  # of a link: no peer's path has it
                if not names:
                    raise _leads_out(parts)
                os.close(fds.pop())
                names.pop()
                continue
            if not names and name.lower() == RESERVED:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text_of(parts))
            if ahead:
                target = _enter(name, fds, parts)
                if target is None:
                    names.append(name)
                    continue
            else:
                found = _look(name, fds[-1]) if follow else None
                if found is None or not stat.S_ISLNK(found.st_mode):
                    return Place(fds[-1], name, (*names, name), found)
                target = os.readlink(name, dir_fd=fds[-1])
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), text_of(parts))
            ahead += self._led(target, fds, names, parts)
        return self._up(fds, names)

    def _led(self, target: bytes, fds: list[int], names: list[bytes], parts: Parts) -> list[bytes]:
        """The names of a link, the last one first; those that were gone along are left if it begins at the root."""
        if target.startswith(b"/"):
            target = self._inside(target, parts)
            while names:
                os.close(fds.pop())
                names.pop()
        return [one for one in reversed(target.split(b"/")) if one not in {b"", b"."}]

    @staticmethod
    def _up(fds: list[int], names: list[bytes]) -> Place:
        """The directory that was reached, as a name in the one above."""
        if not names:
            return Place(fds[-1], b".", (), os.fstat(fds[-1]))
        os.close(fds.pop())
        name = names.pop()
        return Place(fds[-1], name, (*names, name), _look(name, fds[-1]))

    def _inside(self, target: bytes, parts: Parts) -> bytes:
        """What follows our own directory in a link that begins at the host's root."""
        prefix = self._raw.rstrip(b"/") + b"/"
        if not target.startswith(prefix):
            raise _leads_out(parts)
        return target[len(prefix) :]


class Kept(Root):
    """The same, for some files after one another: the directories of their paths stay open from one to the next.

    Args:
        root: which; it outlives this.
    """

    def __init__(self, root: Root) -> None:
        self.directory, self._raw, self.fd, self.device = root.directory, root._raw, root.fd, root.device  # noqa: SLF001 - its own kind
        self._kept: dict[Parts, tuple[int, Parts]] = {}

    def forget(self) -> None:
        """Let go of the directories; they are looked for anew, as somebody may have moved them."""
        for fd, _ in self._kept.values():
            os.close(fd)
        self._kept.clear()

    close = forget

    @contextlib.contextmanager
    def at(self, parts: Parts, *, follow: bool = True) -> Iterator[Place]:
        """See `Root.at`."""
        place = self._known(parts) if follow and len(parts) > 1 else None
        if place is not None:
            yield place
            return
        with super().at(parts, follow=follow) as walked:
            yield walked

    def _known(self, parts: Parts) -> Place | None:
        """Where a path leads whose directory is open, or can be; None for whatever is not as simple as that."""
        kept = self._kept.get(parts[:-1])
        if kept is None:
            if len(self._kept) >= MOST_KEPT:
                return None
            with contextlib.suppress(OSError), super().at(parts[:-1]) as folder:
                kept = self._kept[parts[:-1]] = os.open(folder.name, _PATH_ONLY, dir_fd=folder.fd), folder.parts
        if kept is None or not kept[1]:  # or what a link to the root itself leads to
            return None
        found = _look(parts[-1], kept[0])
        if found is not None and stat.S_ISLNK(found.st_mode):
            return None
        return Place(kept[0], parts[-1], (*kept[1], parts[-1]), found)


def _enter(name: bytes, fds: list[int], parts: Parts) -> bytes | None:
    """Open a directory; or where it leads, if it is a link."""
    try:
        fds.append(os.open(name, _PATH_ONLY, dir_fd=fds[-1]))
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            with contextlib.suppress(OSError):
                return os.readlink(name, dir_fd=fds[-1])
        raise type(error)(error.errno, error.strerror, text_of(parts)) from None
    return None


def _look(name: bytes, fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _leads_out(parts: Parts) -> PermissionError:
    return PermissionError(errno.EACCES, "a link leads out of what is served", text_of(parts))
