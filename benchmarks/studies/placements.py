"""The schedule's rate of placements, by the simulation in decisions.py: each policy in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.rates import wanted

if TYPE_CHECKING:
    import argparse

PROGRAM = Path(__file__).with_name("decisions.py")
STEP = 100_000  # tasks for which decisions.py tells one rate
TASKS, QUICK_TASKS = 1_000_000, 200_000
MOST_S = 1800.0
# What a policy is asked, and how tasks travel: one by one is the dearest case.
RUNS = (
    ("serai, auto", ("--policy", "auto")),
    ("serai, auto, in bundles", ("--policy", "auto", "--bundles")),
    ("serai, good-cache-compute", ("--policy", "good-cache-compute")),
    ("serai, first-available", ("--policy", "first-available")),
)


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Place a million tasks under each policy, round by round."""
    tasks = QUICK_TASKS if arguments.quick else TASKS
    figures = []
    for turn in range(arguments.rounds):
        for peer, words in RUNS:
            if not wanted(peer, arguments.only):
                continue
            what = f"1,000 executors, {tasks:,} tasks, 10,000 files"
            figure: dict[str, Any] = {"peer": peer, "kind": "serai", "what": what, "round": turn}
            figures.append(figure | taken(tasks, words))
            print(f"decisions: {figures[-1]}", file=sys.stderr)
    return figures


def taken(tasks: int, words: tuple[str, ...]) -> dict[str, Any]:
    """Run the simulation once."""
    command = [sys.executable, str(PROGRAM), "--tasks", str(tasks), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=MOST_S, env=os.environ, cwd=PROGRAM.parent
        )
    except subprocess.CalledProcessError as failed:
        return {"error": failed.stderr.strip().splitlines()[-1]}
    except subprocess.TimeoutExpired:
        return {"error": f"not ended after {MOST_S:.0f} s"}
    told = json.loads(done.stdout.splitlines()[-1])
    rates = told["rates"]
    wall_s = sum(STEP / rate for rate in rates)
    return {
        "wall_s": wall_s,
        "placements_s": tasks / wall_s,
        "first_tenth_s": rates[0],
        "last_tenth_s": rates[-1],
        "slowest_s": min(rates),
        "memory_mb": told["memory_mb"],
    }
