"""What the schedule knows of files: how large they are, who has them, and how each comes to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.match.movement import Move, Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Holdings:
    """The files that tasks read, and the nodes that have them."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._holders: dict[int, set[str]] = {}
        self._held: dict[str, set[int]] = {}

    def add(self, files: Sequence[int], sizes: Sequence[int]) -> None:
        """Files are known; sizes are in bytes."""
        self._sizes.update(zip(files, sizes, strict=True))

    def cached(self, node: str, files: Iterable[int]) -> None:
        """A node has files."""
        held = self._held.setdefault(node, set())
        for file in files:
            held.add(file)
            self._holders.setdefault(file, set()).add(node)

    def evicted(self, node: str, files: Iterable[int]) -> None:
        """A node has files no longer."""
        held = self._held.get(node, set())
        for file in files:
            if file in held:
                held.remove(file)
                self._holders[file].discard(node)

    def gone(self, node: str) -> None:
        """A node is gone with all it had."""
        self.evicted(node, list(self._held.get(node, ())))
        self._held.pop(node, None)

    def size(self, file: int) -> int:
        """In bytes."""
        return self._sizes[file]

    def holders(self, file: int) -> frozenset[str]:
        """The nodes that have a file."""
        return frozenset(self._holders.get(file, ()))

    def moves(self, node: str, files: Iterable[int]) -> list[Move]:
        """How files come to a node, each once."""
        held = self._held.get(node, set())
        return [Move(file, Way.HERE if file in held else Way.STAGE) for file in dict.fromkeys(files)]
