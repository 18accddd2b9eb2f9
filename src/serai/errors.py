"""Every error Serai raises, and the facts it carries.

::

    SeraiError
    ├── UsageError              the request itself is wrong: nothing was started
    │   ├── TemplateError       a command's placeholders
    │   └── PoolFileError       a pool file's line
    ├── AccessError             a way into a host
    │   ├── HostUnreachable     no route, refused, no answer in time      (transient)
    │   ├── HostUnknown         there is no host of this name
    │   ├── HostKeyRefused      the host is not the one that is known
    │   ├── LoginRefused        no credential was accepted
    │   └── NoPython            no fitting interpreter on the node
    ├── NodeLost                an executor died, hung or was cut off      (transient)
    ├── NoNodeLeft              the pool has no usable node
    ├── TaskFailed              a command ended badly
    │   ├── TimeLimitExceeded   it ran longer than it was allowed
    │   ├── MissingOutput       it ended well without a declared output
    │   ├── TransferFailed      an input or an output did not travel
    │   └── NeedsUnmet          no node can ever run it
    ├── PythonMismatch          a function would meet another minor version
    ├── DeadlineExceeded        a wait reached its limit                   (also TimeoutError)
    ├── JournalError            the journal cannot be read or written
    └── QueueFull               a limit of a queue was reached             (transient)

A sentence says what happened; ``host``, ``command``, ``tried`` and ``hint`` say where, with what, what was done about
it and what the reader can do. Retry policy reads ``transient``, never the sentence.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Self


class SeraiError(Exception):
    """The root of Serai's errors.

    Args:
        what: one sentence, without a full stop at its end.
        host: the host it is about, if there is one.
        command: the command that was run, without secrets.
        tried: what was tried about it, oldest first.
        hint: what the reader can do.
    """

    transient: ClassVar[bool] = False

    def __init__(
        self,
        what: str,
        *,
        host: str | None = None,
        command: str | None = None,
        tried: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.host = host
        self.command = command
        self.tried = tried
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.host}: {self.what}" if self.host else self.what]
        if self.command:
            lines.append(f"  command: {self.command}")
        lines += [f"  tried: {one}" for one in self.tried]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, dict(self.__dict__)))

    @classmethod
    def _bare(cls, what: str, facts: dict[str, object]) -> Self:
        error = cls.__new__(cls)
        Exception.__init__(error, what)
        error.__dict__.update(facts)
        return error


def _rebuild(kind: type[SeraiError], what: str, facts: dict[str, object]) -> SeraiError:
    return kind._bare(what, facts)  # noqa: SLF001 - the other half of __reduce__


class UsageError(SeraiError):
    """The request itself is wrong; nothing was started."""


class TemplateError(UsageError):
    """A command's placeholders do not fit what the task has."""


class PoolFileError(UsageError):
    """A pool file has a mistake; the sentence names the line and the key."""


class AccessError(SeraiError):
    """A way into a host did not work."""


class HostUnreachable(AccessError):
    """No route, a refused connection, or no answer before the deadline."""

    transient = True


class HostUnknown(AccessError):
    """There is no host of this name: trying again does not help."""


class HostKeyRefused(AccessError):
    """The host's key is unknown or has changed; Serai never goes on."""


class LoginRefused(AccessError):
    """The host answered and accepted none of the credentials."""


class NoPython(AccessError):
    """The node has no interpreter the executor can run on."""


class NodeLost(SeraiError):
    """An executor died, fell silent or was cut off."""

    transient = True


class NoNodeLeft(SeraiError):
    """The pool has no node that is usable or may become so."""


class TaskFailed(SeraiError):
    """A task ended badly.

    Attributes:
        task: the task's number in its run, 0 when unknown.
        exit_code: the exit status; negative for a signal, as in ``subprocess``; None when it did not run.
        stderr_tail: the last lines of its standard error.
    """

    task: int = 0
    exit_code: int | None = None
    stderr_tail: str = ""


class TimeLimitExceeded(TaskFailed, TimeoutError):
    """The task ran longer than its time limit and was ended."""


class MissingOutput(TaskFailed):
    """The task ended well but did not leave a declared output."""


class TransferFailed(TaskFailed):
    """An input or an output of the task did not travel."""


class NeedsUnmet(TaskFailed):
    """No node of the pool can ever run the task."""


class PythonMismatch(SeraiError):
    """A function would be unpickled by another minor version of Python than it was pickled by."""


class DeadlineExceeded(SeraiError, TimeoutError):
    """A wait reached its limit."""


class JournalError(SeraiError):
    """The journal cannot be read or written."""


class QueueFull(SeraiError):
    """A limit of a queue was reached."""

    transient = True


_NUMBERS = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}


def errno_of(error: OSError) -> int:
    """The number of an error, by its class where it has none, as file systems of others raise; 0 if nobody knows."""
    return error.errno or next((number for kind, number in _NUMBERS.items() if isinstance(error, kind)), 0)
