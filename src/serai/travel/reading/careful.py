"""Asking a source without being at its mercy: each call has a deadline, and one that is lost is not asked by everybody.

A call that is not answered in time stays in its thread, which nobody waits for. Until the source answers again, one
request a moment finds out whether it does, and all others are told at once that it does not.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque

from .sources import Gathered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .patience import Patience
    from .sources import Source

MOST_THREADS = 24
AGAIN_S = 2.0
IDLE_S = 10.0

# What says that the source is not to be had, and not that a file is not.
LOST = frozenset({
    errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOTCONN, errno.EHOSTDOWN, errno.ESHUTDOWN,
})  # fmt: skip


class Careful:
    """A source, and whether it is there.

    Args:
        source: which.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._lost_until = 0.0

    def check(self) -> None:
        """Let one request a moment find out whether a lost source is there again.

        Raises:
            OSError: it is lost.
        """
        if not self._lost_until:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._lost_until:
                raise OSError(errno.EIO, "the source is lost")
            if self._lost_until:
                self._lost_until = now + AGAIN_S

    def lost(self) -> None:
        """It did not answer in time, or its connection broke."""
        with self._lock:
            self._lost_until = time.monotonic() + AGAIN_S

    def found(self) -> None:
        """It answered."""
        if self._lost_until:
            with self._lock:
                self._lost_until = 0.0

    def note(self, error: OSError | None) -> None:
        """Judge by how a call ended."""
        if error is not None and (error.errno in LOST or error.errno is None):
            self.lost()
        else:
            self.found()


class _Call:
    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.patience: Patience | None = None


class Calls:
    """Threads in which sources are asked."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[_Call] = deque()
        self._threads = self._free = 0

    def ask(
        self,
        careful: Careful,
        patience: Patience,
        do: Callable[[], Any],
        progress: Callable[[], float] = lambda: 0.0,
    ) -> Any:
        """Ask, and wait for the answer.

        Args:
            careful: the source.
            patience: of who asked.
            do: asks.
            progress: when something went on at last, on the clock of ``time.monotonic``.

        Raises:
            OSError: as the source says, or EIO where it says nothing.
        """
        careful.check()
        call = _Call(do)
        call.patience = patience
        with self._condition:
            self._queue.append(call)
            if self._free < len(self._queue) and self._threads < MOST_THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="ask", daemon=True).start()
            else:
                self._condition.notify()
        try:
            while not call.over:
                patience.wait(progress())
        except TimeoutError as error:
            careful.lost()
            raise OSError(errno.EIO, error.strerror or os.strerror(errno.EIO)) from error
        finally:
            if not call.over:
                with self._condition:
                    if call in self._queue:
                        self._queue.remove(call)
        if isinstance(call.error, OSError):
            careful.note(call.error)
            raise call.error
        if call.error is not None:
            raise call.error
        careful.found()
        return call.result

    def _work(self) -> None:
        while True:
            with self._condition:
                if not self._queue:
                    self._free += 1
                    self._condition.wait(IDLE_S)
                    self._free -= 1
                    if not self._queue:
                        self._threads -= 1
                        return
                call = self._queue.popleft()
            try:
                call.result = call.do()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                call.error = error
            call.over = True
            if call.patience is not None:
                call.patience.woken.set()


class Origin:
    """Which source has a path of the mount.

    Args:
        source: of all of it; the files of a `Gathered` have sources of their own.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._whole = Careful(source)
        self._lock = threading.Lock()
        self._parts: dict[int, Careful] = {}

    def at(self, path: str) -> tuple[Careful, str]:
        """The source of a path, and the path there."""
        if not isinstance(self.source, Gathered) or path == "/":
            return self._whole, path
        source, there = self.source.place(path)
        with self._lock:
            return self._parts.setdefault(id(source), Careful(source)), there
