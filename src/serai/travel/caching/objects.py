"""The objects of a node's cache on disk: named by what they hold, of limited size, shared by the executors of the user.

What is there, and how it was used, stands in a log that every executor appends to and reads on from where it was; a
lock file makes one of them at a time change it. An object is in use while it has a second hard link: that of an
executor's own directory, so that executors may die at any moment. Objects are never written again; one that was
altered all the same is seen by its time and size, and its digest decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import threading
import time
from random import Random
from typing import NamedTuple

from .replacement import LRU, Entry, Replacement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = re.compile("[0-9a-f]{64}").fullmatch
BLOCK = 1 << 20
FLOOR_BYTES = 1 << 30  # of the disk, so much is left free …
FLOOR_SHARE = 0.05  # … or this part of it, where that is less
BEFORE_NS = 2 * 10**9  # an object is dated back, so that whoever writes to it, however soon, gives it another time
LONGEST_LOG = 4 << 20  # bytes, before it is written anew with what still counts
LOCK_S = 10.0  # for another executor to let go of the log: one that was stopped holds up nobody for ever


class NoRoom(Exception):
    """There is no room in the cache, even if everything left it that may."""


class Altered(Exception):
    """The bytes that came are not those that were announced."""


class Stamp(NamedTuple):
    """What changes when somebody writes to a file."""

    size: int
    mtime_ns: int


class _Object:
    __slots__ = ("came", "size", "stamp_ns", "used", "uses")

    def __init__(self, size: int, came: float, stamp_ns: int) -> None:
        self.size = size
        self.came = came
        self.used = came
        self.uses = 1
        self.stamp_ns = stamp_ns


def new_digest() -> hashlib._Hash:
    """What objects are named by: BLAKE2b of 256 bits."""
    return hashlib.blake2b(digest_size=32)  # type: ignore[return-value]


def digest_of(path: str) -> str:
    """The digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    found = new_digest()
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb", buffering=0) as file:
        while True:
            data = file.read(BLOCK)
            if not data:
                return found.hexdigest()
            found.update(data)


def stamp_of(path: str) -> Stamp:
    """The stamp of a file that is there.

    Raises:
        OSError: it is not.
    """
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(0, "it is not a file")
    return Stamp(info.st_size, info.st_mtime_ns)


def directory_beside(base: str) -> str:
    """The cache's directory for executors whose own directories lie beside ``base``."""
    return os.path.join(os.path.dirname(os.path.realpath(base)), "serai-%d-cache" % os.getuid())


class Filling:
    """An object that is coming. It is written from its beginning to its end; ``seek`` and ``truncate`` begin again."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.at = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = size
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever clears away sees that somebody lives
        os.ftruncate(self._fd, size)  # says to others how much room is spoken for
        self._digest = new_digest()

    def seek(self, at: int) -> None:
        """Begin again: the only place there is to go to is the beginning."""
        self.at = 0
        self._digest = new_digest()

    def truncate(self) -> None:
        """What came before is forgotten already."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            Altered: they are more than were announced.
            NoRoom: they cannot be written; the disk is full, perhaps.
        """
        if self.at + len(data) > self._size:
            raise Altered("it is longer than the %d bytes that were announced" % self._size)
        self._digest.update(data)
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, self.at)
                self.at += done
                view = view[done:]
        except OSError as error:  # not one of those that mean that its source is gone
            raise NoRoom("it cannot be written: %s" % (error.strerror or error)) from error

    def finish(self, digest: str) -> str:
        """Close it; returns its digest.

        Raises:
            Altered: it is not whole, or not what it should be.
        """
        if self.at != self._size:
            raise Altered("%d of %d bytes came" % (self.at, self._size))
        found = self._digest.hexdigest()
        if digest and found != digest:
            raise Altered("its digest is another")
        os.fchmod(self._fd, 0o444)
        before = time.time_ns() - BEFORE_NS
        os.utime(self._fd, ns=(before, before))
        self.close()
        return found

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """Remove what has come."""
        self.close()
        self.remove()

    def remove(self) -> None:
        """Remove what has come, while another thread may still write to it."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class Cache:
    """The cache of a node. Any thread may call it.

    Args:
        directory: see `directory_beside`; made if it is not there.
        limit_bytes: what its objects may take together; None for half of what is free.
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
        self._rule = Replacement(kind)
        self._random = Random()  # noqa: S311 - which object leaves is no secret
        self._now = now
        self._objects: dict[str, _Object] = {}
        self._verified: dict[str, Stamp] = {}
        self._changes: dict[str, bool] = {}  # since `changes` was asked: whether an object is there now
        self._threads = threading.RLock()
        self._numbers = 0
        self._at = 0
        self._longest = LONGEST_LOG
        _own_directory(directory)
        for name in ("objects", "coming"):
            os.makedirs(os.path.join(directory, name), mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock_fd = os.open(os.path.join(directory, "index.lock"), flags, 0o600)
        self._log = self._open_log()
        with self._locked():
            self._reconcile()
            self._clear_away()
        self.limit_bytes = self._half_of_free() if limit_bytes is None else limit_bytes

    # ---- looking

    def digests(self) -> list[str]:
        """What is there."""
        with self._locked():
            self._changes.clear()
            return list(self._objects)

    def changes(self) -> tuple[list[str], list[str]]:
        """What has come and what has gone since the last call of this or of `digests`, whoever did it."""
        with self._locked():
            changes, self._changes = self._changes, {}
        return [one for one, there in changes.items() if there], [one for one, there in changes.items() if not there]

    def used_bytes(self) -> int:
        """What the objects take together."""
        with self._locked():
            return sum(one.size for one in self._objects.values())

    def has(self, digest: str) -> bool:
        """Whether an object is there, as far as the log says."""
        with self._locked():
            return digest in self._objects

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
        with self._locked():
            known = self._objects.get(digest)
            if known is None:
                return None
            try:
                found = stamp_of(source)
            except OSError:
                self._forget(digest)
                return None
            sure = self._verified.get(digest) == found
            if quickly and not sure:
                return None
            _link(source, target)
            self._write("u %s %.3f\n" % (digest, self._now()))
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
        if self._verified.get(digest) == found:
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
        if well:
            self._verified[digest] = found
        return well

    def drop(self, digest: str) -> None:
        """Remove an object; who has a pin keeps what it names."""
        with self._locked():
            with contextlib.suppress(OSError):
                os.unlink(self.path(digest))
            self._verified.pop(digest, None)
            if digest in self._objects:
                self._write("- %s\n" % digest)

    # ---- filling

    def begin(self, size: int) -> Filling:
        """Make room for an object that is to come.

        Raises:
            NoRoom: there is none.
            OSError: nothing can be written.
        """
        with self._locked():
            self._make_room(size)
            self._numbers += 1
            name = "%d-%x-%d" % (os.getpid(), id(self), self._numbers)
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
        found = filling.finish(digest)
        stamp = stamp_of(filling.path)
        if pin:
            _link(filling.path, pin)
        target = self.path(found)
        with self._locked():
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.rename(filling.path, target)  # over one that is there: this one was just seen to be whole
            self._verified[found] = stamp
            self._write("+ %s %d %.3f %d\n" % (found, stamp.size, self._now(), stamp.mtime_ns))
        return found

    def _make_room(self, size: int) -> None:
        """Let objects leave. With the lock."""
        spoken_for, unwritten = self._coming()
        held = sum(one.size for one in self._objects.values())
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize - _floor(disk)
        need = max(held + spoken_for + size - self.limit_bytes, size + unwritten - free)
        if need <= 0:
            return
        if size > self.limit_bytes:
            raise NoRoom("%d bytes are more than the cache may hold" % size)
        leave = self._rule.victims(list(self._entries()), need, self._random)
        if leave is None:
            raise NoRoom("what is in the cache is in use, or the disk is full of other things")
        for digest in leave:
            with contextlib.suppress(OSError):
                os.unlink(self.path(digest))
        self._write("".join("- %s\n" % digest for digest in leave))

    def _entries(self) -> Iterator[Entry]:
        for digest, one in self._objects.items():
            try:
                pinned = os.lstat(self.path(digest)).st_nlink > 1
            except OSError:
                continue
            yield Entry(digest, one.size, one.came, one.used, one.uses, pinned)

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
        return max(0, (disk.f_bavail * disk.f_frsize + self.used_bytes()) // 2)

    # ---- the log

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads:
            self._lock()
            try:
                self._read_on()
                yield
            finally:
                with contextlib.suppress(OSError):
                    fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _lock(self) -> None:
        until, pause_s = time.monotonic() + LOCK_S, 0.001
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    return  # what two write at once is put right by whoever looks for an object that is not there
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.02)
            except OSError:  # some file systems have no locks: there, one executor is on its own
                return
            else:
                return

    def _open_log(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(os.path.join(self.directory, "log"), flags, 0o600)

    def _read_on(self) -> None:
        """Take in what others wrote."""
        info = os.fstat(self._log)
        if not info.st_nlink or info.st_size < self._at:  # it was written anew
            os.close(self._log)
            self._log, self._at = self._open_log(), 0
            before, self._objects = self._objects, {}
            changes = dict(self._changes)
            self._take_in()
            for digest in before.keys() - self._objects.keys():
                self._changes[digest] = False
            for digest in self._objects.keys() & before.keys():
                self._changes.pop(digest, None)
                if digest in changes:
                    self._changes[digest] = True
        elif info.st_size > self._at:
            self._take_in()

    def _take_in(self) -> None:
        data = b""
        while True:
            more = os.pread(self._log, BLOCK, self._at + len(data))
            if not more:
                break
            data += more
        self._at += len(data)
        if data and not data.endswith(b"\n"):  # its writer was killed in the middle of it
            self._at += os.write(self._log, b"\n")
        self._apply(data.decode("ascii", "replace").splitlines())

    def _apply(self, lines: Iterable[str]) -> None:
        objects = self._objects
        for line in lines:
            words = line.split()
            try:
                if words[0] == "u":
                    one = objects[words[1]]
                    one.used, one.uses = float(words[2]), one.uses + 1
                elif words[0] == "-":
                    self._verified.pop(words[1], None)
                    if objects.pop(words[1], None) is not None:
                        self._changes[words[1]] = False
                elif words[0] == "+" and NAME(words[1]):
                    made = _Object(int(words[2]), float(words[3]), int(words[4]))
                    if len(words) > 6:
                        made.used, made.uses = float(words[5]), int(words[6])
                    objects[words[1]] = made
                    self._changes[words[1]] = True
            except (ValueError, IndexError, KeyError):
                continue  # half a line

    def _write(self, text: str) -> None:
        data = text.encode("ascii")
        os.write(self._log, data)
        self._at += len(data)
        self._apply(text.splitlines())
        if self._at > self._longest:
            self._write_anew()

    def _write_anew(self) -> None:
        lines = [
            "+ %s %d %.3f %d %.3f %d\n" % (digest, one.size, one.came, one.stamp_ns, one.used, one.uses)
            for digest, one in self._objects.items()
        ]
        data = "".join(lines).encode("ascii")
        self._longest = max(LONGEST_LOG, 2 * len(data))  # else each further line would cost as much as all of them
        if len(data) * 2 > self._at:
            return
        path = os.path.join(self.directory, "log")
        fresh = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fresh, "wb") as file:
            file.write(data)
        os.rename(path + ".new", path)
        os.close(self._log)
        self._log, self._at = self._open_log(), len(data)

    def _forget(self, digest: str) -> None:
        self._verified.pop(digest, None)
        self._write("- %s\n" % digest)

    def _reconcile(self) -> None:
        """Make the log say what is there: an executor may have been killed between the two."""
        found = {}
        top = os.path.join(self.directory, "objects")
        for shelf in os.listdir(top):
            with contextlib.suppress(OSError):
                for one in os.scandir(os.path.join(top, shelf)):
                    if NAME(one.name) and one.is_file(follow_symlinks=False):
                        found[one.name] = one.stat(follow_symlinks=False)
        for digest in self._objects.keys() - found.keys():
            self._write("- %s\n" % digest)
        for digest, info in found.items():
            known = self._objects.get(digest)
            if known is None or known.size != info.st_size:
                self._write("+ %s %d %.3f %d\n" % (digest, info.st_size, info.st_mtime, info.st_mtime_ns))

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
