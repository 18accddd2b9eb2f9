"""Where inputs wait on a node: one file or directory per key, written as the pieces come."""

import os
import shutil

from .stage import INPUT, StageError


class Store:
    """The inputs of an executor.

    Args:
        base: the executor's own directory.
    """

    def __init__(self, base):
        self.base = base
        self.bad = {}  # key: why it did not arrive
        self._directory = os.path.join(base, "in")
        os.makedirs(self._directory, exist_ok=True)

    def write(self, key, head, body):
        """Write a piece of an input.

        Args:
            key: the input.
            head: "at" (offset in bytes), "size", "mode"; "under" (a path below the key, for directories), "directory".
            body: the bytes.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
            StageError: the piece says that it belongs outside of the input.
        """
        if key in self.bad:
            return
        if head.get("bad"):
            raise StageError(INPUT, head["bad"])
        path = os.path.join(self._directory, str(key))
        under = head.get("under")
        if under is not None:
            top = path
            path = os.path.normpath(os.path.join(path, under))
            if path != top and not path.startswith(top + os.sep):
                raise StageError(INPUT, "%s would leave its directory" % under)
            os.makedirs(path if head.get("directory") else os.path.dirname(path), exist_ok=True)
            if head.get("directory"):
                return
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if head["at"] == 0 else 0)
        fd = os.open(path, flags, head.get("mode", 0o600) | 0o600)
        try:
            view = memoryview(body)
            at = head["at"]
            while view:
                done = os.pwrite(fd, view, at)
                view = view[done:]
                at += done
        finally:
            os.close(fd)

    def drop(self, keys):
        """Remove inputs that nobody will use again."""
        for key in keys:
            path = os.path.join(self._directory, str(int(key)))
            shutil.rmtree(path, ignore_errors=True)
            try:
                os.unlink(path)
            except OSError:
                pass
