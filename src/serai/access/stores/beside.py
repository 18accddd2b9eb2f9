"""Reading an appliance's files by their paths, on its own host, where the user is the one who started it.

That it is the same host and the same user is proved, not guessed (a loopback port may be a tunnel's): the appliance
tells the digest of a random word that it keeps for its owner alone. Only who may do everything there reads so, since
access lists are the appliance's. Writing goes through it, because space is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

from serai.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Beside", "proof_of"]

VALID_S = 5.0  # then the appliance is asked again: it may have ended, or another one be there
BLOCK = 1 << 20


def proof_of(text: str) -> str:
    """What is told of a word that only the owner can read."""
    return hashlib.sha256(b"serai direct " + text.strip().encode("ascii")).hexdigest()


class Beside:
    """The files of an appliance by their paths here, while that is allowed.

    Args:
        ask: gives the appliance's status.
    """

    def __init__(self, ask: Callable[[], Mapping[str, Any]]) -> None:
        self._ask, self._clock = ask, SystemClock()
        self._root: str | None = None
        self._until = 0.0

    def root(self) -> str | None:
        """The directory that is served; None where it is not to be read so.

        Raises:
            SeraiError: the appliance does not answer any more.
        """
        if self._clock.now() >= self._until:
            self._root = _root_of(self._ask())
            self._until = self._clock.now() + VALID_S
        return self._root

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[tuple[int, int] | None]:
        """A descriptor of a regular file and its size; None for all that the appliance itself is to be asked for."""
        root = self.root()
        found = None if root is None else _opened(root, path)
        try:
            yield found
        finally:
            if found is not None:
                os.close(found[0])


def _root_of(status: Mapping[str, Any]) -> str | None:
    told, you = status.get("direct") or {}, status.get("you") or {}
    if you.get("rights") != "a" or you.get("path") != "/" or not told.get("proof"):
        return None
    root = str(told.get("path"))
    try:
        # It is another's word where this is: what is there must not keep us waiting.
        fd = os.open(os.path.join(root, ".serai", "owner"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid() or proof_of(file.read(1000)) != told["proof"]:
                return None
    except (OSError, ValueError):
        return None
    return os.path.realpath(root)


def _opened(root: str, path: str) -> tuple[int, int] | None:
    if ".." in path.split("/"):  # the appliance takes no such names
        return None
    here = os.path.realpath(root.rstrip("/") + "/" + path.lstrip("/"))
    head = root.rstrip("/") + "/"
    if not here.startswith(head) or here[len(head) :].partition("/")[0].lower() == ".serai":
        return None
    try:
        fd = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode):
        return fd, found.st_size
    os.close(fd)
    return None


def pieces(fd: int, at: int, end: int) -> Iterator[bytes]:
    """The bytes of a file between two offsets."""
    while at < end and (piece := os.pread(fd, min(BLOCK, end - at), at)):
        at += len(piece)
        yield piece
