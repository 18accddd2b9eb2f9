"""radical.saga's job service over ssh, the latest of the SAGA implementations; each thread has a service of its own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import radical.saga as rs
from jobs_timing import main

if TYPE_CHECKING:
    from collections.abc import Iterator


class Jobs:
    """Starts jobs through services that are free: one of them does one thing at a time."""

    def __init__(self, services: list[Any]) -> None:
        self.free: SimpleQueue[Any] = SimpleQueue()
        for service in services:
            self.free.put(service)
        self.description = rs.job.Description()
        self.description.executable = "/bin/true"

    def start(self) -> Any:
        """Start one."""
        service = self.free.get()
        try:
            job = service.create_job(self.description)
            job.run()
        finally:
            self.free.put(service)
        return job

    def finish(self, jobs: list[Any]) -> int:
        """Wait for all, from as many threads: asking is a round trip, too."""
        with ThreadPoolExecutor(self.free.qsize()) as pool:
            return sum(pool.map(done, jobs))


def done(job: Any) -> bool:
    """Wait for one, and tell whether it is done."""
    job.wait()
    return bool(job.state == rs.job.DONE)


@contextmanager
def opened(host: str) -> Iterator[Jobs]:
    """Open as many services as there are threads, all at once."""
    threads = int(sys.argv[3])
    with ThreadPoolExecutor(threads) as pool:
        services = list(pool.map(lambda _: rs.job.Service(f"ssh://{host}/"), range(threads)))
    try:
        yield Jobs(services)
    finally:
        for service in services:
            service.close()


if __name__ == "__main__":
    main(opened)
