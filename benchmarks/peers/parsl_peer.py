"""Parsl's HighThroughputExecutor: one manager of two workers, prefetching, unencrypted, on loopback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main
from workload import command, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFETCH = 100
LOOPBACK = "127.0.0.1"


@contextmanager
def high_throughput(asked: Asked) -> Iterator[Engine]:
    """Load Parsl with one block on this machine."""
    import parsl  # noqa: PLC0415 - a part of the start-up that is timed
    from parsl.executors import HighThroughputExecutor  # noqa: PLC0415 - the same
    from parsl.providers import LocalProvider  # noqa: PLC0415 - the same

    executor = HighThroughputExecutor(
        label="bench",
        address=LOOPBACK,
        loopback_address=LOOPBACK,
        encrypted=False,
        cores_per_worker=1,
        max_workers_per_node=2,
        prefetch_capacity=PREFETCH,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    config = parsl.Config(
        executors=[executor],
        run_dir=str(asked.scratch / "runinfo"),
        strategy="none",
        usage_tracking=0,
        initialize_logging=False,
    )
    with parsl.load(config):
        same_app, command_app = parsl.python_app(same), parsl.python_app(command)

        def functions(count: int) -> list[int]:
            futures = [same_app(number) for number in range(count)]
            return [future.result() for future in futures]

        def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
            futures = [command_app(argv) for _ in range(count)]
            return [future.result() for future in futures]

        yield Engine(parsl.__version__, functions, commands)


if __name__ == "__main__":
    main(high_throughput)
