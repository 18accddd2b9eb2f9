"""Dask over laboratory hosts: a task fetches each file, and those that read it depend on it, so they go where it is."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack

BEGAN = time.perf_counter()  # before the engine's own imports, which are a part of its start-up

from diffusion_asked import Asked, asked, say  # noqa: E402 - the clock starts first
from diffusion_work import crc, fetch  # noqa: E402 - the same

START_LIMIT_S = 60


def main() -> None:
    """Start the scheduler here and a worker on each host, and collect all sums."""
    task = asked()
    os.environ["DASK_TEMPORARY_DIRECTORY"] = task.scratch
    import distributed  # noqa: PLC0415 - after the settings

    with (
        ExitStack() as workers,
        distributed.LocalCluster(n_workers=0, host=task.address, dashboard_address=None, protocol="tcp") as cluster,
        distributed.Client(cluster) as client,
    ):
        for host in task.hosts:
            workers.callback(start(task, host, cluster.scheduler_address).terminate)
        client.wait_for_workers(len(task.hosts), timeout=START_LIMIT_S)
        startup_s = time.perf_counter() - BEGAN
        files = {file: client.submit(fetch, task.url(file), pure=False) for file in dict.fromkeys(task.order)}
        sums = client.gather([client.submit(crc, files[file], pure=False) for file in task.order])
        say(task, sums, startup_s)
        client.retire_workers()


def start(task: Asked, host: str, scheduler: str) -> subprocess.Popen[bytes]:
    """Start a host's worker with as many threads as it has slots, and no limit of memory, so that it spills nothing."""
    words = f"python3 -m distributed.cli.dask_worker {scheduler} --nthreads {task.slots} --nworkers 1 --no-nanny"
    words += " --no-dashboard --memory-limit 0 --local-directory /tmp/dask"
    return subprocess.Popen([*task.ssh(host), words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
