"""Keeps what tasks print: two files per lane, used again for every task.

Files and not pipes: a pipe has to be read while the task runs, costs three system calls more, and stays open for as
long as some forgotten child of the task holds it.
"""

from __future__ import annotations

import os

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .bundle import Bundle

    SendStream = Callable[[Bundle, int, int, int, Iterator[tuple[int, bytes]]], None]


class Capture:
    """The standard streams of a lane's tasks.

    Args:
        stem: path to which ``.out`` and ``.err`` are added.
        keep: bytes of a stream that travel inside the result; a longer stream travels as a file.
    """

    def __init__(self, stem: str, keep: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self.fds = (os.open(stem + ".out", flags, 0o600), os.open(stem + ".err", flags, 0o600))
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._keep = keep
        self.actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, self.fds[0], 1),
            (os.POSIX_SPAWN_DUP2, self.fds[1], 2),
        ]

    def take(self, bundle: Bundle, task: int, send_stream: SendStream) -> tuple[bytes, bytes]:
        """Return what the last task printed as (stdout, stderr), and begin anew.

        Where a stream is longer than is kept, it is handed to ``send_stream(bundle, task, which, size, chunks)`` and
        its part is empty.
        """
        return self._take(bundle, task, 0, send_stream), self._take(bundle, task, 1, send_stream)

    def _take(self, bundle: Bundle, task: int, which: int, send_stream: SendStream) -> bytes:
        fd = self.fds[which]
        size = os.fstat(fd).st_size
        if not size:
            return b""
        if size <= self._keep:
            data = os.pread(fd, size, 0)
        else:
            data = b""
            send_stream(bundle, task, which, size, self._chunks(fd, size))
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)  # a task may have taken O_APPEND away, for all that share the file
        return data

    @staticmethod
    def _chunks(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at < size:
            data = os.pread(fd, min(wire.CHUNK, size - at), at)
            if not data:
                return
            yield at, data
            at += len(data)

    def become_own(self) -> None:
        """Make these the streams of this very process too: functions print into them."""
        os.dup2(self._null, 0)
        os.dup2(self.fds[0], 1)
        os.dup2(self.fds[1], 2)
