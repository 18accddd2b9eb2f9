"""How far a copy has come, for whoever shows it; counted by several threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Stopped", "Tally"]

Piece = TypeVar("Piece", bytes, bytes | memoryview)


class Stopped(Exception):
    """The copy is to end."""


class Tally:
    """Counts.

    Args:
        note: takes a sentence about what is done and why, for those who want to know.

    Attributes:
        files: how many there are to be copied.
        size: their bytes, as far as known.
        done_files: how many are whole at their place.
        done_bytes: how many bytes have gone by.
    """

    def __init__(self, note: Callable[[str], object] | None = None) -> None:
        self._note = note
        self._lock = threading.Lock()
        self._stopped = False
        self.files = self.size = self.done_files = self.done_bytes = 0

    def expect(self, files: int, size: int) -> None:
        """There is so much more to be done."""
        with self._lock:
            self.files += files
            self.size += size

    def finish(self, files: int = 1) -> None:
        """So many files are whole."""
        with self._lock:
            self.done_files += files

    def skip(self, size: int) -> None:
        """So many bytes are there from an earlier attempt."""
        self.add(size)

    def add(self, size: int) -> None:
        """So many bytes went by.

        Raises:
            Stopped: no more are wanted.
        """
        with self._lock:
            self.done_bytes += size
        if self._stopped:
            raise Stopped

    def count(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Pass pieces on and count their bytes."""
        for piece in pieces:
            self.add(len(piece))
            yield piece

    def note(self, what: str) -> None:
        """Say what is done and why."""
        if self._note is not None:
            self._note(what)

    def stop(self) -> None:
        """Make every copy that counts here end at its next piece."""
        self._stopped = True
