"""Serai's job service over ssh."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs_timing import main

from serai.access.jobs import JobService
from serai.describe.job import Description, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.access.jobs import Job

DEADLINE_S = 60
TRUE = Description(executable="/bin/true")


class Jobs:
    """Starts jobs; the one place that knows Serai's words."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    def start(self) -> Job:
        """Start one."""
        return self.service.run_job(TRUE)

    def start_all(self, count: int) -> list[Job]:
        """Start all with one call."""
        return self.service.run_jobs([TRUE] * count)

    def finish(self, jobs: list[Job]) -> int:
        """Wait for all."""
        return sum(job.state is State.DONE for job in self.service.wait_jobs(jobs, DEADLINE_S))


@contextmanager
def opened(host: str) -> Iterator[Jobs]:
    """Open the service."""
    with JobService(f"ssh://{host}") as service:
        yield Jobs(service)


if __name__ == "__main__":
    main(opened)
