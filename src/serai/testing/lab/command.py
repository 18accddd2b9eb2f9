"""`serai lab up`: a laboratory in the foreground."""

from __future__ import annotations

import os
import shlex
import signal
import time
from typing import TYPE_CHECKING

from serai.testing.lab.lab import DISK_BYTES, Lab
from serai.testing.lab.needs import install_requirements

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})


def wait_for_the_end() -> None:
    """Return when the terminal's user says Ctrl-C, or the process is asked to end."""
    signal.sigwait(ENDING)


def lab_up(
    count: int,
    echo: Callable[[str], object],
    *,
    directory: Path | str = "lab",
    prefix: str = "lab",
    disk_bytes: int = DISK_BYTES,
    install: bool = False,
    until: Callable[[], object] = wait_for_the_end,
) -> None:
    """Bring a laboratory up, say how to use it, stay until the end, and take it down.

    Args:
        count: how many hosts.
        echo: prints a line.
        directory: where `lab.toml` (a pool of the hosts), `ssh_config` and the logs are while it is up.
        prefix: the hosts are called by it and a number.
        disk_bytes: the size of each host's disk.
        install: whether missing Debian packages are installed first.
        until: returns when the laboratory is to be taken down.

    Raises:
        UsageError: no laboratory can be had here; the hint says why.
        HostUnreachable: a host does not answer.
    """
    if install:
        for package in install_requirements():
            echo(f"installed {package}")
    began = time.monotonic()
    with Lab.up(count, directory=directory, prefix=prefix, disk_bytes=disk_bytes) as lab:
        # Held back from here on, so that an end that comes early is waited for like any other.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            first, last = lab.hosts[0].name, lab.hosts[-1].name
            echo(f"{count} hosts, {first} to {last}, in {time.monotonic() - began:.1f} s")
            ssh_config, pool_file = (shlex.quote(os.path.relpath(path)) for path in (lab.ssh_config, lab.pool_file))
            echo(f"  log in:    ssh -F {ssh_config} {first}        (or root@{first})")
            echo(f"  run:       serai run --on {pool_file} 'hostname; cat {{in}}' FILE ...")
            echo("  end:       Ctrl-C")
            until()
        finally:
            lab.down()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    echo("the laboratory is gone")
