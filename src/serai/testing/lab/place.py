"""The directory of a laboratory: whose it is, and the removal of those whose laboratory has died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from serai.errors import UsageError

MARK = ".serai-lab"
PREFIX = "serai-lab-"


class Place:
    """A directory that this process holds: a lock on it ends with the process, however that ends.

    Attributes:
        path: the directory, absolute.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._names: set[str] = set()

    @classmethod
    def claim(cls, directory: Path | None) -> Place:
        """Take a directory: a new one below the directory for temporary files, or the given one.

        Raises:
            UsageError: a living laboratory is in the directory, or files that are not a laboratory's.
        """
        if directory is None:
            sweep(Path(tempfile.gettempdir()))
            path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        else:
            path = directory.resolve()
            path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        if lock is None:
            raise UsageError(f"another laboratory is up in {path}", hint="take it down, or give another directory")
        if (path / MARK).exists():
            _clear(path)
        elif any(path.iterdir()):
            os.close(lock)
            raise UsageError(f"{path} is not empty, and not a laboratory's", hint="give an empty or a new directory")
        (path / MARK).touch()
        return cls(path, lock)

    def file(self, name: str) -> Path:
        """The path of a file of the laboratory's own, which goes when the laboratory goes."""
        if name not in self._names:
            self._names.add(name)
            with (self.path / MARK).open("a", encoding="utf-8") as mark:
                mark.write(f"{name}\n")
        return self.path / name

    def release(self) -> None:
        """Remove the laboratory's files, and the directory if nothing else is in it. Harmless when done twice."""
        if self._lock < 0:
            return
        _clear(self.path)
        with contextlib.suppress(OSError):  # a user's own files are in it: it stays
            self.path.rmdir()
        os.close(self._lock)
        self._lock = -1


def sweep(parent: Path) -> list[Path]:
    """Remove the directories in `parent` that dead laboratories left, and return them."""
    swept = []
    for path in sorted(parent.glob(f"{PREFIX}*")):
        if not (path / MARK).exists():  # being made at this moment
            continue
        lock = _lock(path)
        if lock is None:
            continue
        with contextlib.suppress(OSError):
            _clear(path)
            path.rmdir()
            swept.append(path)
        os.close(lock)
    return swept


def _lock(path: Path) -> int | None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _clear(path: Path) -> None:
    # Only what the mark lists: a user may have put files of their own beside ours.
    mark = path / MARK
    names = mark.read_text(encoding="utf-8").splitlines()
    for name in names:
        if "/" not in name:
            (path / name).unlink(missing_ok=True)
    mark.unlink()
