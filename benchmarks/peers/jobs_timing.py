"""What each peer's script of job starts has in common: open, start jobs from some threads, wait until all are done."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Service(Protocol):
    """A peer's connection to a host."""

    def start(self) -> Any:
        """Start /bin/true and return what `finish` takes; a peer that cannot start without waiting waits here."""

    def start_all(self, count: int) -> list[Any]:
        """Start so many with one call, where a peer has one."""

    def finish(self, jobs: list[Any]) -> int:
        """Wait until all have ended, and return how many are done: ended, with exit code 0."""


def main(opener: Callable[[str], AbstractContextManager[Service]]) -> None:
    """Run `SCRIPT HOST COUNT THREADS`, and print the seconds: to open, until the last was started, until all were done.

    With no thread, all are started with one call.

    Raises:
        RuntimeError: a job is not done.
    """
    host, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    began = time.perf_counter()
    with opener(host) as service:
        opened = time.perf_counter()
        if threads == 0:
            jobs = service.start_all(count)
        elif threads == 1:
            jobs = [service.start() for _ in range(count)]
        else:
            with ThreadPoolExecutor(threads) as pool:
                jobs = list(pool.map(lambda _: service.start(), range(count)))
        started = time.perf_counter()
        done = service.finish(jobs)
        ended = time.perf_counter()
        if done != count:
            raise RuntimeError(f"{done} of {count} jobs are done")
        print(
            json.dumps({"open_s": opened - began, "started_s": started - opened, "jobs_s": ended - opened}), flush=True
        )
