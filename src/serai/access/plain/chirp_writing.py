"""A file that is being written to a Chirp server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from serai.access.filesystems.port import Writing
from serai.access.plain.chirp_requests import opened, placed, written
from serai.access.plain.chirp_wire import connected
from serai.access.plain.files import draft_of
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from serai.access.plain.chirp import ChirpFiles
    from serai.access.plain.chirp_wire import Connection

__all__ = ["ChirpWriting"]


class ChirpWriting(Writing):
    """See `Writing`; it holds a connection from its beginning to its end."""

    def __init__(self, files: ChirpFiles, path: str, how: str, *, keep: bool, mode: int | None) -> None:
        self._files, self._final, self._how, self._keep, self._mode = files, path, how, keep, mode
        self._path = path if how == "a" else draft_of(path)
        self._stack = contextlib.ExitStack()
        self._wire: Connection | None = None
        self._fd, self._at = -1, 0

    def begin(self) -> None:
        """Open it.

        Raises:
            OSError: it cannot be written.
        """
        if self._wire is None:
            wire = self._stack.enter_context(connected(self._files.server))
            try:
                flags = b"wc" if self._how == "a" else b"wcx"
                self._fd, found = opened(wire, self._path, flags, 0o644 if self._mode is None else self._mode)
            except BaseException:
                self._stack.close()
                raise
            self._wire, self._at = wire, found["size"]

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        self.begin()
        assert self._wire is not None  # noqa: S101 - for the reader of types
        self._at = written(self._wire, self._fd, data, self._at, self._final)

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        self.begin()
        assert self._wire is not None  # noqa: S101 - for the reader of types
        self._wire.ask(b"close", self._fd, path=self._final)
        self._let_go()
        if self._how != "a":
            self._files.stamp(self._path, mode=0o644 if self._mode is None else self._mode, mtime_ns=None)
            if not self._keep:
                self._place(exclusive=self._how == "x")

    def _let_go(self) -> None:
        """The connection is for others now."""
        self._wire = None
        self._stack.close()

    def _place(self, *, exclusive: bool) -> None:
        with connected(self._files.server) as wire:
            placed(wire, self._path, self._final, exclusive=exclusive)
        self._path = self._final

    def commit(self, *, exclusive: bool = False) -> None:
        """Put in its place what was kept."""
        if self._path != self._final:
            self._place(exclusive=exclusive)

    def discard(self) -> None:
        """Give it up."""
        if self._wire is not None and self._wire.whole:
            with contextlib.suppress(OSError, HostUnreachable):
                self._wire.ask(b"close", self._fd)
        self._let_go()
        if self._path != self._final:
            self._files.drop(self._path)
