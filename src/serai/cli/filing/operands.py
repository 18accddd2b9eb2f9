"""What the file commands share: how names are taken and said, and how errors are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from serai.errors import SeraiError, UsageError, errno_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serai.data.copying.opening import Place

CONFIG = click.option("-F", "--ssh-config", metavar="FILE", help="Give ssh this file instead of your own.")
URLS = click.UNPROCESSED  # names may hold any byte: nothing is done to them
BLOCK = 1 << 20


def echo(text: str) -> None:
    """Print a line; names that are not in the terminal's encoding come out as the bytes that they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")


def complain(command: str, what: str) -> None:
    """Say on standard error what went wrong."""
    text = f"serai: {command}: {what}\n"
    sys.stderr.flush()
    sys.stderr.buffer.write(text.encode(errors="surrogateescape"))
    sys.stderr.buffer.flush()


def shown(name: str) -> str:
    """A name for a terminal: what would move its cursor is a question mark. To others it goes as it is."""
    if not sys.stdout.isatty():
        return name
    return "".join(c if c.isprintable() else "?" for c in name)


def opened(command: str, urls: Sequence[str], ssh_config: str | None) -> tuple[list[Place], int]:
    """The places that operands stand for, all hosts at once; complains of those that cannot be had.

    Returns:
        the places, and the exit code so far.

    Raises:
        UsageError: an operand is none.
    """
    from serai.data.copying.opening import open_places  # noqa: PLC0415 - `serai --help` does without

    places: list[Place] = []
    code = 0
    for url, found in zip(urls, open_places(urls, ssh_config), strict=True):
        standing = meant(command, url, found)
        places += standing
        code = code if standing else 1
    return places, code


def meant(command: str, url: str, found: Place | Exception) -> list[Place]:
    """The places that an operand stands for; none, after a complaint, where it or a pattern's directory cannot be read.

    Raises:
        UsageError: the operand is none.
    """
    if isinstance(found, UsageError):
        raise found
    try:
        if isinstance(found, Exception):
            raise found
        return found.expanded()
    except (OSError, SeraiError) as error:
        complain(command, f"{url}: {reason(error)}")
        return []


def reason(error: OSError | SeraiError) -> str:
    """What went wrong, for beside the file's name."""
    if isinstance(error, OSError) and not error.errno:  # some file systems of fsspec say a path only
        number = errno_of(error)
        return os.strerror(number) if number else str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def stdin_pieces() -> Iterator[bytes]:
    """What comes on standard input."""
    while data := os.read(0, BLOCK):
        yield data
