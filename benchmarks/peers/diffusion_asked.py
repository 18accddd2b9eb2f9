"""What the study of data diffusion asks of a peer, read from the file that its command line names."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from proctree import adopt_orphans


@dataclass(frozen=True, slots=True)
class Asked:
    """The hosts and the tasks.

    Attributes:
        ssh_config: the laboratory's.
        hosts: by the names in it.
        address: of the front end, as the hosts reach it.
        origin: the URL below which it serves the files.
        order: the file of each task, in the order of the queue.
        packages: where a host has the peer's packages.
        slots: tasks at a time on each host.
        scratch: a folder of this run's own.
        variant: how files come to tasks, in the peer's own words.
    """

    ssh_config: str
    hosts: list[str]
    address: str
    origin: str
    order: list[str]
    packages: str
    slots: int
    scratch: str
    variant: str

    def ssh(self, host: str) -> list[str]:
        """Return the words that run a command on a host with the peer's packages; the command is one more."""
        quiet = ["-o", "BatchMode=yes", "-o", "ControlPath=none"]
        return ["ssh", "-F", self.ssh_config, *quiet, host, f"PYTHONPATH={shlex.quote(self.packages)} exec"]

    def url(self, file: str) -> str:
        """Return where a file is served."""
        return f"{self.origin}/{file}"


def asked() -> Asked:
    """Read what is asked; engines that make themselves daemons stay within reach."""
    adopt_orphans()
    return Asked(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def say(asked: Asked, sums: list[int], startup_s: float) -> None:
    """Write the sums down, one a task in the order of the queue, for the study to compare."""
    lines = [f"{file} {number}\n" for file, number in zip(asked.order, sums, strict=True)]
    Path(asked.scratch, "sums").write_text("".join(lines), encoding="ascii")
    print(json.dumps({"startup_s": startup_s}))
