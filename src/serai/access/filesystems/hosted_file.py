"""An open file of a host: read by blocks, one ahead when it is read on; written beside its place and then renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from types import TracebackType

    from serai.access.filesystems.port import Ahead, Writing

_HOW = {"wb": "w", "xb": "x", "ab": "a"}


class HostedFile(AbstractBufferedFile):
    """An open file; see fsspec's `AbstractBufferedFile` for its arguments."""

    DEFAULT_BLOCK_SIZE = 4 << 20

    def __init__(self, fs: Any, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> None:
        self._writing: Writing | None = None
        self._ahead: tuple[int, int, Ahead] | None = None
        self._next = -1  # where a reader that reads on would go on
        if mode not in {"rb", *_HOW}:
            raise NotImplementedError(f"mode {mode!r}: files of hosts are read or written whole: rb, wb, xb, ab")
        super().__init__(fs, path, mode, *args, **kwargs)
        if mode != "rb":
            if mode == "ab":
                self.loc = fs.info(path)["size"] if fs.exists(path) else 0
            keep = not self.autocommit and mode != "ab"
            try:
                self._writing = fs.far.writing(path, _HOW[mode], parents=fs.auto_mkdir, keep=keep)
                self._writing.begin()
            except BaseException:
                self.closed = True
                raise

    # ---- reading

    def _fetch_range(self, start: int, end: int) -> bytes:
        size = end - start
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == start:
            data = b"".join(ahead[2].pieces()) or ahead[2].result()[1]
            if len(data) < size and ahead[1] < end:
                data += self.fs.far.read(self.path, start + len(data), end)
            self._look_ahead(max(end, ahead[1]))
        else:
            if ahead is not None:
                ahead[2].cancel()
            data = self.fs.far.read(self.path, start, end)
            if start == self._next:
                self._look_ahead(end)
        self._next = end
        return data

    def _look_ahead(self, start: int) -> None:
        """Ask for what comes next before it is wanted."""
        stop = min(start + self.blocksize, self.size)
        if stop > start:
            call = self.fs.far.ahead(self.path, start, stop)
            self._ahead = None if call is None else (start, stop, call)

    # ---- writing

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._writing is not None  # noqa: S101 - for the reader of types
        try:
            if self.buffer.tell():
                self._writing.write(self.buffer.getbuffer())
            if final:
                self._writing.finish()
        except BaseException:
            self._writing.discard()
            raise
        return True

    def commit(self) -> None:
        """Put in its place what a transaction has held back."""
        if self._writing is not None:
            self._writing.commit(exclusive=self.mode == "xb")
            self.fs.invalidate_cache(self.path)

    def discard(self) -> None:
        """Remove what a transaction has held back."""
        if self._writing is not None:
            self._writing.discard()

    def close(self) -> None:
        """Put it in its place, unless a transaction will."""
        if self._ahead is not None:
            self._ahead[2].cancel()
            self._ahead = None
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._writing is not None and not self.closed:
            self.closed = True
            self._writing.discard()  # what was not written to its end is not seen
            return
        super().__exit__(kind, error, trace)
