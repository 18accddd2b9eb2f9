"""Studies on laboratory hosts: each in a process of its own, where `ssh lab1` works without any option.

That process has its own view of ~/.ssh (ssh asks the user database for the home, not HOME), with the laboratory's
configuration in it, so that ssh, scp, rsync, radical.saga and Serai all find the hosts under their plain names. Each
command measured runs below one more process, which ends whatever the command leaves behind:

    python -m studies.laboratory CWD DEADLINE_S WORDS...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes
from peers.proctree import adopt_orphans
from studies.cold import home_in
from studies.rates import wanted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from serai.testing.lab import Lab

HERE = Path(__file__).resolve().parent
OWN_SSH = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
GRACE_S = 30.0


def study(module: str, words: Sequence[str], arguments: argparse.Namespace, deadline_s: float) -> list[dict[str, Any]]:
    """Run a module of this folder in a process of its own and return the figures that it printed, one JSON line each.

    What it printed before it failed is kept, and a figure with its error is added.
    """
    ssh = Path("~root").expanduser() / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        own = Path(scratch, "ssh")
        own.mkdir(mode=0o700)
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_SSH, "sh", str(own), str(ssh)]
        command = [*inside, sys.executable, "-m", f"studies.{module}", str(own), scratch, *words]
        paths = [str(HERE.parent), str(HERE.parent / "peers"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = home_in(scratch) | {"PYTHONPATH": ":".join(paths)}
        ended = processes.run(command, env=env, cwd=Path(scratch), deadline_s=deadline_s)
    figures = [json.loads(line) for line in ended.stdout.splitlines()]
    if ended.code:
        figures.append({"peer": module, "kind": "serai", "round": 0, "error": ended.complaint or f"code {ended.code}"})
    for figure in figures:
        print(f"{module}: {figure}", file=sys.stderr)
    return [figure for figure in figures if arguments.only == "" or "error" in figure or kept(figure, arguments.only)]


def kept(figure: Mapping[str, Any], only: str) -> bool:
    """Tell whether `--only` leaves a figure in."""
    return wanted(figure["peer"], only)


def say(figure: Mapping[str, Any]) -> None:
    """Print a figure for the process that started this one."""
    print(json.dumps(figure), flush=True)


def let_in(lab: Lab, own_ssh: Path) -> None:
    """Make the hosts reachable under their plain names: from here, and from each other with a forwarded agent."""
    config = f"Include {lab.ssh_config}\n"
    (own_ssh / "config").write_text(config, encoding="utf-8")
    known = (lab.directory / "known_hosts").read_text(encoding="ascii")
    for host in lab.hosts:
        host.run(["sh", "-c", "cat > ~/.ssh/known_hosts"], user=host.user, input_text=known, check=True)


def timed(words: Sequence[str], scratch: Path, deadline_s: float, **more: str) -> dict[str, Any]:
    """Run a command with state of its own, and end what it leaves behind.

    Returns:
        Its wall and CPU seconds (the latter of this side), when it began, and what it printed last; or its error.
    """
    with tempfile.TemporaryDirectory(prefix="t", dir=scratch, ignore_cleanup_errors=True) as own:
        wrapped = [sys.executable, "-m", "studies.laboratory", own, str(deadline_s), *words]
        env = home_in(own) | more
        done = subprocess.run(
            wrapped, env=env, capture_output=True, text=True, check=False, timeout=deadline_s + GRACE_S
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-3:]  # of which those of a traceback's frames are of no use
        lines = [line.strip() for line in said if not line.startswith(" ") or "hint:" in line]
        return {"error": "; ".join(lines) or f"exit code {done.returncode}"}
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Run one command below this process."""
    adopt_orphans()
    cwd, deadline_s, *words = sys.argv[1:]
    began = time.time()
    ended = processes.run(words, env=os.environ, cwd=Path(cwd), deadline_s=float(deadline_s))
    if ended.code:
        sys.exit(ended.complaint or f"exit code {ended.code}")
    print(json.dumps({"wall_s": ended.wall_s, "cpu_s": ended.cpu_s, "began": began, "stdout": ended.stdout[-2000:]}))


if __name__ == "__main__":
    main()
