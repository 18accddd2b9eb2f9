"""Parsl's HighThroughputExecutor over laboratory hosts, with its own HTTP staging, or files kept by the tasks."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()  # before the engine's own imports, which are a part of its start-up

import parsl  # noqa: E402 - the clock starts first
from diffusion_asked import Asked, asked, say  # noqa: E402 - the same
from diffusion_work import crc, crc_kept, crc_staged  # noqa: E402 - the same
from parsl.data_provider.files import File  # noqa: E402 - the same
from parsl.data_provider.http import HTTPInTaskStaging  # noqa: E402 - the same
from parsl.executors import HighThroughputExecutor  # noqa: E402 - the same
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD  # noqa: E402 - the same
from parsl.launchers.base import Launcher  # noqa: E402 - the same
from parsl.providers import LocalProvider  # noqa: E402 - the same

POOL = "python3 -m parsl.executors.high_throughput.process_worker_pool"
KEPT = "/tmp/kept"


class OverSsh(Launcher):
    """Starts a pool of workers on each host."""

    def __init__(self, task: Asked) -> None:
        super().__init__(debug=False)
        self.task = task

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:
        """Return the script that starts them."""
        lines = [f"{shlex.join([*self.task.ssh(host), command])} </dev/null &" for host in self.task.hosts]
        return "\n".join([*lines, "wait"])


def main() -> None:
    """Start the executor, give every host its first tasks, and then collect all sums."""
    task = asked()
    executor = HighThroughputExecutor(
        label="bench",
        address=task.address,
        loopback_address="127.0.0.1",
        encrypted=False,
        cores_per_worker=1,
        max_workers_per_node=task.slots,
        storage_access=[HTTPInTaskStaging()],
        working_dir="/tmp/parsl",
        interchange_launch_cmd=[sys.executable, str(Path(sys.executable).with_name("interchange.py"))],
        launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", POOL),
        worker_logdir_root="/tmp",
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1, launcher=OverSsh(task)),
    )
    config = parsl.Config(
        executors=[executor],
        run_dir=f"{task.scratch}/runinfo",
        strategy="none",
        usage_tracking=0,
        initialize_logging=False,
    )
    with parsl.load(config):
        first = parsl.python_app(crc)
        while len(executor.connected_managers()) < len(task.hosts):
            time.sleep(0.05)
        first(b"").result()
        startup_s = time.perf_counter() - BEGAN
        if task.variant == "staging":
            app = parsl.python_app(crc_staged)
            # A name of its own for each task: two tasks on one host would write over each other's file.
            sums = [app(inputs=[File(f"{task.url(file)},{number}")]) for number, file in enumerate(task.order)]
        else:
            app = parsl.python_app(crc_kept)
            sums = [app(task.url(file), KEPT) for file in task.order]
        say(task, [future.result() for future in sums], startup_s)


if __name__ == "__main__":
    main()
