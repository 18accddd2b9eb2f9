"""Origins as they were seen, and the files that they are in a run."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from serai.data.digests import tells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_MOVED = 1 << 62  # bytes that a node can have moved
SMALLEST = 256 * 1024  # bytes; smaller files travel with the bundles that read them
Stamp = tuple[str, ...]


class Host(Protocol):
    """A host that files lie on; may be hashed."""

    def is_of(self, ad: Mapping[str, Any]) -> bool:
        """Whether a node that checked in so is this host."""
        ...


class Found(NamedTuple):
    """What was seen of an origin.

    Attributes:
        origin: an absolute path on this machine, or a URL.
        size: bytes.
        stamp: what differs when it has changed.
        host: the host that a URL names, if that may be a node.
        path: where it is there.
        version: what tells its version by HTTP: its ETag, and when it changed; see `serai.data.grants.version_of`.
    """

    origin: str
    size: int
    stamp: Stamp
    host: Host | None = None
    path: str = ""
    version: tuple[str, str] = ("", "")


@dataclass(slots=True)
class File:
    """A catalogued file.

    Attributes:
        origin: its absolute path on this machine, or its URL.
        stamp: what differs when it has changed.
        digest: BLAKE2b-256 in hex; empty while it is not known (see `holders`).
        read_here: the front end has read it, now or in an earlier run.
        said: what nodes say that its digest is, while it is not known.
        read_by: those of them that have read it to say so.
        host: the host that a URL names, if that may be a node; and its path there.
        holders: nodes that have it in their caches.
        lies: nodes on which it lies, and where.
        unreadable: why its origin could not be read last; empty if it could.
        version: see `Found`.
        place: the origin that nodes may read it straight from; empty where they may not.
    """

    number: int
    origin: str
    size: int
    stamp: Stamp
    digest: str = ""
    host: Host | None = None
    path: str = ""
    holders: set[str] = field(default_factory=set)
    lies: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    read_by: set[str] = field(default_factory=set)
    read_here: bool = False

    @property
    def modified(self) -> str:
        """When it was last changed, as its stamp says it, behind its size: for a file on a host, in seconds."""
        return self.stamp[1] if len(self.stamp) > 1 else ""

    unreadable: str = ""
    version: tuple[str, str] = ("", "")
    place: str = ""


class Granting(Protocol):
    """Lets nodes read files at their origins; see `serai.data.grants.Grants`."""

    def expect(self, urls: Iterable[str]) -> None:
        """Files will be wanted. Returns at once."""
        ...

    def grant(self, url: str, version: tuple[str, str], *, anew: bool = ..., wait_s: float = ...) -> dict[str, Any]:
        """What lets a node read one; empty where nothing does."""
        ...


def measured(moved: Any, took_s: Any = 0.0) -> tuple[int, float]:
    """What a node says that it has moved, in bytes, and how long that took, in seconds.

    Raises:
        ValueError, TypeError: it cannot be.
    """
    size, seconds = int(moved), float(took_s)
    if not 0 <= size <= MOST_MOVED or not 0.0 <= seconds < math.inf:
        raise ValueError("so many bytes in that time cannot be")
    return size, seconds


def version_key(file: File) -> str:
    """What a version of a file is called before its digest is known; empty where its size is all that tells it."""
    if not tells(file.stamp):
        return ""
    text = "\0".join((file.origin, *file.stamp)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=20).hexdigest()


def look(path: str) -> tuple[int, Stamp] | None:
    """The size and the stamp of a path on this machine; None for what is not catalogued.

    Programs are not: the copies in a cache cannot be executed.

    Raises:
        OSError: it is not there.
    """
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode) or info.st_size < SMALLEST or info.st_mode & 0o111:
        return None
    # The last is set by no program: what keeps a size and sets a time back (`cp -p`, `rsync`) is another file, too.
    return info.st_size, (str(info.st_size), str(info.st_mtime_ns), str(info.st_ctime_ns))
