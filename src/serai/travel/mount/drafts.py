"""What is written: kept here until the file is closed, then put in its place at the source, all at once."""

from __future__ import annotations

import errno
import os
import tempfile
import time

from ..reading.blocks import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..reading.contents import Content
    from ..reading.patience import Patience

STEP = 1 << 20
SENT = 1 << 18  # bytes that are handed over at once
MOST_KEPT = 64 << 20  # bytes of a file whose blocks are known without being fetched again


class Reading:
    """A draft that is being sent.

    Args:
        draft: which.

    Attributes:
        progress: when a part of it was taken at last.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft, self._at = draft, 0
        self.progress = time.monotonic()

    def __enter__(self) -> Reading:  # noqa: PYI034 - Self is younger than the Pythons of nodes
        return self

    def __exit__(self, *_: object) -> None:
        return

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none at the end."""
        self.progress = time.monotonic()
        data = self._draft.read(self._at, SENT if size < 0 else min(size, SENT))
        self._at += len(data)
        return data


class Draft:
    """A file that is being written.

    Args:
        directory: where it is kept meanwhile; it has no name there.
        mode: its permissions; None leaves them as they are at the source.

    Attributes:
        dirty: whether it holds what the source has not.
        mtime_ns: a time that was set; None: that of its writing.
        spoiled: why a part of what was written is not in it; such a draft takes nobody's place.
    """

    def __init__(self, directory: str, mode: int | None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - it lives as long as this
        self.mode = mode
        self.mtime_ns: int | None = None
        self.dirty = True
        self.spoiled: tuple[int | None, str] | None = None
        self._directory = directory

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def written_ns(self) -> int:
        """When it was written."""
        return self.mtime_ns if self.mtime_ns is not None else os.fstat(self._file.fileno()).st_mtime_ns

    def fill(self, content: Content, patience: Patience) -> None:
        """Begin with what the source has."""
        at = 0
        while at < content.size:
            data = content.read(at, STEP, patience, None)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.write(at, data)
            at += len(data)
        self.dirty = False

    def read(self, start: int, length: int) -> bytes:
        """Bytes of it."""
        return os.pread(self._file.fileno(), length, start)

    def write(self, start: int, data: bytes) -> int:
        """Write bytes; returns how many."""
        view, at = memoryview(data), start
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                at, view = at + count, view[count:]
        except OSError as error:
            words = "%s: in %s, where it is kept until it is whole" % (error.strerror, self._directory)
            self.spoiled = (error.errno, words)  # not the error itself: by its traceback it would keep the draft
            raise OSError(*self.spoiled) from error
        self.dirty, self.mtime_ns = True, None
        return len(data)

    def cut(self, size: int) -> None:
        """Make it so long."""
        os.ftruncate(self._file.fileno(), size)
        if not size:
            self.spoiled = None
        self.dirty, self.mtime_ns = True, None

    def beginning(self) -> Reading:
        """The file, at its beginning, as a context."""
        return Reading(self)

    def keep(self, content: Content) -> None:
        """Let its blocks be known as those of the version that the source has now."""
        if content.size != self.size or content.size > MOST_KEPT:
            return
        for block in range((content.size + BLOCK - 1) // BLOCK):
            content.keep(block, self.read(block * BLOCK, min(BLOCK, content.size - block * BLOCK)))

    def __del__(self) -> None:
        """It goes when nobody reads from it any more; who drops it does not wait for that."""
        self._file.close()
