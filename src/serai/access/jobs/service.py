"""The jobs of one host: started, found again, waited for, cancelled, many at a time."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Self

from serai.access.asynchronous import awaitable
from serai.access.jobs.job import GRACE_S, Job
from serai.access.registry import mediator
from serai.describe.job import Description, Status, split_id
from serai.errors import DeadlineExceeded, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serai.access.jobs.port import Mediator

__all__ = ["JobService"]


class JobService:
    """Jobs of one host. It holds nothing that must be closed: jobs go on, and connections are shared.

    Args:
        url: ``local:`` or ``ssh://[user@]host[:port]``; ``?python=`` names the interpreter there.
        ssh_config: what ssh is given instead of the user's own file.
        python: the interpreter there, as text for its shell.

    Raises:
        UsageError: nothing has jobs for the URL's scheme.
    """

    def __init__(self, url: str | Url, ssh_config: str | None = None, python: str | None = None) -> None:
        parsed = Url.parse(url) if isinstance(url, str) else url
        self._mediator: Mediator = mediator(parsed.scheme, "jobs")(parsed, ssh_config, python)
        self.url = str(Url(parsed.scheme, parsed.user, parsed.host, parsed.port))

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        await self.open_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        """Log in and be ready; else the first request does.

        Raises:
            AccessError: the host cannot be reached, or has no fitting interpreter.
        """
        self._mediator.open()

    def create_job(self, description: Description | str, stdin: bytes | None = None) -> Job:
        """A job that `Job.run` starts.

        Args:
            description: what is run; a text is for ``/bin/sh -c``.
            stdin: what it reads; at most 64 MB. More is for an interactive job's `Job.stdin`, or a file there.

        Raises:
            UsageError: it asks for what this service cannot honour.
        """
        if isinstance(description, str):
            description = Description("/bin/sh", ("-c", description))
        if stdin is not None and (description.interactive or description.input is not None):
            raise UsageError("stdin: the job is interactive or has an input: it reads from one of them")
        self._mediator.check(description)
        return Job(self._mediator, self.url, _new_id(), description, stdin)

    def run_job(self, description: Description | str, stdin: bytes | None = None) -> Job:
        """Start a job; see `create_job`. A command that cannot be started is a job that FAILED and says why.

        Raises:
            AccessError: the host cannot be reached.
            UsageError: it asks for what this service cannot honour.
        """
        job = self.create_job(description, stdin)
        job.run()
        return job

    def run_jobs(self, descriptions: Iterable[Description | str]) -> list[Job]:
        """Start many jobs at the price of one round trip; see `run_job`."""
        jobs = [self.create_job(one) for one in descriptions]
        for job, status in zip(jobs, self._mediator.start([job.order for job in jobs]), strict=True):
            job.heed(status)
        return jobs

    def get_job(self, job: str) -> Job:
        """A job that any session started.

        Args:
            job: its identifier, whole or the last part.

        Raises:
            UsageError: there is none, or the identifier is another service's.
        """
        return self._known(self._mediator.status([self._last(job)])[0])

    def wait_jobs(self, jobs: Iterable[Job], timeout_s: float | None = None, *, first: bool = False) -> list[Job]:
        """Wait for jobs of this service, and return those that have ended.

        Args:
            jobs: which.
            timeout_s: seconds; None waits for as long as it takes.
            first: return when one has ended, not when all have.

        Raises:
            DeadlineExceeded: that did not come true in time.
        """
        waited = {job.last_id: job for job in jobs}
        statuses = self._mediator.wait(list(waited), timeout_s, first=first) if waited else []
        for status in statuses:
            waited[status.id].heed(status)
        ended = [waited[status.id] for status in statuses if status.state.final]
        if len(ended) < len(waited) and not (first and ended):
            raise DeadlineExceeded(
                f"of {len(waited)} jobs {len(waited) - len(ended)} have not ended within {timeout_s:g} s", host=self.url
            )
        return ended

    def cancel_jobs(self, jobs: Iterable[Job], grace_s: float = GRACE_S) -> None:
        """Cancel many jobs in one go; see `Job.cancel`."""
        chosen = {job.last_id: job for job in jobs}
        for status in self._mediator.cancel(list(chosen), grace_s) if chosen else ():
            chosen[status.id].heed(status)

    def remove_jobs(self, jobs: Iterable[Job]) -> None:
        """Remove many jobs in one go; see `Job.remove`."""
        self._mediator.remove([job.last_id for job in jobs])

    def list(self) -> list[Job]:
        """Every job of this user on the host, of whichever session, the oldest first."""
        found = sorted(self._mediator.every(), key=lambda status: (status.created or 0.0, status.id))
        return [self._known(status) for status in found]

    open_async = awaitable(open)  # noqa: A003 - ours is meant
    run_job_async = awaitable(run_job)
    run_jobs_async = awaitable(run_jobs)
    list_async = awaitable(list)  # noqa: A003 - ours is meant
    get_job_async = awaitable(get_job)
    wait_jobs_async = awaitable(wait_jobs)
    cancel_jobs_async = awaitable(cancel_jobs)
    remove_jobs_async = awaitable(remove_jobs)

    def _last(self, job: str) -> str:
        url, last = split_id(job)
        if url is not None and url != self.url:
            raise UsageError(f"{job} is a job of {url}", host=self.url, hint=f"JobService({url!r}) knows it")
        return last

    def _known(self, status: Status) -> Job:
        job = Job(self._mediator, self.url, status.id, None, None)
        job.heed(status)
        return job


_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # none is taken for another


def _new_id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(12))
