"""Files of an appliance that are under way: written piece by piece, appended to, or read in blocks."""

from __future__ import annotations

import contextlib
import errno
import posixpath
import queue
import secrets
import threading
from typing import TYPE_CHECKING, Any, Self

from serai.access.stores.bodies import XXH3, new_check
from serai.access.stores.wire import BLOCK
from serai.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from serai.access.stores.remote import StoreFiles

__all__ = ["LONG_S", "SMALL", "Ahead", "Appending", "Writing"]

SMALL = 1 << 20  # bytes that are sent in one, with their digest before them
AHEAD = 4  # pieces that wait to be sent
LONG_S = 600.0


class Ahead:
    """A block that is being read, with the face of `serai.access.porter.Call`."""

    def __init__(self, future: Future[bytes]) -> None:
        self._future = future

    def pieces(self) -> Iterator[bytes]:
        """The block."""
        yield self._future.result(LONG_S)

    def result(self) -> tuple[dict[str, Any], bytes]:
        """All has been told by `pieces`."""
        return {}, b""

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._future.cancel()


class Writing:
    """A file that is being written to an appliance; as a context, it is finished, or given up after an error."""

    def __init__(self, files: StoreFiles, path: str, how: str, *, parents: bool, keep: bool) -> None:
        self._files, self._final, self._how, self._parents = files, path, how, parents
        folder, name = posixpath.split(path)
        self._kept = posixpath.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.serai") if keep else ""
        self._path = self._kept or path
        self._first = bytearray()  # what is sent in one if it stays small
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        self._made = new_check()
        self._sender: threading.Thread | None = None
        self._ended: dict[str, bytes] | BaseException | None = None

    def begin(self) -> None:
        """Ask whether it can be written.

        Raises:
            OSError: it cannot.
        """
        exclusive = self._how == "x"
        self._files.wire.call("check", path=self._final, exclusive=exclusive, parents=self._parents, again=True)

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        if self._sender is None and len(self._first) + len(data) <= SMALL:
            self._first += data
            return
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name="store-put", daemon=True)
            self._sender.start()
            if self._first:
                self._give(bytes(self._first))
        view = memoryview(data)
        for at in range(0, len(view), BLOCK):
            self._give(bytes(view[at : at + BLOCK]))

    def _give(self, piece: bytes | BaseException | None) -> None:
        assert self._sender is not None  # noqa: S101 - for the reader of types
        if isinstance(piece, bytes):
            self._made.update(piece)
        waited = 0.0
        while self._sender.is_alive():
            try:
                self._pieces.put(piece, timeout=1.0)
            except queue.Full:
                waited += 1.0
                if waited >= LONG_S:
                    raise DeadlineExceeded(f"the store took nothing for {LONG_S:.0f} s") from None
            else:
                return
        if isinstance(self._ended, BaseException) and not isinstance(piece, BaseException):
            raise self._ended

    def _taken(self) -> Iterator[bytes]:
        while True:
            piece = self._pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                return
            yield piece

    def _send(self) -> None:
        how = "w" if self._kept else self._how
        try:
            self._ended = self._files.stream(self._path, self._taken(), how, parents=self._parents)
        except BaseException as error:  # noqa: BLE001 - whoever writes is told
            self._ended = error

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        if self._sender is None:
            how = "w" if self._kept else self._how
            self._files.put(self._path, bytes(self._first), how, parents=self._parents)
            return
        self._give(None)
        self._sender.join(LONG_S)
        if isinstance(self._ended, BaseException):
            raise self._ended
        if self._sender.is_alive():
            raise DeadlineExceeded(f"the store did not answer for {LONG_S:.0f} s")
        if self._ended is not None and self._ended.get(XXH3) != self._made.digest():
            raise OSError(errno.EBADMSG, "what the store has is not what was sent", self._path)

    def commit(self, *, exclusive: bool = False) -> None:
        """Put in its place what was kept."""
        if self._kept:
            kept, self._kept = self._kept, ""
            self._files.replace(kept, self._final, exclusive=exclusive)

    def discard(self) -> None:
        """Give it up: the appliance keeps nothing of a body that does not end."""
        if self._sender is not None and self._sender.is_alive():
            self._give(ConnectionAbortedError(errno.ECONNABORTED, "the writer gave it up"))
            self._sender.join(LONG_S)
        if self._kept:
            kept, self._kept = self._kept, ""
            with contextlib.suppress(FileNotFoundError):
                self._files.remove([kept], recursive=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()


class Appending:
    """A file that is appended to, part by part, in place."""

    def __init__(self, files: StoreFiles, path: str, *, parents: bool) -> None:
        self._files, self._path, self._parents, self._at = files, path, parents, 0

    def begin(self) -> None:
        """Find its end; make it if there is none."""
        try:
            self._at = int(self._files.info(self._path)["size"])
        except FileNotFoundError:
            self._files.put(self._path, b"", "x", parents=self._parents)

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        self._at = self._files.part(self._path, bytes(data), self._at)

    def finish(self) -> None:
        """All is written."""

    def commit(self, *, exclusive: bool = False) -> None:
        """It is in its place."""

    def discard(self) -> None:
        """What was appended stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return
