"""How long an answer is waited for, and how much must come of it meanwhile."""

from __future__ import annotations

import errno
import io
import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LEAST_RATE = 1000  # bytes in a second; a source that gives less is as good as silent
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


class Pace:
    """Whether a source gives enough, judged over windows of twice the time that it may be silent.

    A byte now and then ends every silence, and brings nothing. Only the time in which it was waited for counts: who
    takes what comes may be slow.

    Args:
        silent_s: how long it may be silent.
    """

    def __init__(self, silent_s: float) -> None:
        self._window_s = 2 * silent_s
        self._came, self._waited_s = 0, 0.0

    def note(self, size: int, waited_s: float) -> None:
        """So many bytes came, after such a wait.

        Raises:
            TimeoutError: in the window that ends here, it gave too little.
        """
        self._came += size
        self._waited_s += waited_s
        if self._waited_s < self._window_s:
            return
        if self._came < LEAST_RATE * self._waited_s:
            words = "it gave %d bytes in %.3g s, which is as good as nothing" % (self._came, self._waited_s)
            raise TimeoutError(errno.ETIMEDOUT, words)
        self._came, self._waited_s = 0, 0.0


class Paced(io.RawIOBase):
    """What comes from a connection, unless it comes too slowly: see `Pace`.

    Args:
        raw: unbuffered, with a limit on each of its reads.
        pace: of what is read now; another one for each request.
    """

    def __init__(self, raw: Any, pace: Pace) -> None:
        self._raw, self.pace = raw, pace

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`; raises TimeoutError, too."""
        began = time.monotonic()
        size = int(self._raw.readinto(buffer) or 0)
        if size:
            self.pace.note(size, time.monotonic() - began)
        return size

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
        super().close()
