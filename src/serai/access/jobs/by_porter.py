"""Jobs of this machine and of ssh hosts, through a porter. What has to be done there is in ``travel/porter``."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from serai.access.connections import target_of
from serai.access.porter import shared_porter
from serai.describe.job import Status
from serai.errors import AccessError, HostUnreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.access.jobs.port import Mediator
    from serai.access.openssh import Target
    from serai.access.porter import Call, Porter
    from serai.describe.job import Description
    from serai.session.url import Url

__all__ = ["PorterJobs", "local_jobs", "ssh_jobs"]

T = TypeVar("T")

HONOURED = frozenset({
    "executable", "arguments", "environment", "working_directory", "input", "output", "error", "interactive",
    "await_children", "wall_time_limit_s", "output_limit_bytes",
})  # fmt: skip
START_S = 120.0
POLL_S = 20.0  # of one wait on the host: short enough that a host which fell silent is noticed
MARGIN_S = 40.0  # for the answer to come
MOST_AT_ONCE = 500  # jobs in one call
MOST_BYTES = 64 << 20  # of inputs in one call


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


class PorterJobs:
    """See `serai.access.jobs.Mediator`.

    Args:
        target: the host; None for this machine.
        python: the interpreter there, as text for its shell.
    """

    def __init__(self, target: Target | None, python: str | None = None) -> None:
        self._target = target
        self._python = python
        self._name = "local" if target is None else "ssh"

    @classmethod
    def of(cls, url: Url, ssh_config: str | None, python: str | None) -> PorterJobs:
        """For a URL ``local:`` or ``ssh://…``."""
        options = url.options(frozenset({"python"}))
        target = None if url.scheme == "local" else target_of(url, os.environ, ssh_config)
        return cls(target, python or options.get("python"))

    def open(self) -> None:
        """Log in and start what is needed there."""
        self._again(lambda porter: porter.call("who"))

    def check(self, description: Description) -> None:
        """Refuse what cannot be honoured."""
        description.refuse_others(HONOURED, f"{self._name}:")

    def start(self, jobs: Sequence[tuple[str, Description, bytes | None]]) -> list[Status]:
        """Start jobs under identifiers that nobody else has; started twice, it is one."""
        calls = [(_orders(batch), b"".join(fed or b"" for _, _, fed in batch)) for batch in _batches(jobs)]

        def ask(porter: Porter) -> list[Status]:
            asked = [porter.submit("jobs.start", {"jobs": orders}, body) for orders, body in calls]
            return [status for call in asked for status in _statuses(call.result(START_S)[0])]

        return self._again(ask)

    def status(self, ids: Sequence[str]) -> list[Status]:
        """What is known of jobs."""
        return self._ask("jobs.status", ids=list(ids))

    def every(self) -> list[Status]:
        """What is known of all jobs of the host."""
        return self._ask("jobs.list")

    def wait(self, ids: Sequence[str], timeout_s: float | None, *, first: bool = False) -> list[Status]:
        """Wait until all have ended, or one; returns what is known then, or when time is over."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = POLL_S if until is None else min(POLL_S, max(0.0, until - time.monotonic()))
            found = self._ask("jobs.wait", left, ids=list(ids), any=first, deadline_s=left)
            ended = [status.state.final for status in found]
            if (any(ended) if first else all(ended)) or (until is not None and time.monotonic() >= until):
                return found

    def signal(self, job: str, number: int, *, main_only: bool) -> None:
        """Signal a job. Not repeated when the connection is lost: it may have arrived."""
        self._porter().call("jobs.signal", {"id": job, "number": number, "main": main_only})

    def suspend(self, job: str) -> Status:
        """Stop all processes of a job."""
        return self._ask("jobs.suspend", id=job)[0]

    def resume(self, job: str) -> Status:
        """Let them go on."""
        return self._ask("jobs.resume", id=job)[0]

    def cancel(self, ids: Sequence[str], grace_s: float) -> list[Status]:
        """End jobs with all that they started."""
        return self._ask("jobs.cancel", grace_s, ids=list(ids), grace_s=grace_s)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove what is kept of jobs that have ended."""
        self._again(lambda porter: porter.call("jobs.remove", {"ids": list(ids)}))

    def read(self, job: str, stream: str, offset: int, *, follow: bool) -> Iterator[bytes]:
        """Yield what a job wrote to a stream from an offset on: to its end, or what there is now."""
        lost = False
        while True:
            call: Call | None = None
            try:
                ended = not follow
                call = self._porter().submit("jobs.read", {"id": job, "stream": stream, "offset": offset})
                for piece in call.pieces():
                    offset += len(piece)
                    lost = False
                    yield piece
                ended = ended or Status.from_host(call.result()[0]["job"]).state.final
                while not ended:
                    waiting = {"ids": [job], "stream": stream, "offset": offset, "deadline_s": POLL_S}
                    head, data = self._porter().call("jobs.wait", waiting, deadline_s=POLL_S + MARGIN_S)
                    lost = False
                    if data:
                        offset += len(data)
                        yield data
                        break  # there may be much more
                    ended = _statuses(head)[0].state.final
                if ended:
                    return
            except HostUnreachable:
                if lost:
                    raise
                lost = True
            finally:
                if call is not None:
                    call.let_go()  # a generator may be ended by the garbage collector

    def write(self, job: str, data: bytes | memoryview) -> int:
        """Write to a job's standard input; returns when the host has handed all over.

        Not repeated when the connection is lost: nobody knows how much arrived.
        """
        call = self._porter().submit("jobs.write", {"id": job})
        with contextlib.suppress(AccessError):  # it ended before it had taken all: `result` says why
            call.write(data, deadline_s=float("inf"))
            call.finish()
        head, _ = call.result(float("inf"))
        return int(head["bytes"])

    def end_input(self, job: str) -> None:
        """End a job's standard input."""
        self._again(lambda porter: porter.call("jobs.end_input", {"id": job}))

    def _porter(self) -> Porter:
        return shared_porter(self._target, "jobs", self._python)

    def _ask(self, do: str, longest_s: float = 0.0, **head: Any) -> list[Status]:
        return self._again(lambda porter: _statuses(porter.call(do, head, deadline_s=longest_s + MARGIN_S)[0]))

    def _again(self, ask: Callable[[Porter], T]) -> T:
        """Ask; once more with a new porter when the connection was lost. For what may be asked twice."""
        try:
            return ask(self._porter())
        except HostUnreachable:
            return ask(self._porter())


def _statuses(head: dict[str, Any]) -> list[Status]:
    return [Status.from_host(facts) for facts in head["jobs"]]


def _batches(
    jobs: Sequence[tuple[str, Description, bytes | None]],
) -> list[list[tuple[str, Description, bytes | None]]]:
    batches: list[list[tuple[str, Description, bytes | None]]] = [[]]
    size = 0
    for job in jobs:
        fed = len(job[2] or b"")
        if fed > MOST_BYTES:
            raise UsageError(f"an input of {fed} bytes cannot be sent with the job", hint="write it to Job.stdin")
        if len(batches[-1]) == MOST_AT_ONCE or size + fed > MOST_BYTES:
            batches.append([])
            size = 0
        size += fed
        batches[-1].append(job)
    return batches


def _orders(jobs: Sequence[tuple[str, Description, bytes | None]]) -> list[dict[str, Any]]:
    return [
        {
            "id": job,
            "argv": [one.executable, *one.arguments],
            "environment": dict(one.environment),
            "cwd": one.working_directory,
            "input": one.input,
            "output": one.output,
            "error": one.error,
            "interactive": one.interactive,
            "await_children": one.await_children,
            "limit_s": one.wall_time_limit_s,
            "output_limit": one.output_limit_bytes,
            "fed": None if fed is None else len(fed),
        }
        for job, one, fed in jobs
    ]
