"""What requests to a Chirp server are made of, and how their answers are read, over one connection."""

from __future__ import annotations

import contextlib
import errno
import re
import stat
from typing import TYPE_CHECKING, Any

from serai.access.plain.chirp_wire import PIECE, word
from serai.travel.porter.files import kind_of

if TYPE_CHECKING:
    from serai.access.plain.chirp_wire import Connection

__all__ = ["linked", "listed", "looked_at", "opened", "placed", "told", "written"]

MOST_ENTRIES = 10_000_000
_STAT = re.compile(rb"(?:-?[0-9]+ ){12}-?[0-9]+ ?")


def looked_at(wire: Connection, how: bytes, path: str) -> dict[str, Any]:
    """The facts of a path, by ``stat`` or ``lstat``."""
    wire.ask(how, word(path), path=path)
    return _facts_told(wire)


def linked(wire: Connection, path: str, found: dict[str, Any], *, follow: bool) -> dict[str, Any]:
    """What is told of a link: where it leads, and with `follow` what is there."""
    if not found["islink"]:
        return found
    destination = told(wire, wire.ask(b"readlink", word(path), PIECE, path=path)).decode("utf-8", "surrogateescape")
    there = looked_at(wire, b"stat", path) if follow else found
    return {**there, "islink": True, "destination": destination}


def listed(wire: Connection, path: str) -> list[tuple[str, dict[str, Any]]]:
    """What is in a directory. A name may hold line feeds: it ends where a line of numbers follows."""
    wire.ask(b"getlongdir", word(path), path=path)
    wire.whole = False
    found: list[tuple[str, dict[str, Any]]] = []
    name: list[bytes] = []
    while True:
        line = wire.line()
        if len(found) >= MOST_ENTRIES:
            raise OSError(errno.EOVERFLOW, f"there are more than {MOST_ENTRIES} names in it", path)
        if name and _STAT.fullmatch(line):
            text = b"\n".join(name).decode("utf-8", "surrogateescape")
            name = []
            if text not in {".", ".."} and "/" not in text and "\0" not in text:  # else it leads out of the directory
                found.append((text, _facts(line)))
        elif not line and not name:
            break
        else:
            name.append(line)
    wire.whole = True
    return [(name, _resolved(wire, f"{path.rstrip('/')}/{name}", row)) for name, row in found]


def _resolved(wire: Connection, path: str, row: dict[str, Any]) -> dict[str, Any]:
    """What is told of a name in a listing: of a link, what is where it leads, unless that is nowhere."""
    with contextlib.suppress(OSError):
        return linked(wire, path, row, follow=True)
    return row


def opened(wire: Connection, path: str, flags: bytes, mode: int) -> tuple[int, dict[str, Any]]:
    """Open a file; its number on this connection, and its facts."""
    fd = wire.ask(b"open", word(path), flags, mode, path=path)
    return fd, _facts_told(wire)


def written(wire: Connection, fd: int, data: bytes | memoryview, at: int, path: str) -> int:
    """Write all of some bytes at an offset; returns where they end."""
    view = memoryview(data).cast("B")
    while view:
        count = wire.ask(b"pwrite", fd, min(PIECE, len(view)), at, data=view[:PIECE], path=path)
        wire.expect(count, 1, min(PIECE, len(view)))
        at, view = at + count, view[count:]
    return at


def placed(wire: Connection, draft: str, target: str, *, exclusive: bool) -> None:
    """Put a draft in its place; with ``exclusive`` there must be nothing."""
    if exclusive:  # a rename would take away what came meanwhile
        wire.ask(b"link", word(draft), word(target), path=target)
        wire.ask(b"unlink", word(draft), path=draft)
    else:
        wire.ask(b"rename", word(draft), word(target), path=target)


def told(wire: Connection, size: int) -> bytes:
    """A short answer, in one."""
    wire.expect(size, 0, PIECE)
    return b"".join(wire.pieces(size))


def _facts_told(wire: Connection) -> dict[str, Any]:
    """The facts of a file that come next."""
    line = wire.line()
    if not _STAT.fullmatch(line):
        raise wire.not_spoken()
    return _facts(line)


def _facts(line: bytes) -> dict[str, Any]:
    numbers = [int(one) for one in line.split()]
    mode = numbers[2]
    return {
        "type": kind_of(mode),
        "size": numbers[7],
        "mode": mode,
        "ino": numbers[1],
        "nlink": numbers[3],
        "mtime_ns": numbers[11] * 10**9,
        "ctime_ns": numbers[12] * 10**9,
        "islink": stat.S_ISLNK(mode),
    }
