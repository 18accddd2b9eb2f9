"""Processes and sockets in other namespaces, each with a deadline."""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serai.errors import DeadlineExceeded, HostUnreachable, SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CLONE_NEWNET = 0x40000000
POLL_S = 0.005


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and collect what it says.

    Raises:
        DeadlineExceeded: it took longer than `timeout_s` seconds, and was killed.
        SeraiError: with `check`, it ended badly.
    """
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            input=input_text or "",
            timeout=timeout_s,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise DeadlineExceeded(f"no end within {timeout_s:g} s", command=shown) from expired
    if check and done.returncode:
        raise SeraiError(f"exit code {done.returncode}", command=shown, hint=done.stderr[-2000:].strip() or None)
    return done


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str, host: str | None = None) -> None:
    """Poll until the condition holds.

    Raises:
        DeadlineExceeded: it did not hold within `within_s` seconds; `what` says what was waited for.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"{what}: not within {within_s:g} s", host=host)
        time.sleep(POLL_S)


def first_word(started: subprocess.Popen[bytes], *, within_s: float) -> bytes:
    """The three bytes that the process says first, fewer when it ended or the time did; its output is closed."""
    assert started.stdout is not None
    with started.stdout as said:
        ready = select.select([said], [], [], within_s)[0]
        return said.read(3) if ready else b""


def only_child(pid: int) -> int | None:
    """The process's only child, or None while it has none (or is gone)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(children[0]) if len(children) == 1 else None


def name_of(pid: int) -> str:
    """The name of the program that the process runs, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def socket_in(pid: int) -> socket.socket:
    """A TCP socket that belongs to the network of another process; the caller's own network is left as it is."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        # A namespace is a thread's, not a process's: this thread enters, makes the socket, and ends.
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
                made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            finally:
                os.close(namespace)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="lab-socket")
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise HostUnreachable(f"the laboratory's network is gone: {made[0]}") from made[0]
    return made[0]


def greeting(pid: int, address: str, *, timeout_s: float) -> bytes:
    """The first bytes that port 22 of the address says, b"" when it does not answer in time."""
    with socket_in(pid) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect((address, 22))
            return connection.recv(64)
        except OSError:
            return b""
