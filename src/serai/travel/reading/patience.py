"""How long an answer is waited for."""

from __future__ import annotations

import errno
import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 0.25
_KILLED = 1 << 8  # SIGKILL: the kernel adds it to whatever signal ends a process


class Interrupted(OSError):
    """Who asked does not want to know any more."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, os.strerror(errno.EINTR))


def is_ending(thread: int) -> bool:
    """Whether a thread of some program has been told to end, and only waits for us."""
    try:
        with open("/proc/%d/status" % thread) as file:
            found = [line.split()[1] for line in file if line.startswith("SigPnd:")]
    except OSError:
        return False
    return bool(found) and bool(int(found[0], 16) & _KILLED)


class Patience:
    """How long an answer is waited for, and what wakes who waits.

    A program that gets a signal while it waits is not let go of for that: few know that reading a file may be
    interrupted. One that is about to end is.

    Args:
        limit_s: without any progress.
        ending: whether who asked is about to end.
    """

    def __init__(self, limit_s: float, ending: Callable[[], bool] = lambda: False) -> None:
        self.limit_s = limit_s
        self.began = time.monotonic()
        self.woken = threading.Event()
        self._ending = ending
        self._signalled = False

    def wait(self, progress: float = 0.0) -> None:
        """Wait to be woken, or for a moment.

        Args:
            progress: when something came at last, on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: nothing came for as long as is waited.
            Interrupted: nobody waits any more.
        """
        left_s = max(self.began, progress) + self.limit_s - time.monotonic()
        woken = self.woken.wait(max(0.0, min(left_s, LOOK_S) if self._signalled else left_s))
        if self._signalled and self._ending():
            raise Interrupted
        if not woken and left_s <= 0:
            raise TimeoutError(errno.EIO, "the source said nothing for %g s" % self.limit_s)
        self.woken.clear()

    def signal(self) -> None:
        """Who asked got a signal."""
        self._signalled = True
        self.woken.set()
