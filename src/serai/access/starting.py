"""Programs that travel, started here or on a host: the porter, and whatever else is spoken to over a stream."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from serai.access.connections import shared
from serai.errors import HostUnreachable, NoPython
from serai.travel.stream import PipeLink, StartFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from serai.access.openssh import Connection, Target
    from serai.travel.boot import Traveller

__all__ = ["start_here", "start_there"]

START_S = 30.0
LOST_S = 0.5  # a session may end this much before its connection is seen to have ended


def start_here(program: Traveller, python: str | None, deliver: Callable[[bytes | None], None]) -> PipeLink:
    """Start a program as a child of this process.

    Args:
        program: what travels.
        python: the interpreter, as text for a shell; None for the one that runs this.
        deliver: takes frames, and None at the end.

    Raises:
        NoPython: it does not start.
    """
    words = [sys.executable] if python is None else shlex.split(python)
    with tempfile.TemporaryFile() as said:

        def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*words, "-u", "-c", program.program()],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                start_new_session=True,  # Ctrl-C is the front end's to act on
            )

        try:
            return PipeLink(start, program.packed(), deliver, START_S)
        except (OSError, StartFailed) as error:
            said.seek(0)
            last = said.read(2000).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise NoPython(f"cannot start {shlex.join(words)}: {last or error}", host="local") from error


def start_there(
    program: Traveller, target: Target, python: str | None, deliver: Callable[[bytes | None], None]
) -> tuple[PipeLink, Connection]:
    """Start a program on a host, over its shared connection, which is returned with it.

    Args:
        program: what travels.
        target: the host.
        python: the interpreter there, as text for its shell; None for ``python3``.
        deliver: takes frames, and None at the end.

    Raises:
        HostUnreachable: the host is not there, or was lost.
        AccessError: it lets nobody in, or the program does not start.
    """
    python = python or "python3"
    words = program.command(python)
    for again in (True, False):
        connection = shared(target)

        def start(theirs: socket.socket, connection: Connection = connection) -> subprocess.Popen[bytes]:
            return connection.session(words, theirs.fileno())

        try:
            return PipeLink(start, program.packed(), deliver, START_S), connection
        except TimeoutError as error:
            raise HostUnreachable(
                f"it took the login and did not start {python} within {START_S:g} s", host=target.host
            ) from error
        except StartFailed as error:
            if again and not connection.alive(grace_s=LOST_S):  # it was ending when it was asked
                continue
            raise connection.session_error(python, error.returncode) from error
        except OSError as error:
            raise HostUnreachable(f"the connection ended: {error}", host=target.host) from error
    raise AssertionError
