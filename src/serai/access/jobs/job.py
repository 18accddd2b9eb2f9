"""A job of a host: what is asked of it, and what is known of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from serai.access.asynchronous import awaitable
from serai.access.jobs.streams import Input, Output
from serai.describe.job import Description, State, Status, whole_id
from serai.errors import DeadlineExceeded, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.access.jobs.port import Mediator

__all__ = ["GRACE_S", "Job"]

GRACE_S = 5.0  # from SIGTERM to SIGKILL


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
        self._input: Input | None = None
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
            self._input = Input(self._mediator, self.last_id)
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
            self._streams[name] = io.BufferedReader(Output(self.read(name, follow=True)), 1 << 18)
        return self._streams[name]
