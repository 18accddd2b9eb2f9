"""What a front end notes about itself in the journal of its run, so that others can tell whether it goes on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# Keys of the facts of a run (`Journal.set_run`).
KIND = "kind"  # what made it: "command" (serai run), "pool"
BEGAN = "began"  # seconds since the epoch
ENDED = "ended"  # the same; null or absent while it runs, and after it was interrupted
COMMAND = "command"  # of serai run: what each task is
ARGV = "argv"  # the command line
ON = "on"  # sites and pool files, as they were named
SITES = "sites"  # the same, of pools
PID = "pid"  # of the front end
PID_STARTED = "pid_started"  # field 22 of /proc/PID/stat: no other process has both; null where there is no /proc
HOST = "host"  # where that process is
TOTAL = "total"  # tasks there will be; null or absent where the front end does not know before it has noted them all
COMPLETE = "complete"  # false until all are noted
STORES = "stores"  # the ads of stores, by name
NEAREST = "nearest"  # the store that was found nearest to each node, by node
TASK = "task"  # what the ad of every task says, such as Owner


def front_end_facts() -> dict[str, Any]:
    """What a run notes about this process when it begins, so that others can tell whether it goes on."""
    return {PID: os.getpid(), PID_STARTED: process_started(os.getpid()) or None, HOST: platform.node(), ENDED: None}


def process_started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since boot; 0 where nobody can tell, None when it is gone."""
    try:
        # The second field is the program's name in parentheses, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return 0
        return 0
    return None if fields[0] in {"Z", "X"} else int(fields[19])
