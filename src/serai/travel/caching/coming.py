"""An object on its way into a cache, and what an object is known by: its digest and its stamp."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
import time
from typing import NamedTuple

BLOCK = 1 << 20
BEFORE_NS = 2 * 10**9  # an object is dated back, so that whoever writes to it, however soon, gives it another time


class NoRoom(Exception):
    """There is no room in the cache, even if everything left it that may."""


class Altered(Exception):
    """The bytes that came are not those that were announced."""


class Stamp(NamedTuple):
    """What changes when somebody writes to a file."""

    size: int
    mtime_ns: int


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


class Filling:
    """An object that is coming. It is written from its beginning to its end; ``seek`` and ``truncate`` begin again."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.at = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = size
        self._using = threading.Lock()  # the descriptor: it may be given up while it is written to
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
            with self._using:
                while view:
                    done = os.pwrite(self._fd, view, self.at)
                    self.at += done
                    view = view[done:]
        except OSError as error:  # not one of those that mean that its source is gone
            raise NoRoom("it cannot be written: %s" % (error.strerror or error)) from error

    def finish(self, digest: str) -> str:
        """Close it, if it is what it should be; see `check`."""
        found = self.check(digest)
        self.close()
        return found

    def check(self, digest: str) -> str:
        """Give it the mode and the time of an object, if it is what it should be; returns its digest.

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
        return found

    def close(self) -> None:
        """Let go of the file, which stays."""
        with self._using:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def abandon(self) -> None:
        """Remove what has come."""
        self.close()
        self.remove()

    def remove(self) -> None:
        """Remove what has come, while another thread may still write to it."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


__all__ = ["BLOCK", "Altered", "Filling", "NoRoom", "Stamp", "digest_of", "new_digest", "stamp_of"]
