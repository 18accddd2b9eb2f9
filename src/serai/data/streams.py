"""One stream into one file."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from serai.data.copy_plan import Fact
from serai.data.copying.opening import open_place

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["store_stream"]


def store_stream(pieces: Iterable[bytes], url: str, *, ssh_config: str | None = None) -> int:
    """Write bytes into a file that gets its name when it is whole; returns how many.

    Args:
        pieces: the bytes.
        url: the file.
        ssh_config: the file that ssh is given instead of the user's own.

    Raises:
        OSError: it cannot be written, or is a directory.
        AccessError: the host cannot be reached.
    """
    place = open_place(url, ssh_config)
    end = place.end
    there, parent = end.look([place.path, posixpath.dirname(place.path) or "."], follow=True)
    if (isinstance(there, Fact) and there.kind == "directory") or (there is None and place.slash):
        raise IsADirectoryError(21, "Is a directory", url)
    if parent is None and end.digests:
        raise FileNotFoundError(2, "No such file or directory", url)
    landed = end.land(place.path, 0, pieces)
    size: int = landed["size"]
    end.commit([place.path, None, there is not None, None], size, {})
    return size
