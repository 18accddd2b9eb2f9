"""The processes of a job: its command, its process group, and whatever left that.

Where there is /proc (Linux), a job's processes are what is below its keeper, which adopts orphans, and what has the
job's variable in its environment. Elsewhere (macOS) ``ps`` tells what is below the keeper and what is in the
command's group: a process that left the group and whose parent has ended is not found there.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLE = "SERAI_JOB"
PROC = os.path.exists("/proc/self/stat")
Seen = collections.namedtuple("Seen", "state parent group start")  # noqa: PYI024 - typing is slow to import


@functools.lru_cache(maxsize=None)
def boot() -> str:
    """What differs from machine to machine and from start to start of it; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def look(pid: int) -> Seen | None:
    """What a process is; None when there is none."""
    if not PROC:
        return by_ps().get(pid)
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            words = file.read().rpartition(b")")[2].split()
        return Seen(words[0].decode(), int(words[1]), int(words[2]), int(words[19]))
    except (OSError, IndexError, ValueError):
        return None


def is_stopped(pid: int, seen: Seen) -> bool:
    """Whether a process does nothing until it is told to go on.

    One that has called vfork (shells do, and posix_spawn) does not stop while its child has not called exec. Where that
    child was stopped, it cannot go on either, and the signal waits for it.
    """
    if seen.state in "Tt":
        return True
    if seen.state != "D" or not PROC:
        return False
    pending = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(("SigPnd:", "ShdPnd:")):
                pending |= int(line.split()[1], 16)
    return bool(pending >> (signal.SIGSTOP - 1) & 1)


def processes() -> dict[int, Seen]:
    """Every process that can be seen."""
    if not PROC:
        return by_ps()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            seen = look(int(name))
            if seen is not None:
                found[int(name)] = seen
    return found


def by_ps() -> dict[int, Seen]:
    """The same, from ``ps``."""
    words = ["ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart="]
    try:
        said = subprocess.run(words, stdout=subprocess.PIPE, timeout=20, check=True, env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for line in said.stdout.decode("ascii", "replace").splitlines():
        parts = line.split(None, 4)
        if len(parts) == 5:
            start = parts[4].strip()
            found[int(parts[0])] = Seen(parts[3][:1], int(parts[1]), int(parts[2]), start)
    return found


def of_job(job: str, started: Mapping[str, Any]) -> dict[int, Seen]:
    """The processes of a job that are there now, without its keeper.

    Args:
        job: its identifier.
        started: its record of that name: "keeper", "keeper_start", "pid", "start", "boot".
    """
    if not started or started["boot"] != boot():
        return {}
    every = processes()
    below: dict[int, list[int]] = {}
    for pid, seen in every.items():
        below.setdefault(seen.parent, []).append(pid)
    keeper, main = started["keeper"], started["pid"]
    known = {
        pid for pid, start in ((keeper, started["keeper_start"]), (main, started["start"]))
        if pid in every and every[pid].start == start
    }  # fmt: skip
    if main in known or not PROC:
        known.update(pid for pid, seen in every.items() if seen.group == main)
    if PROC:
        mark = ("%s=%s" % (VARIABLE, job)).encode()
        known.update(pid for pid in every if pid not in known and _has(pid, mark))
    stack = list(known)
    while stack:
        for pid in below.get(stack.pop(), ()):
            if pid not in known:
                known.add(pid)
                stack.append(pid)
    known -= {keeper, os.getpid()}
    return {pid: every[pid] for pid in known if every[pid].state not in "ZX"}


def _has(pid: int, mark: bytes) -> bool:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False


def send(pids: Mapping[int, Seen], number: int) -> None:
    """Signal processes, those that have ended or are another user's excepted."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def stop(job: str, started: Mapping[str, Any], deadline_s: float = 5.0) -> None:
    """Stop all of a job; looks again until nothing runs, for it may fork in the meantime."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        running = {pid: seen for pid, seen in of_job(job, started).items() if not is_stopped(pid, seen)}
        if not running:
            return
        send(running, signal.SIGSTOP)
        time.sleep(0.002)  # the kernel needs a moment to stop them


def kill(job: str, started: Mapping[str, Any], deadline_s: float = 10.0) -> bool:
    """End all of a job at once; looks again until nothing is found. Returns whether that came true."""
    until = time.monotonic() + deadline_s
    pause = 0.001
    while time.monotonic() < until:
        found = of_job(job, started)
        if not found:
            return True
        send(found, signal.SIGSTOP)  # so that none forks while the others are ended
        send(found, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.1, pause * 2)
    return not of_job(job, started)
