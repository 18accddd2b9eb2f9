"""The limit for commands: posix_spawn and waitpid in each of two processes, and nothing else."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def half(argv: Sequence[str], count: int) -> bytes:
    """Run a command count times, one after the other; return its wait statuses' exit codes, a byte each."""
    spawn, wait, path, environment = os.posix_spawn, os.waitpid, argv[0], dict(os.environ)
    codes = bytearray(count)
    for at in range(count):
        codes[at] = wait(spawn(path, argv, environment), 0)[1] >> 8
    return bytes(codes)


def commands(argv: Sequence[str], count: int) -> list[int]:
    """Share the commands between this process and a fork of it."""
    ours, theirs = os.pipe()
    helper = os.fork()
    if not helper:
        try:
            os.close(ours)
            with os.fdopen(theirs, "wb") as answer:
                answer.write(half(argv, count // 2))
        finally:
            os._exit(0)
    os.close(theirs)
    codes = half(argv, count - count // 2)
    with os.fdopen(ours, "rb") as answer:
        codes += answer.read()
    os.waitpid(helper, 0)
    return list(codes)


@contextmanager
def bare(_asked: Asked) -> Iterator[Engine]:
    """Need no start."""
    yield Engine(platform.python_version(), commands=commands, keeps="exit code")


if __name__ == "__main__":
    main(bare)
