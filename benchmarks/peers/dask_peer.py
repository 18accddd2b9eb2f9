"""Dask distributed: two worker processes of one thread each; variant `tuned` or `default`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main
from workload import command, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TUNED = {
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


@contextmanager
def dask(asked: Asked) -> Iterator[Engine]:
    """Start a local cluster; its settings go by the environment, so that the workers have them too."""
    if asked.variant == "tuned":
        os.environ |= TUNED
    os.environ["DASK_TEMPORARY_DIRECTORY"] = str(asked.scratch)
    import distributed  # noqa: PLC0415 - after the settings

    loopback = "127.0.0.1:0"
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=loopback,
            worker_dashboard_address=loopback,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        # A hash of each call, by which Dask would find equal ones again, is of no use here.
        options = {"pure": False} if asked.variant == "tuned" else {}

        def functions(count: int) -> list[int]:
            return client.gather([client.submit(same, number, **options) for number in range(count)])

        def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
            return client.gather([client.submit(command, argv, pure=False) for _ in range(count)])

        yield Engine(distributed.__version__, functions, commands, address=cluster.scheduler_address)


if __name__ == "__main__":
    main(dask)
