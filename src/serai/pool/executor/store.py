"""The executor's own directory on a node, and the inputs that wait in it: one file or directory per key."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time

from .left import NAME as LEFT
from .left import is_left
from .stage import INPUT, StageError, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
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


LEFT_S = 7 * 24 * 3600


def make_base(scratch: str | None, run: str) -> str:
    """Make the executor's own directory, and remove those whose executor is gone.

    A directory belongs to a living executor as long as its lock is held; the kernel lets go of it however that one
    ends.
    """
    parent = os.path.expanduser(scratch) if scratch else tempfile.gettempdir()
    os.makedirs(parent, exist_ok=True)
    prefix = "serai-%d-" % os.getuid()
    for name in os.listdir(parent):
        if name.startswith(prefix):
            _sweep(os.path.join(parent, name))
    base = tempfile.mkdtemp(prefix="%s%s-" % (prefix, run), dir=parent)
    lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # some parallel file systems have no locks: there, nothing is ever swept
        fcntl.flock(lock, fcntl.LOCK_EX)
    return base


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
