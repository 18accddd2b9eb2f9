"""Serai with two slots; variant `local`, or `ssh` through one host of the laboratory."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from meter import BEGAN, Asked, Engine, main
from workload import same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import serai


def engine_of(pool: serai.Pool, began: float = BEGAN) -> Engine:
    """Return a pool as an engine."""

    def functions(count: int) -> list[int]:
        futures = [pool.submit(same, number) for number in range(count)]
        return [future.result() for future in futures]

    def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
        outcomes = pool.run(shlex.join(argv), range(count))
        return [(outcome.exit_code, outcome.stdout, outcome.stderr) for outcome in outcomes]

    return Engine(version("serai"), functions, commands, began=began)


@contextmanager
def serai_pool(asked: Asked) -> Iterator[Engine]:
    """Open the pool; the laboratory's own start is not counted as Serai's."""
    with ExitStack() as stack:
        url, began = "local:?slots=2", BEGAN
        if asked.variant == "ssh":
            import cloudpickle  # noqa: PLC0415 - only here
            import workload  # noqa: PLC0415 - the module itself, to be pickled

            from serai.testing.lab import Lab  # noqa: PLC0415 - a part of the start-up that is not timed

            cloudpickle.register_pickle_by_value(workload)  # a host has no file of ours
            lab = stack.enter_context(Lab.up(1))
            url, began = f"ssh://lab1?slots=2&ssh_config={lab.ssh_config}", time.perf_counter()
        import serai  # noqa: PLC0415 - a part of the start-up that is timed

        yield engine_of(stack.enter_context(serai.Pool(url)), began)


if __name__ == "__main__":
    main(serai_pool)
