"""Starts programs with a deadline, waits for them with their CPU time, and ends whatever they leave behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from peers.proctree import tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GRACE_S = 10.0
LOOPBACK_UP = ("sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code; negative for a signal.
        wall_s: from its start to its end.
        cpu_s: of itself and of all it waited for.
        stdout: all of it.
        complaint: the last lines of its standard error, or that its deadline has passed.
        strays: how many processes it left behind, which were then ended.
    """

    code: int
    wall_s: float
    cpu_s: float
    stdout: str
    complaint: str
    strays: int


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, deadline_s: float) -> Ended:
    """Run a program to its end or its deadline, and then end all that it left behind."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        started = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            in_time = ends_within(started.pid, deadline_s)
            wall_s = time.perf_counter() - began
            if not in_time:
                started.send_signal(signal.SIGTERM)
                if not ends_within(started.pid, GRACE_S):
                    started.kill()
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        finally:
            strays = end_descendants()
        out.seek(0)
        err.seek(0)
        complaint = "\n".join(err.read().decode(errors="replace").strip().splitlines()[-3:])
        return Ended(
            code=started.returncode,
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            stdout=out.read().decode(errors="replace"),
            complaint=complaint if in_time else f"not ended after {deadline_s:.0f} s; {complaint}",
            strays=strays,
        )


def ends_within(pid: int, wait_s: float) -> bool:
    """Wait until a child has ended, without reaping it; tell whether it did in time."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], wait_s)[0])
    finally:
        os.close(handle)


def end_descendants() -> int:
    """End every process that descends from this one; orphans do too, since they are adopted. Return how many lived."""
    strays: set[int] = set()
    deadline = time.monotonic() + GRACE_S
    while living := _living():
        strays |= set(living)
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        if time.monotonic() > deadline:
            print(f"processes {living} would not end within {GRACE_S:.0f} s", file=sys.stderr)
            break
        time.sleep(0.01)
    _reap()
    return len(strays)


def _living() -> list[int]:
    _reap()
    return [pid for pid, fields in tree().items() if pid != os.getpid() and fields[0] != "Z"]


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return  # none is left


@cache
def alone() -> tuple[str, ...]:
    """Return the words that put a command into a network of its own, with nothing but loopback in it.

    Some engines listen on every address whatever they are told. Empty where this machine does not allow such networks.
    """
    unshare = ("unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--", *LOOPBACK_UP)
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True, timeout=GRACE_S)
    except (OSError, subprocess.SubprocessError) as refused:
        print(f"no network of its own for a peer ({refused}): engines may listen beyond loopback", file=sys.stderr)
        return ()
    return unshare
