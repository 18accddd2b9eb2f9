"""The objects of a node's cache on disk: named by what they hold, of limited size, shared by the executors of the user.

An object is in use while it has a second hard link: that of an executor's own directory, so that executors may die at
any moment. Objects are never written again; one that was altered all the same is seen by its time and size, and its
digest decides. What is there, and how it was used, stands in a log (`Log`); what all may use together is for `Limits`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from random import Random

from .coming import Altered, Filling, NoRoom, Stamp, digest_of, new_digest, stamp_of
from .limits import Limits
from .log import NAME, Log
from .replacement import LRU, Replacement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOOR_BYTES = 1 << 30  # of the disk, so much is left free …
FLOOR_SHARE = 0.05  # … or this part of it, where that is less


def directory_beside(base: str) -> str:
    """The cache's directory for executors whose own directories lie beside ``base``."""
    return os.path.join(os.path.dirname(os.path.realpath(base)), "serai-%d-cache" % os.getuid())


class Cache:
    """The cache of a node. Any thread may call it.

    Args:
        directory: see `directory_beside`; made if it is not there.
        limit_bytes: what its objects may take together; None for half of what is free. While there are executors with
            larger limits, theirs counts.
        kind: which leave first: one of `replacement.KINDS`.
        now: tells the time; the same clock for all executors.

    Raises:
        OSError: the directory cannot be made, or is not this user's alone.
    """

    def __init__(
        self,
        directory: str,
        limit_bytes: int | None = None,
        kind: str = LRU,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        random = Random()  # noqa: S311 - which object leaves is no secret
        self._now = now
        self._name = "%d-%s" % (os.getpid(), os.urandom(8).hex())  # other hosts may share the directory
        self._numbers = 0
        _own_directory(directory)
        for name in ("objects", "coming"):
            os.makedirs(os.path.join(directory, name), mode=0o700, exist_ok=True)
        self._log = Log(directory, lambda: Replacement(kind, random))
        with self._log.locked():
            self._log.correct(self._on_disk())
            self._clear_away()
            self.limit_bytes = self._half_of_free() if limit_bytes is None else limit_bytes
            self._limits = Limits(directory, self.limit_bytes, self._name)

    # ---- looking

    def digests(self) -> list[str]:
        """What is there."""
        with self._log.locked():
            self._log.take_changes()
            return list(self._log.objects)

    def changes(self) -> tuple[list[str], list[str]]:
        """What has come and what has gone since the last call of this or of `digests`, whoever did it."""
        with self._log.locked():
            changes = self._log.take_changes()
        return [one for one, there in changes.items() if there], [one for one, there in changes.items() if not there]

    def used_bytes(self) -> int:
        """What the objects take together."""
        with self._log.locked():
            return self._log.held_bytes

    def has(self, digest: str) -> bool:
        """Whether an object is there, as far as the log says."""
        with self._log.locked():
            return digest in self._log.objects

    def path(self, digest: str) -> str:
        """Where an object is, if it is there.

        Raises:
            ValueError: no object is called this.
        """
        if not NAME(digest):
            raise ValueError("%r is no digest" % digest)
        return os.path.join(self.directory, "objects", digest[:2], digest)

    # ---- using

    def pin(self, digest: str, target: str, *, quickly: bool = False) -> Stamp | None:
        """Give an object a second name, under which it stays until that is removed.

        An object that this process has not seen to be whole is read first.

        Args:
            digest: which.
            target: the name; in the same file system. There must be nothing.
            quickly: not if it would have to be read.

        Returns:
            Its stamp; None when it is not there, or was damaged and is gone now.

        Raises:
            OSError: the name cannot be made.
        """
        source = self.path(digest)
        with self._log.locked():
            known = self._log.objects.get(digest)
            if known is None:
                return None
            try:
                found = stamp_of(source)
            except OSError:
                self._log.went([digest])
                return None
            sure = known.whole == found
            if quickly and not sure:
                return None
            _link(source, target)
            self._log.was_used(digest, self._now())
        if not sure and not self._verify(digest, target, found):
            with contextlib.suppress(OSError):
                os.unlink(target)
            self.drop(digest)
            return None
        return stamp_of(target)

    def is_whole(self, digest: str) -> bool:
        """Whether an object is there and what its name says; it is read if nobody here has, or if it was altered."""
        try:
            found = stamp_of(self.path(digest))
        except (OSError, ValueError):
            return False
        known = self._log.objects.get(digest)
        if known is not None and known.whole == found:
            return True
        if self._verify(digest, self.path(digest), found):
            return True
        self.drop(digest)
        return False

    def _verify(self, digest: str, path: str, found: Stamp) -> bool:
        try:
            well = digest_of(path) == digest
        except OSError:
            return False
        known = self._log.objects.get(digest)
        if well and known is not None:
            known.whole = found
        return well

    def drop(self, digest: str) -> None:
        """Remove an object; who has a pin keeps what it names."""
        with self._log.locked():
            with contextlib.suppress(OSError):
                os.unlink(self.path(digest))
            if digest in self._log.objects:
                self._log.went([digest])

    # ---- filling

    def begin(self, size: int) -> Filling:
        """Make room for an object that is to come.

        Raises:
            NoRoom: there is none.
            OSError: nothing can be written.
        """
        with self._log.locked():
            self._make_room(size)
            self._numbers += 1
            name = "%s-%d" % (self._name, self._numbers)
            return Filling(os.path.join(self.directory, "coming", name), size)

    def keep(self, filling: Filling, digest: str = "", pin: str = "") -> str:
        """Take in an object that has come; returns its digest.

        Args:
            filling: with all its bytes.
            digest: what it must be; empty when nobody knows.
            pin: a second name that it gets before anybody may let it leave; see `pin`.

        Raises:
            Altered: it is another.
            OSError: it cannot be taken in.
        """
        found = filling.check(digest)  # and not closed: what nobody has open is cleared away
        while not self._take_in(filling, found, pin):
            # Another executor brought it meanwhile. Put in its place, this one would take its name from who uses it.
            if self.is_whole(found) if not pin else self.pin(found, pin) is not None:
                filling.remove()
                break
        filling.close()
        return found

    def _take_in(self, filling: Filling, digest: str, pin: str) -> bool:
        """Give an object its name, unless there is one."""
        target = self.path(digest)
        with self._log.locked():
            if digest in self._log.objects and os.path.lexists(target):
                return False
            stamp = stamp_of(filling.path)
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            if pin:
                _link(filling.path, pin)
            self._log.came(digest, stamp.size, self._now(), stamp.mtime_ns)
            try:
                os.rename(filling.path, target)
            except OSError:
                self._log.went([digest])
                raise
            self._log.objects[digest].whole = stamp
        return True

    def _make_room(self, size: int) -> None:
        """Let objects leave. With the lock."""
        if size > self.limit_bytes:
            raise NoRoom("%d bytes are more than the cache may hold" % size)
        spoken_for, unwritten = self._coming()
        wanted = self._log.held_bytes + spoken_for + size
        limit = self.limit_bytes if wanted <= self.limit_bytes else self._limits.in_force()
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize - _floor(disk)
        need = max(wanted - limit, size + unwritten - free)
        if need <= 0:
            return
        leave = self._log.rule.victims(need, self._is_pinned)
        if leave is None:
            raise NoRoom("what is in the cache is in use, or the disk is full of other things")
        for digest in leave:
            with contextlib.suppress(OSError):
                os.unlink(self.path(digest))
        self._log.went(leave)

    def _is_pinned(self, digest: str) -> bool:
        try:
            return os.lstat(self.path(digest)).st_nlink > 1
        except OSError:
            return False  # it is not there

    def _coming(self) -> tuple[int, int]:
        """Bytes that are spoken for by objects on their way, and how many of them are not written yet."""
        whole = unwritten = 0
        with contextlib.suppress(OSError):
            for one in os.scandir(os.path.join(self.directory, "coming")):
                with contextlib.suppress(OSError):
                    info = one.stat(follow_symlinks=False)
                    whole += info.st_size
                    unwritten += max(0, info.st_size - info.st_blocks * 512)
        return whole, unwritten

    def _half_of_free(self) -> int:
        disk = os.statvfs(self.directory)
        return max(0, (disk.f_bavail * disk.f_frsize + self._log.held_bytes) // 2)

    def _on_disk(self) -> Iterator[tuple[str, os.stat_result]]:
        top = os.path.join(self.directory, "objects")
        for shelf in os.listdir(top):
            with contextlib.suppress(OSError):
                for one in os.scandir(os.path.join(top, shelf)):
                    if NAME(one.name) and one.is_file(follow_symlinks=False):
                        yield one.name, one.stat(follow_symlinks=False)

    def _clear_away(self) -> None:
        """Remove what executors that are gone were fetching."""
        for one in list(os.scandir(os.path.join(self.directory, "coming"))):
            try:
                fd = os.open(one.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(one.path)
            except OSError:
                pass  # it is being written
            finally:
                os.close(fd)


def _own_directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise OSError(1, "%s is not a directory of this user" % path)
    if info.st_mode & 0o077:
        os.chmod(path, 0o700)


def _link(source: str, target: str) -> None:
    """A hard link; where there can be none, a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
        os.chmod(target, 0o444)


def _floor(disk: os.statvfs_result) -> int:
    return int(min(FLOOR_BYTES, FLOOR_SHARE * disk.f_blocks * disk.f_frsize))


__all__ = ["Altered", "Cache", "Filling", "NoRoom", "Stamp", "digest_of", "directory_beside", "new_digest", "stamp_of"]
