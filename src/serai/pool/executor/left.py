"""What an executor leaves behind when it was told to go on without its front end, and how the next one finds it.

An executor that lingers writes the frames that it cannot send into a file of its directory. When the run is taken up
again, the executor that checks in on the same node hands such frames on, as soon as the one that wrote them has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from . import wire
from .stage import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "left"
KEPT = (wire.RESULT, wire.LAST, wire.OUTPUT)


class Spool:
    """Frames for a front end that is not there.

    Args:
        base: the executor's own directory.
    """

    def __init__(self, base: str) -> None:
        self._fd = os.open(os.path.join(base, NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def send(self, frame: bytes) -> None:
        """Keep a frame, if it says how a task ended or is a piece of an output."""
        if wire.peek(frame)[0] in KEPT:
            wire.write(self._fd, frame)


def is_left(base: str) -> bool:
    """Whether an executor's directory holds what a front end should hear."""
    return os.path.exists(os.path.join(base, NAME))


def frames_of(base: str) -> Iterator[bytes]:
    """The frames that were left in a directory, which is removed after the last; none while their writer lives."""
    try:
        lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fd = os.open(os.path.join(base, NAME), os.O_RDONLY | os.O_CLOEXEC)
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
