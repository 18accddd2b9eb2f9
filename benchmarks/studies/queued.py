"""Millions of queued tasks through the command line: the front end's memory, its rate over time, kill -9 and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes
from peers.proctree import tree
from studies.cold import SERAI, home_in

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

LOOK_S = 1.0  # between two looks at the memory
WINDOW_S = 10.0  # between two looks at the progress, each of which costs a process
STATUS_DEADLINE_S = 60.0
QUICK_TASKS = 20_000
LEAST_RATE = 100  # tasks/s; slower than this and the study gives up
STRAYS_GRACE_S = 30.0


@dataclass(slots=True)
class Watch:
    """What was seen of one front end.

    Attributes:
        peak_rss_bytes: the most memory it had, by the kernel's own high-water mark.
        memory: (seconds, resident bytes).
        progress: (seconds, finished tasks).
    """

    peak_rss_bytes: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    progress: list[tuple[float, int]] = field(default_factory=list)

    def windows(self) -> list[tuple[float, float]]:
        """Return (seconds at its end, tasks/s) for each window between two looks."""
        pairs = zip(self.progress, self.progress[1:], strict=False)
        return [(end, (after - before) / (end - start)) for (start, before), (end, after) in pairs]


def finished(status: dict[str, Any]) -> int:
    """Return how many tasks have ended, by `serai status --json`: the one place that knows its form."""
    tasks = status["counts"]
    return sum(int(tasks.get(state, 0)) for state in ("done", "failed", "cancelled"))


def look(env: dict[str, str], cwd: Path) -> int | None:
    """Ask Serai for its progress; None while it cannot be told yet."""
    words = [SERAI, "status", "--json"]
    told = subprocess.run(words, env=env, cwd=cwd, capture_output=True, check=False, timeout=STATUS_DEADLINE_S)
    try:
        return finished(json.loads(told.stdout))
    except (ValueError, KeyError, TypeError):
        return None


def watch(pid: int, env: dict[str, str], cwd: Path, stop: Callable[[int], bool], deadline_s: float) -> Watch:
    """Look at a running front end until it has ended or `stop` says so of the number of finished tasks.

    Raises:
        TimeoutError: neither happened within the deadline.
    """
    seen, began = Watch(), time.monotonic()
    next_window = WINDOW_S
    while not processes.ends_within(pid, LOOK_S):
        now = time.monotonic() - began
        memory = memory_of(pid)
        seen.peak_rss_bytes = max(seen.peak_rss_bytes, memory.get("VmHWM", 0))
        seen.memory.append((round(now, 2), memory.get("VmRSS", 0)))
        if now >= next_window:
            next_window = now + WINDOW_S
            count = look(env, cwd)
            if count is not None:
                seen.progress.append((round(time.monotonic() - began, 2), count))
                if stop(count):
                    return seen
        if now > deadline_s:
            raise TimeoutError(f"the front end had not ended after {deadline_s:.0f} s; seen last: {seen.progress[-1:]}")
    return seen


def memory_of(pid: int) -> dict[str, int]:
    """Return the memory fields, in bytes, of /proc/<pid>/status; empty when it has just ended."""
    try:
        lines = Path("/proc", str(pid), "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith("Vm"))
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in fields}


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Queue the tasks, watch the front end and, when asked, kill it half way and resume."""
    count = QUICK_TASKS if arguments.quick else arguments.tasks
    common = {"kind": "serai", "round": 0, "tasks": count}
    if not Path(SERAI).exists():
        return [{**common, "peer": "serai run --each", "error": f"no command {SERAI}"}]
    half = count // 2 if arguments.kill else count + 1
    figures = []
    with tempfile.TemporaryDirectory(prefix="sb-", ignore_cleanup_errors=True) as scratch:
        stages = [("serai run --each", [SERAI, "run", "--each", f"1..{count}", "true"], lambda done: done >= half)]
        if arguments.kill:
            stages.append(("serai resume", [SERAI, "resume"], lambda _: False))
        for peer, words, stop in stages:
            figure = stage(words, Path(scratch), stop, deadline_s=60 + count / LEAST_RATE)
            print(f"queued: {peer}: {figure.get('error') or figure['wall_s']}", file=sys.stderr)
            figures.append({**common, "peer": peer, **figure})
            if "error" in figure:
                break
    return figures


def stage(words: list[str], scratch: Path, stop: Callable[[int], bool], *, deadline_s: float) -> dict[str, Any]:
    """Start a front end, watch it, kill it if it has not ended by then, and see what that leaves behind."""
    env = home_in(str(scratch))
    began = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        started = subprocess.Popen(
            words, env=env, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints
        )
        try:
            seen = watch(started.pid, env, scratch, stop, deadline_s)
            killed = not processes.ends_within(started.pid, 0)
            started.kill()
            code, wall_s = started.wait(), time.perf_counter() - began
            strays_s = seconds_until_alone()
            count = look(env, scratch)
        except (TimeoutError, subprocess.TimeoutExpired) as late:
            return {"error": str(late)}
        finally:
            started.kill()
            processes.end_descendants()
        complaints.seek(0)
        if code and not killed:
            said = complaints.read().decode(errors="replace").strip().splitlines()
            return {"error": said[-1] if said else f"exit code {code}"}
    return {
        "wall_s": wall_s,
        "killed": killed,
        "finished": count,
        "strays_s": strays_s,
        "peak_rss_bytes": seen.peak_rss_bytes,
        "memory": seen.memory,
        "progress": seen.progress,
        "windows": seen.windows(),
    }


def seconds_until_alone() -> float | None:
    """Return how long the front end's workers outlived it; None when they were still there after the grace."""
    began = time.monotonic()
    while any(fields[0] != "Z" for pid, fields in tree().items() if pid != os.getpid()):
        if time.monotonic() - began > STRAYS_GRACE_S:
            return None
        time.sleep(0.05)
    return round(time.monotonic() - began, 2)
