"""A simulated cache of a node: what was used longest ago leaves first, and what is in use stays."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cache:
    """Files of one node, in the order of their last use.

    Args:
        most_bytes: what it may hold; 0 for any amount.
    """

    def __init__(self, most_bytes: int) -> None:
        self.files: OrderedDict[int, int] = OrderedDict()  # sizes
        self._most = most_bytes
        self._used = 0
        self._pins: Counter[int] = Counter()

    def put(self, file: int, size: int) -> list[int]:
        """A file has come; returns those that left for it."""
        if file in self.files:
            return []
        self.files[file] = size
        self._used += size
        gone = []
        for other in list(self.files) if self._most else ():
            if self._used <= self._most:
                break
            if other != file and not self._pins[other]:
                self._used -= self.files.pop(other)
                gone.append(other)
        return gone

    def pin(self, files: Iterable[int]) -> None:
        """Files are in use."""
        for file in files:
            self._pins[file] += 1
            if file in self.files:
                self.files.move_to_end(file)

    def free(self, files: Iterable[int]) -> None:
        """Files are in use no longer, by one of their users."""
        self._pins.subtract(files)

    def free_all(self) -> None:
        """Nothing is in use."""
        self._pins.clear()
