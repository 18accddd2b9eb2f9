"""Studies whose figures are rates: every peer does the same work, interleaved round by round."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
import processes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from catalogue import Run, Study

PEERS = Path(__file__).resolve().parent.parent / "peers"


def study(study: Study, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a study; a peer that fails leaves a figure with its error, and the others go on."""
    runs = [run for run in study.runs if wanted(run.peer, arguments.only)]
    figures = []
    for turn in range(arguments.rounds):
        for run in runs:
            print(f"{study.name}, round {turn + 1} of {arguments.rounds}: {run.peer} …", end=" ", file=sys.stderr)
            taken = take(run, study, turn, arguments)
            print("; ".join(map(brief, taken)), file=sys.stderr)
            figures += taken
    return figures


def wanted(peer: str, only: str) -> bool:
    """Tell whether `--only` leaves a peer in: beginnings of names, with ``;`` between them where a name has a comma."""
    words = only.split(";" if ";" in only else ",")
    return not only or any(peer.lower().startswith(word.strip().lower()) for word in words if word.strip())


def brief(figure: dict[str, Any]) -> str:
    """Return a figure in a few words."""
    if "error" in figure:
        return f"no figure: {figure['error']}"
    return f"{figure['peer']} {figure['tasks'] / figure['wall_s']:,.0f}/s"


def take(run: Run, study: Study, turn: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run one peer once, and return what it printed."""
    common = {"peer": run.peer, "kind": run.kind, "round": turn, "note": run.note}
    count = run.quick if arguments.quick else run.full
    common["reduced"] = "" if arguments.quick or count >= study.target else f"{count:,} of {study.target:,}"
    try:
        python = envs.python_of(run.env) if run.env else Path(sys.executable)
    except (RuntimeError, OSError) as failed:
        return [{**common, "error": str(failed)}]
    # Unix sockets are made in it, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        words = [str(python), str(PEERS / run.script), study.work, str(count), "--scratch", scratch]
        words += ["--variant", run.variant, "--turn", str(turn)]
        ended = processes.run(
            [*(processes.alone() if run.alone else ()), *words],
            env=environment(python, scratch, own=bool(run.env)),
            cwd=Path(scratch),
            deadline_s=arguments.deadline_s,
        )
    return [{**common, **figure} for figure in figures_of(ended)]


def environment(python: Path, scratch: str, *, own: bool) -> dict[str, str]:
    """Return a peer's environment: its programs first, no settings of this user, no warm bytecode from elsewhere."""
    paths = [str(PEERS)] if own else [str(PEERS), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = dict(os.environ) | {"PYTHONPATH": ":".join(paths), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    if own:
        env |= {"HOME": scratch, "RAY_USAGE_STATS_ENABLED": "0", "PARSL_TRACKING": "false", "DO_NOT_TRACK": "1"}
    return env


def figures_of(ended: processes.Ended) -> Sequence[dict[str, Any]]:
    """Return the figures that a script printed, or the reason why there are none."""
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    if told and ended.code == 0:
        return [{**figure, "strays": ended.strays, "cpu_total_s": ended.cpu_s} for figure in told]
    return [{"error": ended.complaint.splitlines()[-1] if ended.complaint else f"exit code {ended.code}"}]
