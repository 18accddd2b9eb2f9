"""The standard library's ProcessPoolExecutor: two processes, chunks of one."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main
from workload import command, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def process_pool(_asked: Asked) -> Iterator[Engine]:
    """Open a pool of two processes."""
    with ProcessPoolExecutor(2) as pool:

        def functions(count: int) -> list[int]:
            futures = [pool.submit(same, number) for number in range(count)]
            return [future.result() for future in futures]

        def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
            futures = [pool.submit(command, argv) for _ in range(count)]
            return [future.result() for future in futures]

        yield Engine(platform.python_version(), functions, commands)


if __name__ == "__main__":
    main(process_pool)
