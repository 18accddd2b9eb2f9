"""What peers may read of a node: objects of its cache, and files that lie on it, as long as they are what they were."""

from __future__ import annotations

import threading

from ..peers import Offer, opened
from .objects import stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .objects import Cache

OBJECTS, FILES = "objects/", "files/"
WHOLE_SECONDS = ".000"


class Sharing:
    """What peers find by a name: ``objects/<digest>`` or ``files/<number>``. Any thread may call it.

    Args:
        cache: whose objects.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._files: dict[str, _Lying] = {}

    def share(self, files: Mapping[str, Sequence[Any]]) -> None:
        """Files outside of the cache that peers may read, by number: path, size, time of modification as text."""
        for number, (path, size, modified) in files.items():
            self._files[FILES + "%d" % int(number)] = _Lying(str(path), int(size), str(modified))

    def find(self, name: str) -> Offer | None:
        """What peers may read; None where there is nothing."""
        if not name.startswith(OBJECTS):
            found = self._files.get(name)
            return None if found is None else Offer(found.path, found.is_same)
        digest = name[len(OBJECTS) :]
        try:
            path = self._cache.path(digest)
            stamp = stamp_of(path)
        except (OSError, ValueError):
            return None
        whole = self._cache.is_whole(digest)
        return Offer(path, lambda info: (info.st_size, info.st_mtime_ns) == stamp) if whole else None

    def part(self, name: str, at: int, length: int) -> bytes:
        """A part of what peers may read.

        Raises:
            OSError: it is not there, or not what it was.
        """
        offer = self.find(name)
        if offer is None:
            raise FileNotFoundError(2, "there is no such thing")
        with opened(offer) as file:
            file.seek(at)
            data = file.read(length)
            offer.check(file)
        return data


class _Lying:
    """A file that lies on this node.

    What the front end saw of it is its size and its time. Whoever writes to a file can set both back, but not the time
    at which that was done: this is compared, too, from when it was first looked at here.
    """

    def __init__(self, path: str, size: int, modified: str) -> None:
        self.path = path
        self._size = size
        self._modified = modified
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()

    def is_same(self, info: os.stat_result) -> bool:
        """Whether it is what the run looked at."""
        seen = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        with self._lock:
            if not self._seen and info.st_size == self._size and _is_at(info, self._modified):
                self._seen = seen
            return seen == self._seen


def _is_at(info: os.stat_result, text: str) -> bool:
    """Whether a time of modification is this: seconds, with three places or none; what is no number says nothing."""
    if text.endswith(WHOLE_SECONDS) or text.isdigit():  # as whoever knows no parts of seconds says it
        return info.st_mtime_ns // 10**9 == int(text.partition(".")[0])
    return not text.replace(".", "", 1).isdigit() or "%.3f" % (info.st_mtime_ns / 1e9) == text


__all__ = ["FILES", "OBJECTS", "Sharing"]
