"""How long an answer is waited for."""

from __future__ import annotations

import errno
import os
import threading
import time


class Interrupted(OSError):
    """Who asked does not want to know any more."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, os.strerror(errno.EINTR))


class Patience:
    """How long an answer is waited for, and what wakes who waits.

    Args:
        limit_s: without any progress.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.began = time.monotonic()
        self.woken = threading.Event()
        self.interrupted = False

    def wait(self, progress: float = 0.0) -> None:
        """Wait to be woken.

        Args:
            progress: when something came at last, on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: nothing came for as long as is waited.
            Interrupted: nobody waits any more.
        """
        left_s = max(self.began, progress) + self.limit_s - time.monotonic()
        woken = self.woken.wait(max(0.0, left_s))
        if self.interrupted:
            raise Interrupted
        if not woken and left_s <= 0:
            raise TimeoutError(errno.EIO, "the source said nothing for %g s" % self.limit_s)
        self.woken.clear()

    def interrupt(self) -> None:
        """Let go of who waits."""
        self.interrupted = True
        self.woken.set()
