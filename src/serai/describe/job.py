"""Jobs as values: what is to be run (`Description`), how far it is (`State`), and what is known of it (`Status`).

Names and states are SAGA's (OGF GFD.90, job package), in Python's spelling.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_VARIABLE = re.compile(r"[^=\0]+")
_WHOLE_ID = re.compile(r"\[(?P<url>.*)\]-\[(?P<last>[^\[\]]*)\]", re.DOTALL)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class State(enum.Enum):
    """How far a job is. DONE, FAILED and CANCELED are final."""

    NEW = "NEW"  # not started yet
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    DONE = "DONE"  # its command ended with exit code 0
    FAILED = "FAILED"  # it ended otherwise, or could not be started
    CANCELED = "CANCELED"  # it was ended by `cancel`

    @property
    def final(self) -> bool:
        """Whether nothing changes any more."""
        return self in {State.DONE, State.FAILED, State.CANCELED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a job runs. Paths are the host's; relative ones start in the working directory.

    Attributes:
        executable: a program, found on the host's PATH when it has no slash.
        arguments: handed over as they are: no shell looks at them.
        environment: variables over those of the login.
        working_directory: relative to the home directory; None for that itself. It is not made.
        input: a file to read; None for nothing to read, or for `Job.stdin` when the job is interactive.
        output: a file to write; None to keep it with the job, where `Job.stdout` reads it either way.
        error: the same for standard error; may be the same file as ``output``.
        interactive: standard input is what is written to `Job.stdin`.
        await_children: the job ends when all that it started has ended, not when its command has.
        output_limit_bytes: how much is kept of each stream that no file is named for; what it prints beyond that is
            thrown away. None keeps all, for as long as the disk has room.
        wall_time_limit_s: the job is ended after so many seconds.
        total_cpu_count: processors, of a batch system.
        number_of_processes: of an MPI program, say; of a batch system.
        processes_per_host: of a batch system.
        total_physical_memory_bytes: of a batch system.
        candidate_hosts: of a batch system.
        queue: of a batch system.
        project: the account that pays, of a batch system.
    """

    executable: str = field(kw_only=False)
    arguments: tuple[str, ...] = field(default=(), kw_only=False)
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    working_directory: str | None = None
    input: str | None = None
    output: str | None = None
    error: str | None = None
    interactive: bool = False
    await_children: bool = False
    output_limit_bytes: int | None = None
    wall_time_limit_s: float | None = None
    total_cpu_count: int | None = None
    number_of_processes: int | None = None
    processes_per_host: int | None = None
    total_physical_memory_bytes: int | None = None
    candidate_hosts: tuple[str, ...] = ()
    queue: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        words: object = self.arguments
        if isinstance(words, str):
            raise UsageError("arguments is one text, where a sequence of texts is needed", hint="arguments=(…,)")
        object.__setattr__(self, "arguments", tuple(map(str, self.arguments)))
        object.__setattr__(self, "environment", {name: str(value) for name, value in self.environment.items()})
        if not self.executable:
            raise UsageError("executable: a job needs one")
        if self.interactive and self.input is not None:
            raise UsageError("interactive and input: standard input is either written to or read from a file")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise UsageError(f"environment: {name!r} cannot name a variable")
        texts = [self.executable, *self.arguments, *self.environment.values()]
        texts += [one for one in (self.working_directory, self.input, self.output, self.error) if one is not None]
        if any("\0" in text for text in texts):
            raise UsageError("no text of a job can hold a zero byte")
        if self.output_limit_bytes is not None and self.output_limit_bytes < 0:
            raise UsageError(f"output_limit_bytes: {self.output_limit_bytes!r} is no number of bytes")
        if self.wall_time_limit_s is not None and not self.wall_time_limit_s > 0:
            raise UsageError(f"wall_time_limit_s: {self.wall_time_limit_s!r} is no length of time")

    def refuse_others(self, honoured: Collection[str], who: str) -> None:
        """Refuse what a mediator cannot honour, rather than run it otherwise than it was asked for.

        Args:
            honoured: names of attributes that it does.
            who: what it is called.

        Raises:
            UsageError: an attribute is set that is not among them; it is named.
        """
        plain = Description(self.executable)
        for one in fields(self):
            if one.name not in honoured and getattr(self, one.name) != getattr(plain, one.name):
                raise UsageError(
                    f"{who} cannot honour {one.name}={getattr(self, one.name)!r}",
                    hint="leave it out, or run the job where a batch system takes it",
                )


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a job at a time.

    Attributes:
        id: the last part of its identifier.
        state: how far it is.
        exit_code: of its command; negative for a signal, as in ``subprocess``; None when it has not ended or when
            nobody can say.
        error: one sentence, where it failed otherwise than by its own exit code.
        pid: of its command on the host; None when it was not started.
        created, started, ended: seconds since 1970 by the host's clock; None when that has not come.
        command: the program and its arguments.
        working_directory: where it runs; None for the home directory.
    """

    id: str
    state: State
    exit_code: int | None = None
    error: str | None = None
    pid: int | None = None
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    command: tuple[str, ...] = ()
    working_directory: str | None = None

    @classmethod
    def from_host(cls, facts: Mapping[str, Any]) -> Status:
        """Read what a host said."""
        return cls(
            id=str(facts["id"]),
            state=State(facts["state"]),
            exit_code=facts.get("code"),
            error=facts.get("error"),
            pid=facts.get("pid"),
            created=facts.get("created"),
            started=facts.get("started"),
            ended=facts.get("ended"),
            command=tuple(facts.get("argv") or ()),
            working_directory=facts.get("cwd"),
        )


def whole_id(url: str, last: str) -> str:
    """The identifier of a job as SAGA writes it: ``[ssh://lab1]-[k3w0…]``."""
    return f"[{url}]-[{last}]"


def split_id(text: str) -> tuple[str | None, str]:
    """Take an identifier apart into the URL of its service (None when it is only the last part) and the last part.

    Raises:
        UsageError: it is none.
    """
    match = _WHOLE_ID.fullmatch(text)
    url, last = (match["url"], match["last"]) if match else (None, text)
    if not _ID.fullmatch(last):
        raise UsageError(f"{text!r} is not the identifier of a job", hint="they look like [ssh://lab1]-[k3w0q9]")
    return url, last
