"""What may be done with the files: each operation for somebody, at a path, checked and accounted for.

Everything here may block, and is called in threads. Errors are the system's own (`OSError`), `NoRoom` and `Unmet`.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import os
import shutil
import stat
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from serai.access.stores.bodies import SHA256
from serai.data.appliance.keys import drafts_directory
from serai.data.appliance.paths import RESERVED, Kept, Parts, Place, Root, text_of
from serai.data.appliance.rights import ADMIN, LIST, READ, WRITE, rights_at, rights_below
from serai.data.bodies.drafts import Drafts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.access.stores.bodies import Digests
    from serai.data.appliance.book import Book, Row
    from serai.data.appliance.keys import Keys
    from serai.data.appliance.rights import Identity

__all__ = ["Files", "Opened", "Unmet", "etag_of", "facts_of"]

BLOCK = 1 << 20
MOST_DEEP = 128


class Unmet(Exception):
    """A condition of the request does not hold."""


def etag_of(found: os.stat_result) -> str:
    """Another text for each version of a file."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'


def facts_of(found: os.stat_result) -> dict[str, Any]:
    """What is told of a file, in the words of fsspec."""
    mode = found.st_mode
    return {
        "type": "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other",
        "size": found.st_size,
        "mode": mode,
        "ino": found.st_ino,
        "nlink": found.st_nlink,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "islink": False,
    }


class Opened(NamedTuple):
    """A file that was opened for reading.

    Attributes:
        fd: its descriptor, which whoever asked closes.
        found: its facts.
        parts: its path without links.
        digests: those that are known of it.
        known: whether it came through the appliance, and is what came.
    """

    fd: int
    found: os.stat_result
    parts: Parts
    digests: Digests
    known: bool

    def is_same(self) -> bool:
        """Whether nobody has written into it since it was opened."""
        return _version(os.fstat(self.fd)) == _version(self.found)


class Files:
    """The files below a root.

    Args:
        root: the directory.
        book: who wrote what, and the space.
        keys: who may do what.
    """

    def __init__(self, root: Root, book: Book, keys: Keys) -> None:
        self.root, self.book, self.keys = root, book, keys
        self.drafts = Drafts(drafts_directory(root.directory))
        self.commits = threading.RLock()  # between looking at a version and putting another in its place

    def close(self) -> None:
        """Let go of what is open."""
        self.drafts.close()

    @contextlib.contextmanager
    def keeping(self) -> Iterator[tuple[Files, Kept]]:
        """The same files for many paths after one another, whose directories stay open; and these."""
        near = copy.copy(self)
        near.root = kept = Kept(self.root)
        try:
            yield near, kept
        finally:
            kept.close()

    # ---- rights

    def need(self, who: Identity, parts: Parts, *rights: str, below: bool = False) -> None:
        """Check that somebody has one of the rights at a path, or also everywhere below.

        Raises:
            PermissionError: not so.
        """
        has = (rights_below if below else rights_at)(who, self.keys.grants, parts)
        if not has.intersection((*rights, ADMIN)):
            wanted = " or ".join(rights)
            raise PermissionError(errno.EACCES, f"{who.user} has not the right to {wanted} there", text_of(parts))

    def at(self, who: Identity, place: Place, parts: Parts, *rights: str, below: bool = False) -> None:
        """The same for where a path really leads."""
        self.need(who, parts, *rights, below=below)
        if place.parts != parts:
            self.need(who, place.parts, *rights, below=below)

    # ---- looking

    def info(self, who: Identity, parts: Parts, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path; of a link, what it leads to."""
        own: dict[str, Any] | None = None
        with self.root.at(parts, follow=False) as place:
            self.at(who, place, parts, READ, LIST, WRITE)
            found = place.stat()
            if stat.S_ISLNK(found.st_mode):
                own = {"islink": True, "destination": os.fsdecode(os.readlink(place.name, dir_fd=place.fd))}
        if own is not None and follow:
            with self.root.at(parts) as place:
                self.at(who, place, parts, READ, LIST, WRITE)
                found = place.stat()
        return facts_of(found) | {"etag": etag_of(found)} | (own or {})

    def open(self, who: Identity, parts: Parts) -> Opened:
        """Open a file for reading.

        Raises:
            IsADirectoryError: it is one.
        """
        with self.root.at(parts) as place:
            self.at(who, place, parts, READ)
            fd = place.open()
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                os.close(fd)
                if stat.S_ISDIR(found.st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text_of(parts))
                raise PermissionError(errno.EACCES, "it is no regular file", text_of(parts))
            row, real = self.book.row(place.parts), place.parts
        if row is None or not row.of(found):
            return Opened(fd, found, real, {}, known=False)
        return Opened(fd, found, real, row.digests(found), known=True)

    def rows(self, who: Identity, parts: Parts, depth: int | None = 1) -> Iterator[dict[str, Any]]:
        """What is in a directory, or below it to a depth, without what somebody has no right to see.

        A link is told as what it leads to if that is a file inside, else as of type "other".
        """
        todo: list[tuple[Parts, bytes, int]] = [(parts, b"", 1)]
        while todo:
            here, prefix, level = todo.pop()
            try:
                entries = self._entries(who, here)
            except OSError:
                if not prefix:
                    raise
                continue
            for name, found in entries:
                below = (*here, name)
                if not rights_at(who, self.keys.grants, below):
                    continue
                facts = facts_of(found)
                if stat.S_ISLNK(found.st_mode):
                    facts = self._linked(who, below)
                facts["name"] = (prefix + name).decode("utf-8", "surrogateescape")
                yield facts
                if facts["type"] == "directory" and (depth is None or level < depth) and level < MOST_DEEP:
                    todo.append((below, prefix + name + b"/", level + 1))

    def _entries(self, who: Identity, parts: Parts) -> list[tuple[bytes, os.stat_result]]:
        with self.root.at(parts) as place:
            self.at(who, place, parts, LIST, READ)
            fd = place.open(os.O_RDONLY | os.O_DIRECTORY)
            found = []
            try:
                for name in map(os.fsencode, os.listdir(fd)):
                    if not place.parts and name.lower() == RESERVED:
                        continue
                    try:
                        found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
                    except FileNotFoundError:  # removed meanwhile
                        continue
            finally:
                os.close(fd)
        return found

    def _linked(self, who: Identity, parts: Parts) -> dict[str, Any]:
        facts = self.info(who, parts, follow=False)
        try:
            there = self.info(who, parts)
        except OSError:
            facts |= {"type": "other", "size": 0}
        else:
            facts = there | {"type": "file" if there["type"] == "file" else "other"}  # who walks would walk in circles
        return facts

    def digest(self, who: Identity, parts: Parts, kind: str = "sha256", start: int = 0, stop: int | None = None) -> str:
        """The digest of a file or of a part of it, in hexadecimal; the whole file's SHA-256 is kept."""
        opened = self.open(who, parts)
        try:
            if kind == "sha256" and start == 0 and stop is None:
                return self.sha256(opened).hex()
            begin, end, _ = slice(start, stop).indices(opened.found.st_size)
            return _digest(opened.fd, hashlib.new(kind), begin, end).hex()
        finally:
            os.close(opened.fd)

    def sha256(self, opened: Opened) -> bytes:
        """The SHA-256 of a file; it is kept while the file is the one that came through the appliance."""
        if SHA256 in opened.digests:
            return opened.digests[SHA256]
        made = _digest(opened.fd, hashlib.sha256(), 0, opened.found.st_size)
        if opened.known and opened.is_same():
            self.book.refresh(opened.parts, opened.found, {**opened.digests, SHA256: made}, opened.found)
        return made

    # ---- changing

    def mkdir(self, who: Identity, parts: Parts, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory."""
        if parents:
            for at in range(1, len(parts)):
                self.mkdir(who, parts[:at], exist_ok=True)
        with self.root.at(parts) as place:
            if exist_ok and place.name == b".":
                return
            try:
                found: os.stat_result | None = place.stat_or_none()
                if exist_ok and found is not None and stat.S_ISDIR(found.st_mode):
                    return
                self.at(who, place, parts, WRITE)
                os.mkdir(place.name, dir_fd=place.fd)
            except FileExistsError:
                if not exist_ok or not stat.S_ISDIR(place.stat().st_mode):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), text_of(parts)) from None

    def remove(
        self,
        who: Identity,
        parts: Parts,
        *,
        recursive: bool = False,
        directory: bool = False,
        check: Callable[[str | None], None] | None = None,
    ) -> None:
        """Remove a file, a link itself, an empty directory, or with `recursive` a directory with all below.

        Args:
            who: asks for it.
            parts: the path.
            recursive: whether a directory goes with all below.
            directory: it must be a directory, and empty unless `recursive`.
            check: looks at the ETag first.
        """
        with self.root.at(parts, follow=False) as place:
            self.at(who, place, parts, WRITE, below=recursive)
            if not place.parts:
                raise PermissionError(errno.EPERM, "the root is not removed", "/")
            with self.commits:
                found = place.stat()
                if check is not None:
                    check(etag_of(found))
                if stat.S_ISDIR(found.st_mode):
                    if recursive:
                        shutil.rmtree(place.name, dir_fd=place.fd)
                    elif directory:
                        os.rmdir(place.name, dir_fd=place.fd)
                    else:
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text_of(parts))
                elif directory:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), text_of(parts))
                else:
                    os.unlink(place.name, dir_fd=place.fd)
                self.book.forget_tree(place.parts)

    def move(self, who: Identity, source: Parts, target: Parts, *, replace: bool = True, clear: bool = False) -> bool:
        """Rename.

        Args:
            who: asks for it.
            source: what; a link itself.
            target: its new path.
            replace: whether what is there may be replaced, as rename does.
            clear: whether a directory that is there is removed first, with all below, as WebDAV does.

        Returns:
            Whether something was there.
        """
        with self.root.at(source, follow=False) as old, self.root.at(target, follow=False) as new:
            self.at(who, old, source, WRITE, below=True)
            self.at(who, new, target, WRITE, below=True)
            self.need(who, source, READ, LIST, below=True)
            if not old.parts or not new.parts or new.parts[: len(old.parts)] == old.parts != new.parts:
                raise OSError(errno.EINVAL, "a directory is not moved into itself", text_of(target))
            with self.commits:
                there, was = new.stat_or_none(), old.stat()
                if there is not None and not replace:
                    raise Unmet("something is there already")
                if old.parts == new.parts:
                    return True
                if there is not None and clear and stat.S_ISDIR(there.st_mode):
                    shutil.rmtree(new.name, dir_fd=new.fd)
                elif there is not None and clear and stat.S_ISDIR(was.st_mode):
                    os.unlink(new.name, dir_fd=new.fd)
                os.rename(old.name, new.name, src_dir_fd=old.fd, dst_dir_fd=new.fd)
                self.book.rename(old.parts, new.parts)
                row = self.book.row(new.parts)
                if row is not None and row.of(was):  # to be renamed is a change of the inode
                    self.book.refresh(new.parts, new.stat(), row.digests(was), was)
        return there is not None

    def touch(self, who: Identity, parts: Parts) -> None:
        """Set the time of a file or directory to now."""
        self.stamp(who, parts, None, -1)

    def stamp(self, who: Identity, parts: Parts, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions, without those that change who runs a program, and the time of the last change; -1 is now."""
        with self.root.at(parts) as place:
            self.at(who, place, parts, WRITE)
            fd = place.open(_PATH) if mode is None else place.open()
            try:
                row, before = self.book.row(place.parts), os.fstat(fd)
                if mode is not None:
                    os.fchmod(fd, mode & 0o777)
                if mtime_ns is not None:
                    now = {} if mtime_ns < 0 else {"ns": (mtime_ns, mtime_ns)}
                    os.utime(place.name, dir_fd=place.fd, follow_symlinks=False, **now)
                if row is not None and row.of(before):
                    self.book.refresh(place.parts, os.fstat(fd), row.digests(before), before)
            finally:
                os.close(fd)

    def link(self, who: Identity, destination: str, parts: Parts) -> None:
        """Make a symbolic link; it says where from its own directory on, and stays inside."""
        raw = destination.encode("utf-8", "surrogateescape")
        depth = len(parts) - 1
        for name in raw.split(b"/"):
            depth += (name not in {b"", b"."}) - 2 * (name == b"..")
            if depth < 0 or raw.startswith(b"/") or b"\0" in raw:
                raise PermissionError(errno.EACCES, "a link is relative and stays inside", text_of(parts))
        with self.root.at(parts, follow=False) as place:
            self.at(who, place, parts, WRITE)
            os.symlink(raw, place.name, dir_fd=place.fd)

    # ---- for the book

    def evict(self, parts: Parts, row: Row) -> bool:
        """Remove a best-effort file, if it is still the one that is meant."""
        try:
            with self.root.at(parts, follow=False) as place:
                if not row.of(place.stat()):
                    return False
                os.unlink(place.name, dir_fd=place.fd)
        except OSError:
            return False
        return True

    def everything(self) -> Iterator[tuple[Parts, os.stat_result]]:
        """All regular files."""
        for folder, folders, files, fd in os.fwalk(b".", dir_fd=self.root.fd):
            top = tuple(name for name in folder.split(b"/") if name != b".")
            if not top:
                folders[:] = [name for name in folders if name.lower() != RESERVED]
            for name in files:
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield (*top, name), found


_PATH = getattr(os, "O_PATH", os.O_RDONLY)


def _digest(fd: int, made: Any, at: int, end: int) -> bytes:
    while at < end and (piece := os.pread(fd, min(BLOCK, end - at), at)):
        made.update(piece)
        at += len(piece)
    digest: bytes = made.digest()
    return digest


def _version(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
