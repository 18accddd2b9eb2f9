"""Make docs/images/live.svg: the live view of a real run on this machine and two hosts of the laboratory. Needs root.

Usage: python tools/picture.py
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from rich.console import Console

from serai.apps.command_run import CommandRun, Request, auto_send
from serai.apps.plan import Plan
from serai.cli.live import Live
from serai.clock import SystemClock
from serai.describe.sources import files
from serai.describe.task import State
from serai.testing.lab import Lab

ROOT = Path(__file__).parent.parent
COMMAND = "python3 examples/survey.py {in} {out:.json}"


def main() -> None:
    """Run it, look when six in ten are done, and again at the end."""
    os.chdir(ROOT)
    library = Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        str(path) for path in library.glob("*/*.py") if "test" not in path.parts[-2] and "lib2to3" not in path.parts
    )
    with Lab.up(2) as lab, tempfile.TemporaryDirectory() as scratch:
        plan = Plan(COMMAND, str(ROOT), out_dir=f"{scratch}/out", keep_dirs=True)
        plan = Plan(COMMAND, str(ROOT), out_dir=f"{scratch}/out", keep_dirs=True, shared=auto_send(plan))
        request = Request(plan, files(paths), ("local:", str(lab.pool_file)))
        running = CommandRun.fresh(request, Path(scratch) / "runs", SystemClock())
        view = Live(running, plan.shared)
        running.start(view.ended)
        console = Console(record=True, width=96, file=sys.stderr, highlight=False, force_terminal=True)
        console.print(
            f"$ serai run '{COMMAND}' --out json --keep-dirs LIBRARY/*/*.py --on local: --on lab.toml", style="bold"
        )
        console.print(f"travels along: {', '.join(plan.shared)}", style="dim")
        shown = False
        while not running.wait(0.1):
            view.refresh()
            if not shown and running.bag.counts[State.DONE] > 0.6 * len(paths):
                shown = True
                console.print(view.picture())
        running.close(finished=True)
        console.save_svg(str(ROOT / "docs/images/live.svg"), title="serai run")


if __name__ == "__main__":
    main()
