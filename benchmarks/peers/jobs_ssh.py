"""`ssh HOST /bin/true` over one connection that OpenSSH shares."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs_timing import main

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 60


class Shared:
    """Runs commands over the connection whose socket is ./master (the folder is this run's own)."""

    def __init__(self, host: str) -> None:
        self.host = host

    def start(self) -> int:
        """Run one to its end: a session is all that ssh has."""
        words = ["ssh", "-S", "./master", "-o", "BatchMode=yes", self.host, "/bin/true"]
        return subprocess.run(words, stdin=subprocess.DEVNULL, timeout=DEADLINE_S, check=False).returncode

    def finish(self, jobs: list[int]) -> int:
        """All have ended."""
        return jobs.count(0)


@contextmanager
def opened(host: str) -> Iterator[Shared]:
    """Open the connection, and close it at the end."""
    master = ["ssh", "-S", "./master", "-o", "BatchMode=yes"]
    subprocess.run([*master, "-M", "-f", "-N", host], check=True, timeout=DEADLINE_S, stdout=subprocess.DEVNULL)
    try:
        yield Shared(host)
    finally:
        subprocess.run([*master, "-O", "exit", host], check=False, timeout=DEADLINE_S, capture_output=True)


if __name__ == "__main__":
    main(opened)
