"""Sixteen hosts at once against one: bare ssh logins, the limit, and executors that have checked in."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes
from studies.cold import home_in
from studies.rates import PEERS, figures_of

if TYPE_CHECKING:
    import argparse


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring the laboratory up once per round, in a process of its own, and take all its figures there."""
    figures = []
    hosts = 4 if arguments.quick else 16
    for turn in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
            env = home_in(scratch)
            env["PYTHONPATH"] = ":".join(filter(None, [str(PEERS), env.get("PYTHONPATH")]))
            words = [sys.executable, str(PEERS / "serai_hosts.py"), str(hosts)]
            ended = processes.run(words, env=env, cwd=Path(scratch), deadline_s=arguments.deadline_s)
        for figure in figures_of(ended):
            figures.append({"peer": "serai", "kind": "serai", **figure, "round": turn})
            print(f"hosts16, round {turn + 1}: {figure}", file=sys.stderr)
    return figures
