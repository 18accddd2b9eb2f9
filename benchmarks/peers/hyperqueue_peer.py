"""HyperQueue: a server and two one-core workers inside this process, as its Python package starts them.

The wheel has no `hq` command; its own local cluster is the same server and the same workers, in threads. Functions are
left out: HyperQueue starts a Python interpreter for each, which makes some six of them a second.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from meter import Asked, Engine, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def local_cluster(asked: Asked) -> Iterator[Engine]:
    """Start the server and its two workers."""
    from hyperqueue import Job, LocalCluster  # noqa: PLC0415 - a part of the start-up that is timed
    from hyperqueue.cluster import WorkerConfig  # noqa: PLC0415 - the same

    with LocalCluster(server_dir=str(asked.scratch / "server")) as cluster:
        for _ in range(2):
            cluster.start_worker(WorkerConfig(cores=1))
        client = cluster.client()

        def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
            job = Job(default_workdir=asked.scratch, max_fails=None)
            for at in range(count):
                job.program(list(argv), stdout=f"{asked.scratch}/{at}.out", stderr=f"{asked.scratch}/{at}.err")
            submitted = client.submit(job)
            codes = [0] * count
            if not client.wait_for_jobs([submitted], raise_on_error=False):
                for at, failed in client.get_failed_tasks(submitted).items():
                    told = re.search(r"exit code (\d+)", failed.error)
                    codes[at] = int(told[1]) if told else -1
            client.forget(submitted)
            return [
                (code, (asked.scratch / f"{at}.out").read_bytes(), (asked.scratch / f"{at}.err").read_bytes())
                for at, code in enumerate(codes)
            ]

        yield Engine(version("hyperqueue"), commands=commands)


if __name__ == "__main__":
    main(local_cluster)
