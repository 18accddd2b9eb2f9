"""One host and then many: bare ssh logins in parallel, and a pool of Serai until every host's executor has answered."""

from __future__ import annotations

import concurrent.futures as cf
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from proctree import adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import serai

DEADLINE_S = 120
LOOK_S = 0.02  # how long a task holds its slot, so that one quick host does not take all; the resolution of this figure


def logins(ssh_config: str, hosts: Sequence[str], remote: Sequence[str]) -> float:
    """Return the seconds until a command has ended on all hosts, logged in to at once by OpenSSH without a master."""
    options = ("-F", str(ssh_config), "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none")
    began = time.perf_counter()
    started = [subprocess.Popen(["ssh", *options, host, *remote], stdin=subprocess.DEVNULL) for host in hosts]
    codes = [process.wait(DEADLINE_S) for process in started]
    wall_s = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"ssh {remote}: exit codes {codes}")
    return wall_s


def check_in(ssh_config: str, hosts: Sequence[str]) -> float:
    """Return the seconds from opening a pool until each of its hosts has run a task."""
    import serai  # noqa: PLC0415 - before the clock starts, after the logins

    urls = [f"ssh://{host}?slots=1&ssh_config={ssh_config}" for host in hosts]
    began = time.perf_counter()
    with serai.Pool(*urls) as pool:
        await_all(pool, len(hosts))
        return time.perf_counter() - began


def await_all(pool: serai.Pool, hosts: int) -> None:
    """Keep two short tasks per host queued until every host's name has come back."""

    def who() -> str:
        time.sleep(LOOK_S)
        return socket.gethostname()

    names: set[str] = set()
    waiting = {pool.submit(who) for _ in range(2 * hosts)}
    deadline = time.monotonic() + DEADLINE_S
    while len(names) < hosts:
        left = deadline - time.monotonic()
        done, waiting = cf.wait(waiting, timeout=max(0.0, left), return_when=cf.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"{len(names)} of {hosts} hosts answered in {DEADLINE_S} s: {sorted(names)}")
        names |= {future.result() for future in done}
        waiting |= {pool.submit(who) for _ in done}


def figures(count: int) -> Iterator[dict[str, Any]]:
    """Take every figure with one host and with all of them, the first ones after a login that warms the caches."""
    from serai.testing.lab import Lab  # noqa: PLC0415 - so that its absence is a figure's error, not a broken script

    with Lab.up(count) as lab:
        every = [f"lab{number}" for number in range(1, count + 1)]
        logins(lab.ssh_config, every, ["true"])
        for hosts in (every[:1], every):
            for remote in (["true"], ["python3", "-c", "pass"]):
                wall_s = logins(lab.ssh_config, hosts, remote)
                yield {"peer": f"ssh {' '.join(remote)}", "kind": "limit", "hosts": len(hosts), "wall_s": wall_s}
            wall_s = check_in(lab.ssh_config, hosts)
            yield {"peer": "serai, checked in", "kind": "serai", "hosts": len(hosts), "wall_s": wall_s}


if __name__ == "__main__":
    adopt_orphans()
    for line in figures(int(sys.argv[1])):
        what, many = line["peer"], line["hosts"]
        named = {"peer": f"{what}, hosts: {many}", "against": f"{what}, hosts: 1", "tasks": many}
        print(json.dumps({**line, **named}), flush=True)
