"""Changing files so that what is seen under a name is whole: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .calls import Pulse

BLOCK = 1 << 20  # bytes read from a disk at a time
FICLONE = 0x40049409  # ioctl of Linux: share a file's blocks
MARK = b".serai"  # ends the names of what is not whole yet


def encoded(name: str) -> bytes:
    """A name as the system has it."""
    return name.encode("utf-8", "surrogateescape")


def native(path: str) -> bytes:
    """A path as this system has it, with ``~`` as the home directory."""
    raw = encoded(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "no name holds a NUL", path)
    if raw == b"~" or raw.startswith(b"~/"):
        raw = os.path.expanduser(raw)
    return raw


def text(raw: bytes) -> str:
    """A path as it travels."""
    return raw.decode("utf-8", "surrogateescape")


class Draft:
    """A file that is written beside its place and put there when it is whole.

    Through a link, what it leads to is written. What is no regular file (a terminal, a pipe) is written as it is, and
    so is a file whose directory takes no new ones.

    Args:
        raw: its place.
        how: ``w``; ``x``: there must be nothing; ``a``: what is there is written on, in its place.
        parents: whether missing directories are made.
    """

    def __init__(self, raw: bytes, how: str, *, parents: bool = False) -> None:
        self.place = os.path.realpath(raw) if os.path.islink(raw) else raw
        self._exclusive = how == "x"
        if parents:
            os.makedirs(os.path.dirname(self.place) or b".", exist_ok=True)
        try:
            found: os.stat_result | None = os.stat(self.place)
        except FileNotFoundError:
            found = None
        if found is not None and self._exclusive:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), text(raw))
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text(raw))
        self.temporary: bytes | None = None
        if how == "a" or (found is not None and not stat.S_ISREG(found.st_mode)):
            self._fd = os.open(self.place, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if how == "a" else 0), 0o666)
            return
        try:
            self.temporary, self._fd = beside(self.place)
        except PermissionError:
            if found is None:
                raise
            self._fd = os.open(self.place, os.O_WRONLY | os.O_TRUNC)
            return
        if found is not None:
            with contextlib.suppress(OSError):  # somebody else's file that we may write in this directory
                os.fchown(self._fd, found.st_uid, found.st_gid)
            with contextlib.suppress(OSError):
                os.fchmod(self._fd, stat.S_IMODE(found.st_mode))

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def write(self, data: bytes) -> None:
        """Write all of it."""
        write(self._fd, data)

    def keep(self) -> bytes:
        """Close it, and leave it where it is for `commit`; returns where."""
        os.close(self._fd)
        self._fd = -1
        kept, self.temporary = self.temporary, None
        return kept or b""

    def commit(self) -> None:
        """Put it in its place."""
        os.close(self._fd)
        self._fd = -1
        if self.temporary is not None:
            put_in_place(self.temporary, self.place, exclusive=self._exclusive)
            self.temporary = None

    def discard(self) -> None:
        """Remove what was written; after `commit` and `keep`, nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)
            self.temporary = None


def another_name(name: bytes) -> bytes:
    """A name in the same directory for what is not whole yet."""
    return b".%s.%s%s" % (name[:200], os.urandom(6).hex().encode(), MARK)


def write(fd: int, data: bytes | memoryview) -> None:
    """Write all of the bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def beside(place: bytes) -> tuple[bytes, int]:
    """A new empty file in the same directory: its path and a descriptor for writing."""
    folder, name = os.path.split(place)
    while True:
        path = os.path.join(folder, another_name(name))
        with contextlib.suppress(FileExistsError):
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def put_in_place(temporary: bytes, place: bytes, *, exclusive: bool) -> None:
    """Rename; or, if there must be nothing, link, which fails if there is something."""
    if not exclusive:
        os.replace(temporary, place)
        return
    try:
        os.link(temporary, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, place)
        return
    os.unlink(temporary)


def write_at(raw: bytes, pieces: Iterable[bytes | memoryview], start: int) -> int:
    """Write into a file in place, and cut it after the last byte."""
    fd = os.open(raw, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.lseek(fd, start, os.SEEK_SET)
        for piece in pieces:
            write(fd, piece)
        end = os.lseek(fd, 0, os.SEEK_CUR)
        os.ftruncate(fd, end)
    finally:
        os.close(fd)
    return end


def copy(source: bytes, target: bytes, pulse: Pulse, *, keep_times: bool = False, parents: bool = False) -> None:
    """Copy a file, with its permissions, sharing blocks where the file system can; of a directory, make one."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        return
    with open(source, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        draft = Draft(target, "w", parents=parents)
        try:
            if os.path.exists(draft.place) and os.path.samestat(found, os.stat(draft.place)):
                raise shutil.SameFileError(errno.EINVAL, "source and target are the same file", text(source))
            _pour(file.fileno(), draft.fileno(), pulse)
            os.fchmod(draft.fileno(), stat.S_IMODE(found.st_mode) & 0o777)
            if keep_times:
                os.utime(draft.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
            draft.commit()
        finally:
            draft.discard()


def _pour(source: int, target: int, pulse: Pulse) -> None:
    try:
        import fcntl  # noqa: PLC0415 - not everywhere

        fcntl.ioctl(target, FICLONE, source)
    except (ImportError, OSError):
        pass
    else:
        return
    ranged = getattr(os, "copy_file_range", None)
    copied = 0
    while ranged is not None:
        try:
            count = ranged(source, target, 64 << 20)
        except OSError:  # across file systems, or an old kernel
            break
        if not count:
            if copied:
                return
            break  # files below /proc say nothing here, and have bytes
        copied += count
        pulse.beat()
    while True:
        data = os.read(source, BLOCK)
        if not data:
            return
        write(target, data)
        pulse.beat()


def move(source: bytes, target: bytes) -> None:
    """Rename, or copy and remove where that leads to another file system; into ``target`` if it is a directory."""
    source = source.rstrip(b"/") or b"/"
    if os.path.isdir(target) and not os.path.samefile(source, target):
        target = os.path.join(target, os.path.basename(source))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if os.path.isdir(source) and not os.path.islink(source):
            shutil.copytree(os.fsdecode(source), os.fsdecode(target), symlinks=True)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
        remove(source, recursive=True)


def remove(raw: bytes, *, recursive: bool) -> None:
    """Remove a file, a link itself, or a directory with all that is in it."""
    if recursive and os.path.isdir(raw) and not os.path.islink(raw.rstrip(b"/")):
        if os.path.realpath(raw) == b"/":
            raise PermissionError(errno.EPERM, "the root of all files is not removed", text(raw))
        shutil.rmtree(raw)
    else:
        os.unlink(raw.rstrip(b"/"))


def stamp(raw: bytes, mode: int | None, mtime_ns: int | None) -> None:
    """Set permissions and the time of the last change."""
    if mode is not None:
        os.chmod(raw, mode)
    if mtime_ns is not None:
        os.utime(raw, ns=(mtime_ns, mtime_ns))
