"""GNU xargs with two processes at a time; it tells only whether all commands ended well."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def commands(argv: Sequence[str], count: int) -> list[int]:
    """Run a command once per line; the line is an argument that it ignores."""
    lines = b"x\n" * count
    done = subprocess.run(["xargs", "-P2", "-n1", *argv], input=lines, check=True)
    return [done.returncode] * count


@contextmanager
def xargs(_asked: Asked) -> Iterator[Engine]:
    """Need no start."""
    version = subprocess.run(["xargs", "--version"], capture_output=True, check=True, text=True).stdout
    yield Engine(version.split("\n", 1)[0].split()[-1], commands=commands, keeps="whether all ended well")


if __name__ == "__main__":
    main(xargs)
