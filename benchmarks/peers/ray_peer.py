"""Ray: one node of two CPUs, no dashboard, no usage statistics."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meter import Asked, Engine, main
from workload import command, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def ray_node(asked: Asked) -> Iterator[Engine]:
    """Start a node on loopback."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import ray  # noqa: PLC0415 - after the settings

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=200 << 20,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(asked.scratch),
    )
    remote_same, remote_command = ray.remote(same), ray.remote(command)

    def functions(count: int) -> list[int]:
        return ray.get([remote_same.remote(number) for number in range(count)])

    def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
        return ray.get([remote_command.remote(argv) for _ in range(count)])

    try:
        yield Engine(ray.__version__, functions, commands)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(ray_node)
