"""The executor's own directory on a node, and the inputs that wait in it: one file or directory per key."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time

from . import wire
from .stage import INPUT, StageError, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


class Store:
    """The inputs of an executor, written as their pieces come.

    Args:
        base: the executor's own directory.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.bad: dict[int, str] = {}  # key: why it did not arrive
        self._directory = os.path.join(base, "in")
        os.makedirs(self._directory, exist_ok=True)

    def write(self, key: int, head: dict[str, Any], body: bytes) -> None:
        """Write a piece of an input.

        Args:
            key: the input.
            head: "at" (offset in bytes), "size", "mode"; "under" (a path below the key, for directories), "directory".
            body: the bytes.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
            ValueError: its path has a zero byte.
            StageError: the piece says that it belongs outside of the input.
        """
        if key in self.bad:
            return
        if head.get("bad"):
            raise StageError(INPUT, head["bad"])
        path = os.path.join(self._directory, str(key))
        under = head.get("under")
        if under is not None:
            top = path
            path = os.path.normpath(os.path.join(path, under))
            if path != top and not path.startswith(top + os.sep):
                raise StageError(INPUT, "%s would leave its directory" % under)
            os.makedirs(path if head.get("directory") else os.path.dirname(path), exist_ok=True)
            if head.get("directory"):
                return
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if head["at"] == 0 else 0)
        fd = os.open(path, flags, head.get("mode", 0o600) | 0o600)
        try:
            view = memoryview(body)
            at = head["at"]
            while view:
                done = os.pwrite(fd, view, at)
                view = view[done:]
                at += done
        finally:
            os.close(fd)

    def drop(self, keys: Iterable[int]) -> None:
        """Remove inputs that nobody will use again."""
        for key in keys:
            remove(os.path.join(self._directory, str(int(key))))

    def keep_what_is_left(self) -> None:
        """Remove everything but what a front end may still ask for."""
        for name in os.listdir(self.base):
            if name not in (LEFT, "lock"):
                remove(os.path.join(self.base, name))


LEFT_S = 7 * 24 * 3600  # what an executor left for a front end is kept for so long
LEFT = "left"


def make_base(scratch: str | None, run: str) -> str:
    """Make the executor's own directory, and remove those whose executor is gone.

    A directory belongs to a living executor as long as its lock is held; the kernel lets go of it however that one
    ends.
    """
    try:
        parent = os.path.expanduser(scratch) if scratch else tempfile.gettempdir()
    except FileNotFoundError as error:  # it says that there is no such file, and means that none can be written
        why = "nothing can be written where temporary files go (a full disk?); scratch=DIR names another directory"
        raise OSError(errno.ENOSPC, why) from error
    os.makedirs(parent, exist_ok=True)
    prefix = "serai-%d-" % os.getuid()
    for name in os.listdir(parent):
        if name.startswith(prefix) and name != prefix + "cache":
            _sweep(os.path.join(parent, name))
    base = tempfile.mkdtemp(prefix="%s%s-" % (prefix, run), dir=parent)
    lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # some parallel file systems have no locks: there, nothing is ever swept
        fcntl.flock(lock, fcntl.LOCK_EX)
    return base


def has_cache(base: str) -> bool:
    """Whether earlier executors left a cache beside a directory; see ``caching.objects``."""
    return os.path.isdir(os.path.join(os.path.dirname(base), "serai-%d-cache" % os.getuid()))


def _sweep(path: str) -> None:
    try:
        info = os.lstat(path)
        age_s = time.time() - info.st_mtime
        if info.st_uid != os.getuid() or os.path.islink(path) or age_s < (LEFT_S if is_left(path) else 10):
            return  # another's, or one that is just being made, or holds what a front end may still ask for
        lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    except OSError:
        pass
    finally:
        os.close(lock)


# ---- what an executor leaves behind when it was told to go on without its front end
#
# An executor that lingers writes the frames that it cannot send into a file of its directory. When the run is taken up
# again, the executor that checks in on the same node hands them on, as soon as the one that wrote them has ended.

KEPT = (wire.RESULT, wire.LAST, wire.OUTPUT)


class Spool:
    """Frames for a front end that is not there.

    Args:
        base: the executor's own directory.
    """

    def __init__(self, base: str) -> None:
        self._fd = os.open(os.path.join(base, LEFT), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def send(self, frame: bytes) -> None:
        """Keep a frame, if it says how a task ended or is a piece of an output."""
        if wire.peek(frame)[0] in KEPT:
            wire.write(self._fd, frame)


def is_left(base: str) -> bool:
    """Whether an executor's directory holds what a front end should hear."""
    return os.path.exists(os.path.join(base, LEFT))


def frames_of(base: str) -> Iterator[bytes]:
    """The frames that were left in a directory, which is removed after the last; none while their writer lives."""
    try:
        lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fd = os.open(os.path.join(base, LEFT), os.O_RDONLY | os.O_CLOEXEC)
        try:
            reader = wire.Reader(fd)
            while True:
                frames = reader.read()
                if frames is None:
                    break
                yield from frames
        finally:
            os.close(fd)
        remove(base)
    except OSError:
        return  # it lives, or another executor of the run has taken it
    finally:
        os.close(lock)


def left_by(base: str, run: str) -> list[str]:
    """Directories of earlier executors of a run beside ``base`` that hold something."""
    parent, own = os.path.split(base)
    prefix = "serai-%d-%s-" % (os.getuid(), run)
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            if name.startswith(prefix) and name != own and not os.path.islink(path) and is_left(path):
                with contextlib.suppress(OSError):
                    if os.lstat(path).st_uid == os.getuid():
                        found.append(path)
    return found
