"""Waiting for jobs: one thread for all who wait, so that a thousand of them need no more than one of few."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time

from . import records
from .calls import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .calls import Call

LONGEST_S = 60.0  # that a call waits; who wants to wait longer asks again
MOST_BYTES = 64 << 10  # that come with the answer
SHORT_S, LONG_S = 0.01, 0.25  # between looks at what cannot be waited for: the length of a file
KEPT = ("NEW", "RUNNING", "SUSPENDED")


class _Waiter:
    def __init__(self, call: Call) -> None:
        head = call.head
        self.call = call
        self.jobs: list[str] = list(head["ids"])
        self.left = set(self.jobs)
        self.any = bool(head.get("any"))
        self.until = time.monotonic() + min(float(head.get("deadline_s", LONGEST_S)), LONGEST_S)
        self.path: str | None = None
        self.offset = int(head.get("offset", 0))

    @property
    def due(self) -> bool:
        if self.call.cancelled or not self.left or (self.any and len(self.left) < len(set(self.jobs))):
            return True
        return self.path is not None and size_of(self.path) > self.offset

    def answer(self) -> tuple[dict[str, Any], bytes]:
        jobs = [records.status(job) for job in self.jobs]  # before the bytes: what was written before the end is there
        data = b""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(MOST_BYTES)
        return {"jobs": jobs}, data


def size_of(path: str) -> int:
    """The length of a file, 0 when there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


class Waiting:
    """Ends calls when the jobs that they wait for have ended, have written more, or time is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: list[_Waiter] = []
        self._waiters: list[_Waiter] = []
        self._watched: dict[str, int | None] = {}  # by job: what is ready when it ended; None when there is no keeper
        self._wake_in = self._wake_out = -1

    def take(self, call: Call, path: str | None = None) -> None:
        """Take a call that waits.

        Args:
            call: {"ids", "any", "deadline_s", "offset"}.
            path: a file; it is also ended when that is longer than the offset, and gets what is there.
        """
        waiter = _Waiter(call)
        waiter.path = path
        with self._lock:
            if self._wake_in < 0:
                self._wake_out, self._wake_in = os.pipe()
                os.set_blocking(self._wake_in, False)
                threading.Thread(target=self._run, daemon=True).start()
            self._new.append(waiter)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_in, b"\0")

    def _run(self) -> None:
        pause = SHORT_S
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        fds: dict[int, str] = {}
        while True:
            looks = any(waiter.path is not None for waiter in self._waiters) or None in self._watched.values()
            nearest = min((waiter.until for waiter in self._waiters), default=time.monotonic() + LONGEST_S)
            wait_s = max(0.0, min(nearest - time.monotonic(), pause if looks else LONGEST_S))
            ready = [fd for fd, _ in poll.poll(wait_s * 1000 + 1)]
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
            for fd in ready:
                if fd in fds:
                    poll.unregister(fd)
                    self._watched.pop(fds[fd], None)
                    self._heed_end(fds.pop(fd))
                    os.close(fd)
            with self._lock:
                new, self._new = self._new, []
            self._waiters += new
            for job in {job for waiter in new for job in waiter.left}:
                self._watch(job, poll, fds)
            for job in [job for job, kept in self._watched.items() if kept is None]:
                self._watch(job, poll, fds)
            pause = SHORT_S if self._answer() else min(LONG_S, pause * 1.5)
            self._forget(poll, fds)

    def _watch(self, job: str, poll: select.poll, fds: dict[int, str]) -> None:
        """Look whether a job has ended, and have its end told."""
        if self._watched.get(job) is not None:
            return
        try:
            fd = records.watch(records.room_of(job))
        except OSError:  # too many files are open: look now and then
            fd = None
        if fd is not None:
            fds[fd] = job
            poll.register(fd, select.POLLIN)
            self._watched[job] = fd
        else:
            self._heed_end(job)

    def _heed_end(self, job: str) -> None:
        """Act on what nobody keeps."""
        if _goes_on(job):  # its keeper was ended from outside, or has not begun: look now and then
            self._watched[job] = None
            return
        self._watched.pop(job, None)
        for waiter in self._waiters:
            waiter.left.discard(job)

    def _answer(self) -> bool:
        now = time.monotonic()
        due = [waiter for waiter in self._waiters if waiter.due or now >= waiter.until]
        if due:
            self._waiters = [waiter for waiter in self._waiters if waiter not in due]
        for waiter in due:
            waiter.call.end(waiter.answer)
        return bool(due)

    def _forget(self, poll: select.poll, fds: dict[int, str]) -> None:
        """Close what nobody waits for any more."""
        wanted = {job for waiter in self._waiters for job in waiter.left}
        for job in [job for job in self._watched if job not in wanted]:
            fd = self._watched.pop(job)
            if fd is not None:
                poll.unregister(fd)
                del fds[fd]
                os.close(fd)


def _goes_on(job: str) -> bool:
    try:
        return records.status(job)["state"] in KEPT
    except Trouble:  # it was removed
        return False
    except OSError:  # nobody can say at the moment
        return True
