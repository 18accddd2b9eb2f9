"""Writing a file: beside, then put in its place when it is whole, within the space that was held for it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from serai.access.stores.bodies import SHA256, XXH3, new_check
from serai.data.appliance.files import Unmet, etag_of
from serai.data.appliance.keys import drafts_directory
from serai.data.appliance.lots import NoRoom
from serai.data.appliance.paths import Parts, text_of
from serai.data.appliance.rights import WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.access.stores.bodies import Digests
    from serai.data.appliance.files import Files
    from serai.data.appliance.rights import Identity

__all__ = ["Receipt", "Upload", "copy_file", "sweep", "write_at"]

STEP = 64 << 20  # bytes that are held at a time where it is not said how many come


def sweep(root: str) -> int:
    """Remove what a server that was killed had not finished; returns how many."""
    drafts = drafts_directory(root)
    names = os.listdir(drafts)
    for name in names:
        os.unlink(os.path.join(drafts, name))
    return len(names)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an upload.

    Attributes:
        etag: of the new version.
        digests: of its bytes, those that were taken.
        replaced: whether there was a file.
    """

    etag: str
    digests: Digests
    replaced: bool


class Upload:
    """A file that is coming; as a context it is given up unless it was finished.

    Args:
        files: where.
        who: writes it.
        parts: its path. Through a link, what it leads to is written.
        length: its size in bytes, None if nobody said.
        lot: which it is charged to; see `Ledger.hold`.
        check: looks at the ETag of what is there, None for nothing; before, and again when it is put in its place.
        exclusive: there must be nothing.
        parents: whether missing directories are made.

    Raises:
        OSError, NoRoom, Unmet: it cannot be written.
    """

    def __init__(
        self,
        files: Files,
        who: Identity,
        parts: Parts,
        length: int | None = None,
        lot: str | None = None,
        check: Callable[[str | None], None] | None = None,
        *,
        exclusive: bool = False,
        parents: bool = False,
    ) -> None:
        self._files, self._check, self._exclusive, self._who = files, check, exclusive, who
        self._real: Parts = ()
        self._using = threading.RLock()  # its descriptor: at the server's end it is given up while a thread works
        self._length, self._parts, self.size = length, parts, 0
        self._made: dict[str, Any] = {XXH3: new_check()}
        self._fd, self._name = -1, ""
        try:
            self._begin()
        except FileNotFoundError:
            if not parents or len(parts) < 2:
                raise
            files.mkdir(who, parts[:-1], parents=True, exist_ok=True)
            self._begin()
        self._hold = files.book.hold(who.user, STEP if length is None else length, lot)
        try:
            self._name, self._fd = files.drafts.new()
        except BaseException:
            self.abandon()
            raise

    def _begin(self) -> None:
        files = self._files
        with files.root.at(self._parts) as place:
            files.at(self._who, place, self._parts, WRITE)
            self._real = place.parts
            if os.fstat(place.fd).st_dev != files.root.device:
                raise OSError(errno.EXDEV, "another file system is mounted there: it is to be served by itself")
            self._look(place.found)

    def _look(self, found: os.stat_result | None) -> None:
        if found is not None and self._exclusive:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), text_of(self._parts))
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text_of(self._parts))
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EACCES, "it is no regular file", text_of(self._parts))
        if self._check is not None:
            self._check(None if found is None else etag_of(found))

    def take_sha256(self) -> None:
        """Take the SHA-256 too of what is going to be written."""
        self._made[SHA256] = hashlib.sha256()

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write bytes."""
        with self._using:
            self._write(pieces)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        more = sum(map(len, pieces))
        if self._length is not None and self.size + more > self._length:
            raise OSError(errno.EFBIG, "more came than was said", text_of(self._parts))
        while self.size + more > self._hold.size:
            self._hold = self._files.book.grow(self._hold, STEP)
        for piece in pieces:
            for made in self._made.values():
                made.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._fd, view) :]
        self.size += more

    def copy_from(self, fd: int) -> None:
        """Write all bytes of another file, sharing blocks where the disk can."""
        offset = 0
        while count := os.copy_file_range(fd, self._fd, 64 << 20, offset):
            offset += count
            if self._length is not None and offset > self._length:
                raise OSError(errno.EFBIG, "it grew meanwhile", text_of(self._parts))
        self.size = offset

    def finish(self, *, said: Digests | None = None, copied: Digests | None = None, mode: int | None = None) -> Receipt:
        """Put it in its place.

        Args:
            said: what its digests are to be, of those that are taken.
            copied: the digests that are known of it, where its bytes came by `copy_from`.
            mode: permissions; None: those of the file that is replaced, or what the umask leaves.

        Raises:
            Unmet: another version is there than was wanted.
            OSError: it is not whole, or its digest is another.
        """
        digests = {kind: made.digest() for kind, made in self._made.items()} if copied is None else dict(copied)
        if self._length is not None and self.size != self._length:
            raise OSError(errno.EIO, f"{self.size} of {self._length} bytes came", text_of(self._parts))
        if any(digests.get(kind) != digest for kind, digest in (said or {}).items()):
            raise OSError(errno.EBADMSG, "its digest is another than was said", text_of(self._parts))
        with self._using:
            found, replaced = self._place(mode, digests)
            self.abandon()
        return Receipt(etag_of(found), digests, replaced)

    def _place(self, mode: int | None, digests: Digests) -> tuple[os.stat_result, bool]:
        """Put it in its place; returns its facts, and whether something was there."""
        book = self._files.book
        drafts = self._files.drafts
        with self._files.commits, self._files.root.at(self._parts) as place:
            if place.parts != self._real:  # somebody put a link in the way since it was begun
                self._files.at(self._who, place, self._parts, WRITE)
            there = place.found
            self._look(there)
            if mode is None:
                mode = drafts.mode if there is None else stat.S_IMODE(there.st_mode)
            if mode != drafts.mode:
                with contextlib.suppress(OSError):  # somebody else's file, in a directory that we may write
                    os.fchmod(self._fd, mode)
            os.replace(self._name, place.name, src_dir_fd=drafts.fd, dst_dir_fd=place.fd)
            self._name = ""
            found = os.fstat(self._fd)
            book.settle(self._hold, place.parts, found, digests)
        return found, there is not None

    def abandon(self) -> None:
        """Give it up; what was finished stays, also what a thread is finishing."""
        with self._using:
            self._files.book.drop(self._hold)
            if self._name:
                with contextlib.suppress(OSError):
                    os.unlink(self._name, dir_fd=self._files.drafts.fd)
                self._name = ""
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()


def copy_file(files: Files, who: Identity, source: Parts, target: Parts, *, parents: bool = False) -> Receipt:
    """Copy a file within the appliance, with its permissions."""
    opened = files.open(who, source)
    try:
        with Upload(files, who, target, opened.found.st_size, parents=parents) as upload:
            upload.copy_from(opened.fd)
            digests = opened.digests if opened.is_same() else {}  # it may have been written into meanwhile
            return upload.finish(copied=digests, mode=opened.found.st_mode & 0o777)
    finally:
        os.close(opened.fd)


def write_at(files: Files, who: Identity, parts: Parts, start: int, length: int) -> tuple[int, Callable[[int], None]]:
    """Begin to write into a file in place, for files that are sent in parts: a descriptor, and what to call at the end.

    Args:
        files: where.
        who: writes.
        parts: the path; a file is made, for its owner alone, if there is none.
        start: where, in bytes.
        length: how many bytes come.

    Returns:
        A descriptor at that place, and a function that is told where the file ends now.
    """
    with files.root.at(parts) as place:
        files.at(who, place, parts, WRITE)
        found = place.stat_or_none()
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text_of(parts))
        if start > (found.st_size if found is not None else 0):
            raise OSError(errno.EINVAL, "there is nothing before the offset", text_of(parts))
        row, real = files.book.row(place.parts), place.parts
        hold = files.book.hold(who.user, start + length, row.lot if row is not None and row.user == who.user else None)
        try:
            fd = os.open(place.name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place.fd)
        except BaseException:
            files.book.drop(hold)
            raise
    os.lseek(fd, start, os.SEEK_SET)

    def end(size: int) -> None:
        try:
            os.ftruncate(fd, size)
            found = os.fstat(fd)
            with files.commits:  # the place may be somebody else's by now, or nobody's
                if _is_there(files, real, found):
                    files.book.settle(hold, real, found, {})
        finally:
            files.book.drop(hold)
            os.close(fd)

    return fd, end


def _is_there(files: Files, real: Parts, found: os.stat_result) -> bool:
    try:
        with files.root.at(real, follow=False) as place:
            there = place.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


def no_space(error: BaseException) -> bool:
    """Whether it is for want of space that something failed."""
    return isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT})


def unmet(etags: str, *, none: bool) -> Callable[[str | None], None]:
    """A check for ``If-Match``, or with `none` for ``If-None-Match``."""
    wanted = {one.strip() for one in etags.split(",")}

    def check(etag: str | None) -> None:
        there = etag is not None and ("*" in wanted or etag in wanted)
        if there is none:
            raise Unmet("another version is there" if etag is not None else "nothing is there")

    return check
