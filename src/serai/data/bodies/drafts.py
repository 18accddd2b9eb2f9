"""Files that are not whole yet: in a directory of their own, on the file system of those that are served."""

from __future__ import annotations

import itertools
import os
import secrets
import stat

__all__ = ["Drafts"]


class Drafts:
    """The directory, which stays open.

    Args:
        path: of it; it is there.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._head, self._numbers = secrets.token_hex(6), itertools.count()
        self.mode = -1  # permissions of a new file, once there was one

    def new(self) -> tuple[str, int]:
        """A new empty file: its name in the directory, and a descriptor."""
        name = f"{self._head}{next(self._numbers):x}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=self.fd)
        if self.mode < 0:
            self.mode = stat.S_IMODE(os.fstat(fd).st_mode)
        return name, fd

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
