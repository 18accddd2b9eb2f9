"""Pieces of inputs in the node's cache, for whoever reads the same again: iterations over the same files, say.

What was read through the front end is written aside meanwhile, and taken into the cache when all of it was used. It is
found again by its digest, which the front end remembers.
"""

from __future__ import annotations

import contextlib
import os

from .coming import BLOCK
from .objects import Altered, Cache, NoRoom, directory_beside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Pieces:
    """The cache, for one process that has one piece under way at a time.

    Args:
        base: a directory beside which the cache lies.
        own: a directory of this process's own, in the same file system if that can be.
    """

    def __init__(self, base: str, own: str) -> None:
        self._base = base
        self._aside = os.path.join(own, "piece")
        self._pin = os.path.join(own, "pinned")
        self._cache = None  # type: Cache | None
        self._broken = False

    def find(self, digest: str) -> str | None:
        """The path of a piece, which stays until the next call of this; None when it is not there, or damaged."""
        with contextlib.suppress(OSError):
            os.unlink(self._pin)
        cache = self._opened()
        if cache is None:
            return None
        try:
            return None if cache.pin(digest, self._pin) is None else self._pin
        except (OSError, ValueError):  # another file system, say
            return None

    def through(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give blocks on, and write them aside as long as that can be done."""
        try:
            file = open(self._aside, "wb", buffering=0)  # noqa: SIM115 - closed below
        except OSError:
            yield from blocks
            return
        with file:
            writing = True
            for block in blocks:
                if writing:
                    try:
                        writing = file.write(block) == len(block)
                    except OSError:  # the disk is full: the input matters more
                        writing = False
                    if not writing:
                        self.forget()
                yield block

    def keep(self) -> str | None:
        """Take what was written aside into the cache; returns its digest, None where that cannot be done."""
        cache = self._opened()
        try:
            with open(self._aside, "rb", buffering=0) as file:
                return None if cache is None else _taken(cache, file.read, os.fstat(file.fileno()).st_size)
        except (OSError, NoRoom, Altered):
            return None
        finally:
            self.forget()

    def forget(self) -> None:
        """Remove what was written aside."""
        with contextlib.suppress(OSError):
            os.unlink(self._aside)

    def _opened(self) -> Cache | None:
        if self._cache is None and not self._broken:
            try:
                self._cache = Cache(directory_beside(self._base))
            except OSError:
                self._broken = True
        return self._cache


def _taken(cache: Cache, read: Callable[[int], bytes], size: int) -> str:
    filling = cache.begin(size)
    try:
        while True:
            data = read(BLOCK)
            if not data:
                break
            filling.write(data)
        return cache.keep(filling)
    except BaseException:
        filling.abandon()
        raise
