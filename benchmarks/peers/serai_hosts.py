"""One host and then many: bare ssh logins in parallel, and a pool of Serai until every host's executor has answered."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from proctree import adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


DEADLINE_S = 120
LOOK_S = 0.005  # the resolution of this figure


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
    """Return the seconds from opening a pool until the executor of each of its hosts has checked in."""
    import serai  # noqa: PLC0415 - before the clock starts, after the logins

    urls = [f"ssh://{host}?slots=1&ssh_config={ssh_config}" for host in hosts]
    began = time.perf_counter()
    with serai.Pool(*urls) as pool:
        while pool.look().nodes < len(hosts):
            if time.perf_counter() - began > DEADLINE_S:
                raise TimeoutError(f"{pool.look().nodes} of {len(hosts)} hosts have checked in after {DEADLINE_S} s")
            time.sleep(LOOK_S)
        return time.perf_counter() - began


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
