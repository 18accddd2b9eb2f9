"""The jobs port: commands on hosts, each of which goes on when the connection, the porter or the front end is gone.

::

    with JobService("ssh://lab1") as service:
        job = service.run_job(Description("make", ("-j4",), working_directory="src"))
        print(job.id)                       # [ssh://lab1]-[k3w0q9z1x7m2]: a later session's `get_job` takes it
        for line in job.stdout:
            ...
        assert job.wait(600).final

Every method that waits has an awaitable twin: ``await job.wait_async(600)``; ``async with`` opens a service.
After SAGA's job package (OGF GFD.90): job service, job, description, states.
"""

from __future__ import annotations

import io
import secrets
from typing import TYPE_CHECKING, Protocol, Self

from serai.access.asynchronous import awaitable
from serai.access.porter_jobs import PorterJobs
from serai.access.registry import mediator
from serai.describe.job import Description, State, Status, split_id, whole_id
from serai.errors import DeadlineExceeded, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Description", "Job", "JobService", "Mediator", "State", "Status", "local_jobs", "ssh_jobs"]

GRACE_S = 5.0


class Mediator(Protocol):
    """What implements jobs for a scheme; named by the scheme's line in `serai.access.registry`.

    Made by a function of ``(url, ssh_config, python)``. Identifiers are the last parts. Methods raise `UsageError` for
    a job that is not there, and `HostUnreachable` when the host is lost.
    """

    def open(self) -> None:
        """Be ready; so that the first job need not wait for a login."""

    def check(self, description: Description) -> None:
        """Raise `UsageError` that names an attribute which cannot be honoured."""

    def start(self, jobs: Sequence[tuple[str, Description, bytes | None]]) -> list[Status]:
        """Start jobs under given identifiers, with what they read; the same identifier twice is one job."""

    def status(self, ids: Sequence[str]) -> list[Status]:
        """What is known of jobs."""

    def every(self) -> list[Status]:
        """What is known of all jobs that this user has there."""

    def wait(self, ids: Sequence[str], timeout_s: float | None, *, first: bool = False) -> list[Status]:
        """Wait for all or for one; returns also when time is over."""

    def signal(self, job: str, number: int, *, main_only: bool) -> None:
        """Signal its processes."""

    def suspend(self, job: str) -> Status:
        """Stop its processes."""

    def resume(self, job: str) -> Status:
        """Let them go on."""

    def cancel(self, ids: Sequence[str], grace_s: float) -> list[Status]:
        """End them with all that they started; no error for those that have ended."""

    def remove(self, ids: Sequence[str]) -> None:
        """Forget jobs that have ended."""

    def read(self, job: str, stream: str, offset: int, *, follow: bool) -> Iterator[bytes]:
        """Yield the bytes of ``stdout`` or ``stderr`` from an offset on, to the job's end or to what there is now."""

    def write(self, job: str, data: bytes | memoryview) -> int:
        """Write all to its standard input."""

    def end_input(self, job: str) -> None:
        """End its standard input."""


def local_jobs(url: Url, ssh_config: str | None = None, python: str | None = None) -> Mediator:
    """Jobs of this machine."""
    if url.host or url.path:
        raise UsageError(f"{url} names more than this machine", hint="write local:")
    return PorterJobs.of(url, ssh_config, python)


def ssh_jobs(url: Url, ssh_config: str | None = None, python: str | None = None) -> Mediator:
    """Jobs of a host."""
    if not url.host:
        raise UsageError(f"{url} names no host", hint="write ssh://HOST")
    return PorterJobs.of(url, ssh_config, python)


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


class Job:
    """A job; made by a `JobService`. Whatever is asked of it is asked of the host, until its state is final.

    Attributes:
        id: ``[URL]-[…]``, as SAGA has it.
        last_id: its last part.
        description: what was asked for; None for a job that another session started.
    """

    def __init__(
        self, mediator: Mediator, url: str, last_id: str, description: Description | None, stdin: bytes | None
    ) -> None:
        self._mediator = mediator
        self._fed = stdin
        self._known: Status | None = None
        self._streams: dict[str, io.BufferedReader] = {}
        self._input: _Input | None = None
        self.id = whole_id(url, last_id)
        self.last_id = last_id
        self.description = description

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def run(self) -> None:
        """Start it; see `JobService.run_job`. Once more it does nothing."""
        self.heed(self._mediator.start([self.order])[0])

    def status(self) -> Status:
        """All that is known of it, in one round trip; none when its state is final.

        Raises:
            UsageError: it was removed.
        """
        known = self._known
        if known is None:
            return Status(self.last_id, State.NEW)
        if not known.state.final:
            known = self.heed(self._mediator.status([self.last_id])[0])
        return known

    @property
    def state(self) -> State:
        """How far it is."""
        return self.status().state

    @property
    def exit_code(self) -> int | None:
        """Its command's exit code: negative for a signal, None when it has not ended or nobody can say."""
        return self.status().exit_code

    def wait(self, timeout_s: float | None = None) -> State:
        """Wait for its end, and return its final state.

        Args:
            timeout_s: seconds; None waits for as long as it takes.

        Raises:
            DeadlineExceeded: it has not ended in time.
        """
        self._need_run()
        if self._known is None or not self._known.state.final:
            self.heed(self._mediator.wait([self.last_id], timeout_s)[0])
        assert self._known is not None  # noqa: S101 - for the reader of types
        if not self._known.state.final:
            raise DeadlineExceeded(f"the job has not ended within {timeout_s:g} s", command=self.id)
        return self._known.state

    def signal(self, number: int, *, main_only: bool = False) -> None:
        """Send a signal to all of its processes.

        Args:
            number: such as ``signal.SIGUSR1``.
            main_only: to its command's process only.

        Raises:
            UsageError: it is not under way.
        """
        self._mediator.signal(self.last_id, int(number), main_only=main_only)

    def suspend(self) -> None:
        """Stop all of its processes.

        Raises:
            UsageError: it is not under way.
        """
        self.heed(self._mediator.suspend(self.last_id))

    def resume(self) -> None:
        """Let its processes go on.

        Raises:
            UsageError: it is not under way.
        """
        self.heed(self._mediator.resume(self.last_id))

    def cancel(self, grace_s: float = GRACE_S) -> None:
        """End it with all that it started; returns when none of that is left.

        When it has ended, what it left behind is ended, and its state stays.

        Args:
            grace_s: seconds from SIGTERM to SIGKILL.
        """
        self.heed(self._mediator.cancel([self.last_id], grace_s)[0])

    def remove(self) -> None:
        """Remove what the host keeps of it; without this that happens a week after its end.

        Raises:
            UsageError: it has not ended.
        """
        self._mediator.remove([self.last_id])

    def read(self, stream: str = "stdout", offset: int = 0, *, follow: bool = False) -> Iterator[bytes]:
        """Yield what it has written to a stream.

        Args:
            stream: ``stdout`` or ``stderr``.
            offset: in bytes.
            follow: go on until it has ended; else what is there now.
        """
        self._need_run()
        return self._mediator.read(self.last_id, stream, offset, follow=follow)

    @property
    def stdout(self) -> io.BufferedReader:
        """Its standard output from the beginning to its end: reading waits for it. It survives a lost connection."""
        return self._stream("stdout")

    @property
    def stderr(self) -> io.BufferedReader:
        """Its standard error, as `stdout`."""
        return self._stream("stderr")

    @property
    def stdin(self) -> io.RawIOBase:
        """Its standard input, when it is interactive: ``write`` waits until the host has handed the bytes over.

        ``close`` ends it. A write fails when the connection is lost, for nobody knows how much of it arrived.
        """
        if self.description is not None and not self.description.interactive:
            raise UsageError("its standard input is not written to", command=self.id, hint="interactive=True")
        if self._input is None:
            self._input = _Input(self._mediator, self.last_id)
        return self._input

    run_async = awaitable(run)
    status_async = awaitable(status)
    wait_async = awaitable(wait)
    signal_async = awaitable(signal)
    suspend_async = awaitable(suspend)
    resume_async = awaitable(resume)
    cancel_async = awaitable(cancel)
    remove_async = awaitable(remove)

    @property
    def order(self) -> tuple[str, Description, bytes | None]:
        """What a mediator is given to start it."""
        if self.description is None:
            raise UsageError("the job was started by another session", command=self.id)
        return self.last_id, self.description, self._fed

    def heed(self, status: Status) -> Status:
        """Take what its mediator said."""
        self._known = status
        if self.description is not None:
            self._fed = None  # it has arrived
        return status

    def _need_run(self) -> None:
        if self._known is None:
            raise UsageError("the job was not run", command=self.id)

    def _stream(self, name: str) -> io.BufferedReader:
        self._need_run()
        if name not in self._streams:
            self._streams[name] = io.BufferedReader(_Output(self.read(name, follow=True)), 1 << 18)
        return self._streams[name]


class _Output(io.RawIOBase):
    """Pieces of bytes as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def readall(self) -> bytes:
        first, self._left = bytes(self._left), memoryview(b"")
        return b"".join((first, *self._pieces))


class _Input(io.RawIOBase):
    """Standard input as something to write to. Only `close` ends it: a job is not told that this was forgotten."""

    def __init__(self, mediator: Mediator, job: str) -> None:
        self._mediator = mediator
        self._job = job

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        if self.closed:
            raise ValueError("the job's standard input was closed")
        return self._mediator.write(self._job, memoryview(data).cast("B"))

    def __del__(self) -> None:
        """Instead of closing: a garbage collector must not wait for a host."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._mediator.end_input(self._job)


_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # none is taken for another


def _new_id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(12))
