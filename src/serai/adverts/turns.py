"""Places that are few, for threads that come in turn."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A number of places; who has waited longest gets the next that is free.

    A semaphore of the standard library gives what was let go of to whoever asks first. A thread that works without a
    pause asks again before those that wait have woken, and keeps them waiting for as long as it works.

    Args:
        places: how many there are.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: deque[threading.Event] = deque()

    def acquire(self, timeout_s: float) -> bool:
        """Take a place; False where there was none for so long."""
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if turn.wait(timeout_s):
                return True
        except BaseException:  # Ctrl-C: nobody would let go of the place that came to it later
            if self._came(turn):
                self.release()
            raise
        return self._came(turn)

    def _came(self, turn: threading.Event) -> bool:
        """Whether a turn came at the last moment; otherwise it is not waited for any more."""
        with self._lock:
            if turn.is_set():
                return True
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        """Let go of a place."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)
