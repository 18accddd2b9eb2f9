"""The CPU time of a program and of all that it ever started, by a control group of its own.

A group counts what nobody waits for, too: some engines ignore the ends of their children, and the kernel then forgets
what these have used.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
EMPTY_WITHIN_S = 10.0


@contextmanager
def account() -> Iterator[tuple[tuple[str, ...], Callable[[], float]]]:
    """Make a group.

    Yields:
        The words that put a command into it, and what tells the CPU seconds used in it. Where no group can be made
        (it takes root), there are no words, and only the time of what has been waited for is told.
    """
    group = _mount() / f"serai-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as refused:
        print(f"no control group ({refused}): CPU times are of what was waited for only", file=sys.stderr)
        before = _waited_for()
        yield (), lambda: _waited_for() - before
        return
    try:
        yield ("sh", "-c", ENTER, str(group)), lambda: _used(group)
    finally:
        _remove(group)


def _mount() -> Path:
    """Return this process's own group of the second kind; another path where there is none."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    at = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), "/sys/fs/cgroup")
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    return Path(at) / own.lstrip("/")


def _used(group: Path) -> float:
    fields = dict(line.split() for line in (group / "cpu.stat").read_text(encoding="ascii").splitlines())
    return int(fields["usage_usec"]) / 1e6


def _waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _remove(group: Path) -> None:
    """Remove a group whose processes have been killed, and may take a moment to go."""
    deadline = time.monotonic() + EMPTY_WITHIN_S
    while True:
        try:
            return group.rmdir()
        except OSError as busy:
            if time.monotonic() > deadline:
                print(f"{group} stays behind: {busy}", file=sys.stderr)
                return None
            time.sleep(0.01)
