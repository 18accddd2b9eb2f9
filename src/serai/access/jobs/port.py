"""What a scheme has to have, so that there are jobs for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serai.describe.job import Description, Status

__all__ = ["Mediator"]


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
