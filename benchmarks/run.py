"""Serai side by side with its peers: runs studies round by round, and writes tables, figures as JSON, and plots.

    python benchmarks/run.py dispatch [--quick] [--only serai,dask] [--rounds 3] [--out benchmarks/out]

Nothing here is a test: a figure is a fact about a machine on a day, and ratios within one run are what it is for.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
import machine
import report
from catalogue import LEFT_OUT, RATES
from peers.proctree import adopt_orphans
from processes import end_descendants
from studies import (
    appliance,
    cold,
    copying,
    diffusion,
    hosts16,
    jobstarts,
    placements,
    queued,
    rates,
    wordcount,
    workers10,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
GROUPS = {
    "dispatch": ("functions", "commands"),
    "ssh": ("ssh-functions", "ssh-commands"),
    "all": (*RATES, "cold", "hosts16", "queued"),
}


def _named(module: str) -> Callable[[argparse.Namespace], list[dict[str, Any]]]:
    """Return a study whose module is imported when it is asked for: it needs what others do without."""

    def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
        figures: list[dict[str, Any]] = importlib.import_module(f"studies.{module}").study(arguments)
        return figures

    return study


OTHERS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "cold": cold.study,
    "hosts16": hosts16.study,
    "queued": queued.study,
    "wordcount": wordcount.study,
    "copying": copying.study,
    "jobstarts": jobstarts.study,
    "workers10": workers10.study,
    "diffusion": diffusion.study,
    "appliance": appliance.study,
    "decisions": placements.study,
    "mount": _named("mount"),
}


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=[*GROUPS, *RATES, *OTHERS])
    parser.add_argument("--quick", action="store_true", help="fewer tasks: to try the scripts, not to quote")
    parser.add_argument(
        "--only",
        default="",
        help="peers by the beginning of their names: serai,dask; with ; between names that have commas",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, peers interleaved in each (default: 3)")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--date", default=dt.datetime.now(tz=dt.UTC).date().isoformat())
    parser.add_argument("--tasks", type=int, default=2_000_000, help="queued: how many tasks (default: 2,000,000)")
    parser.add_argument("--kill", action="store_true", help="queued: kill -9 in the middle, then `serai resume`")
    parser.add_argument("--megabytes", default="200,1000", help="wordcount: sizes of the text (default: 200,1000)")
    parser.add_argument("--seed", type=int, default=1, help="wordcount: of the text (default: 1)")
    parser.add_argument(
        "--large-mb", type=int, default=1000, help="copying, appliance: size of the large file (default: 1000)"
    )
    parser.add_argument("--small-files", type=int, default=10_000, help="copying: how many (default: 10,000)")
    parser.add_argument("--jobs", type=int, default=100, help="jobstarts: how many (default: 100)")
    parser.add_argument("--files", type=int, default=64, help="diffusion: how many (default: 64)")
    parser.add_argument("--size-mb", type=int, default=50, help="diffusion: of each file (default: 50)")
    parser.add_argument("--reads", type=int, default=20, help="diffusion: of each file (default: 20)")
    parser.add_argument("--what", action="append", help="appliance: only these parts, as `put large`; may be repeated")
    parser.add_argument("--deadline-s", type=float, default=600, help="of one peer in one round (default: 600)")
    return parser.parse_args()


def names_of(asked: list[str]) -> list[str]:
    """Return the names of the studies asked for, each once, in order."""
    names = [name for word in asked for name in GROUPS.get(word, (word,))]
    return list(dict.fromkeys(names))


def main() -> None:
    """Run the studies asked for, and report after each, so that a later failure loses nothing."""
    arguments = read_arguments()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        for name in names_of(arguments.studies):
            facts = machine.facts()
            figures = rates.study(RATES[name], arguments) if name in RATES else OTHERS[name](arguments)
            results = {
                "study": name,
                "date": arguments.date,
                "quick": arguments.quick,
                "rounds": arguments.rounds,
                "machine": facts,
                "left_out": LEFT_OUT if name in GROUPS["dispatch"] else {},
                "figures": figures,
            }
            text = json.dumps(results, indent=1)
            (arguments.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    finally:
        end_descendants()
    print(report.write(arguments.out))
    plot = [str(envs.python_of("report")), str(HERE / "report.py"), "plot", str(arguments.out)]
    subprocess.run(plot, check=True, timeout=arguments.deadline_s)


if __name__ == "__main__":
    main()
