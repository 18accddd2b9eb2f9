"""What this node has read at origins, for later runs: their digests, by the names that the front end gives versions.

The front end has not read such a file, and takes no node's word for what others then read. A node may take its own: the
object is in its cache, or it is not.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading

MOST = 20_000  # versions; of more, those noted first are forgotten
LOOK = 500  # between two looks at how many there are
_KEY = re.compile("[0-9a-f]{40}").fullmatch
_DIGEST = re.compile("[0-9a-f]{64}").fullmatch


class Recalled:
    """A file for each version. Any thread may call it.

    Args:
        directory: below that of the cache; made if it is not there.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._noted = LOOK

    def digest(self, key: str) -> str:
        """The digest of a version; empty where it is not known."""
        if not _KEY(key):
            return ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            with open(os.path.join(self._directory, key), encoding="ascii") as file:
                text = file.read(65)
            return text if _DIGEST(text) else ""
        return ""

    def note(self, key: str, digest: str) -> None:
        """A version was read; where this cannot be written, it is read again."""
        if not _KEY(key) or not _DIGEST(digest):
            return
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            draft = os.path.join(self._directory, "~%d.%d" % (os.getpid(), threading.get_ident()))
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(digest)
            os.replace(draft, os.path.join(self._directory, key))
            self._forget()

    def _forget(self) -> None:
        with self._lock:
            self._noted += 1
            if self._noted < LOOK:
                return
            self._noted = 0
        found = [(one.stat().st_mtime, one.path) for one in os.scandir(self._directory)]
        for _, path in sorted(found)[: max(0, len(found) - MOST)]:
            with contextlib.suppress(OSError):
                os.unlink(path)
