"""The standard streams of a job, as files of Python."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

    from serai.access.jobs.port import Mediator

__all__ = ["Input", "Output"]


class Output(io.RawIOBase):
    """Pieces of bytes as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer with what has come; waits while there is nothing, 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def readall(self) -> bytes:
        """The rest."""
        first, self._left = bytes(self._left), memoryview(b"")
        return b"".join((first, *self._pieces))


class Input(io.RawIOBase):
    """Standard input as something to write to. Only `close` ends it: a job is not told that this was forgotten."""

    def __init__(self, mediator: Mediator, job: str) -> None:
        self._mediator = mediator
        self._job = job

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it; returns when the host has handed it over."""
        if self.closed:
            raise ValueError("the job's standard input was closed")
        return self._mediator.write(self._job, memoryview(data).cast("B"))

    def __del__(self) -> None:
        """Instead of closing: a garbage collector must not wait for a host."""

    def close(self) -> None:
        """End the job's standard input."""
        if not self.closed:
            super().close()
            self._mediator.end_input(self._job)
