"""What a cache may hold, where executors of several runs share it: as much as the largest of their limits.

Each has said its own in a file, with a lock on it that ends when it ends. With a limit of its own for each, the one
that may have less would throw out what the other's tasks are about to read, again and again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

TYPE_CHECKING = False

LONGEST = 32  # characters of a limit


class Limits:
    """The limits of the executors that are there. Whoever calls it has the cache's lock.

    Args:
        directory: the cache's.
        own_bytes: this executor's.
        name: of this executor; no other has it.

    Raises:
        OSError: it cannot be said.
    """

    def __init__(self, directory: str, own_bytes: int, name: str) -> None:
        self.own_bytes = own_bytes
        self._directory = os.path.join(directory, "limits")
        self._name = name
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(os.path.join(self._directory, name), flags, 0o600)
        with contextlib.suppress(OSError):  # without locks, each knows of its own only
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._fd, b"%d" % own_bytes)
        self.in_force()  # clears away what others left

    def in_force(self) -> int:
        """What all of them may use together; bytes."""
        most = self.own_bytes
        for name in os.listdir(self._directory):
            if name != self._name:
                with contextlib.suppress(OSError, ValueError):
                    most = max(most, self._of(os.path.join(self._directory, name)))
        return most

    @staticmethod
    def _of(path: str) -> int:
        """The limit of another; 0 when it has ended."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(fd, LONGEST))
        else:
            os.unlink(path)
            return 0
        finally:
            os.close(fd)


__all__ = ["Limits"]
