"""Paths of the advert service: ``/mapreduce/run-1/workers/w7``.

A path is absolute and its parts are separated by single slashes. Directories exist by their entries, as in an object
store: nobody makes them, and they are gone with the last entry below them. An entry may have entries below it as well;
that is what SAGA's directories with attributes are.
"""

from __future__ import annotations

import unicodedata

from serai.errors import UsageError

MOST_PARTS = 32
LONGEST_PART = 255  # bytes in UTF-8
LONGEST = 1024  # bytes in UTF-8


def entry(path: str) -> str:
    """Check the path of an entry, and return it.

    Raises:
        UsageError: it cannot be one.
    """
    parts = path.split("/")
    if not isinstance(path, str) or parts[0] or len(parts) < 2:
        raise UsageError(f"{path!r} is no path of an advert", hint="it begins with a slash: /nodes/lab1")
    if len(parts) - 1 > MOST_PARTS:
        raise UsageError(f"{path[:60]!r}… has more than {MOST_PARTS} parts")
    for part in parts[1:]:
        _check(part, path)
    if len(path.encode()) > LONGEST:
        raise UsageError(f"{path[:60]!r}… is longer than {LONGEST} bytes")
    return path


def directory(path: str) -> str:
    """Check the path of a directory, and return it without a slash at its end; the root is ``""``.

    Raises:
        UsageError: it cannot be one.
    """
    bare = path.removesuffix("/")
    return entry(bare) if bare or not path else ""


def parent(path: str) -> str:
    """The directory that an entry is in; the root is ``""``."""
    return path.rpartition("/")[0]


def span(directory: str) -> tuple[str, str]:
    """All paths below a directory: from the first (included) to the second (excluded), by their bytes."""
    return directory + "/", directory + "0"  # the character after the slash


def within(path: str, directory: str) -> bool:
    """Whether a path is a directory's own or below it."""
    return path == directory or path.startswith(directory + "/")


def _check(part: str, path: str) -> None:
    try:
        length = len(part.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{path!r} is not text") from None
    if not part or part in {".", ".."}:
        raise UsageError(f"{path!r} has a part that is empty, . or ..")
    if length > LONGEST_PART:
        raise UsageError(f"a part of {path[:60]!r}… is longer than {LONGEST_PART} bytes")
    if any(unicodedata.category(one).startswith("C") for one in part):
        raise UsageError(f"{path!r} has a character that cannot be seen")
