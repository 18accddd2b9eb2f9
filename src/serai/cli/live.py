"""The live view of a run on a terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from serai.cli.progress import View, pieces
from serai.quantity import format_seconds

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

    from serai.apps.bag import Outcome
    from serai.apps.command_run import CommandRun
    from serai.dispatch.snapshot import NodeNow

MOST_NODES = 12
RATE_OVER_S = 5.0
STYLES = {
    "up": "green",
    "connecting": "yellow",
    "waiting": "yellow",
    "given up": "red",
    "ended": "dim",
    "released": "dim",
}


class Live(View):
    """A bar, the numbers, and what each node does; what tasks print scrolls by above."""

    def __init__(self, running: CommandRun, sends: tuple[str, ...]) -> None:
        super().__init__(running, sends)
        self._console = Console(stderr=True, highlight=False)
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True)
        self._history: list[tuple[float, int]] = []
        self._same_terminal = sys.stdout.isatty()

    def __enter__(self) -> Self:
        if self.sends:
            self._console.print(f"travels along: {', '.join(self.sends)}", style="dim", markup=False)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._live.stop()

    def one(self, outcome: Outcome) -> None:
        """See `View.one`."""
        for which in (0, 1):
            for data in pieces(outcome, which):
                if which == 0 and not self._same_terminal:
                    sys.stdout.buffer.write(data)
                else:
                    self._above(data)

    def warn(self, words: str) -> None:
        """See `View.warn`."""
        self._console.print(f"serai: {words}", style="yellow", markup=False)

    def _above(self, data: bytes) -> None:
        text = Text.from_ansi(data.decode("utf-8", "replace"))
        self._console.print(text, end="\n", soft_wrap=True)

    def refresh(self) -> None:
        """See `View.refresh`."""
        super().refresh()
        self._live.update(self.picture(), refresh=True)

    def picture(self) -> RenderableType:
        """What is shown now."""
        facts = self.facts()
        ended = facts["done"] + facts["failed"] + facts["cancelled"]
        rate = self._rate(ended)
        head = Table.grid(padding=(0, 1))
        line = Text()
        line.append(f"{facts['done']}", style="bold green")
        line.append(f" of {facts['total']}" if facts["total"] is not None else " so far", style="")
        if facts["failed"]:
            line.append(f"   {facts['failed']} failed", style="bold red")
        line.append(f"   {rate:.0f}/s" if rate >= 10 else f"   {rate:.1f}/s")
        line.append(f"   {format_seconds(round(self.elapsed_s))}", style="dim")
        total = facts["total"]
        if total is not None and rate > 0 and ended < total:
            line.append(f"   {format_seconds(round((total - ended) / rate))} left", style="dim")
        width = min(40, max(10, self._console.width - 60))
        head.add_row(ProgressBar(total=total or None, completed=ended, width=width, pulse=total is None), line)
        return Group(head, self._nodes(self.running.run.dispatcher.nodes_now))

    def _nodes(self, nodes: tuple[NodeNow, ...]) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for node in nodes[:MOST_NODES]:
            style = STYLES.get(node.standing, "")
            if node.standing == "up":
                use = Text("▮" * min(node.busy, 16) + "▯" * min(node.slots - node.busy, 16), style="cyan")
                doing = ", ".join(self._name(task) for task in node.tasks[:3] if task)
                words = Text(doing[: max(20, self._console.width - 50)], style="dim")
            else:
                use = Text("")
                words = Text((node.why.splitlines() or [""])[0][: max(20, self._console.width - 30)], style="dim")
            table.add_row(Text(node.name, style="bold"), Text(node.standing, style=style), use, words)
        if len(nodes) > MOST_NODES:
            up = sum(node.standing == "up" for node in nodes)
            table.add_row(Text(f"… {len(nodes) - MOST_NODES} more", style="dim"), Text(f"{up} up in all"), "", "")
        return table

    def _name(self, task: int) -> str:
        item = self.running.bag.peek(task)
        what = "" if item is None else (item.inputs[0].rpartition("/")[2] if item.inputs else item.line or "")
        return what[:30] or f"task {task}"

    def _rate(self, ended: int) -> float:
        now = self.elapsed_s
        self._history.append((now, ended))
        while len(self._history) > 2 and self._history[0][0] < now - RATE_OVER_S:
            self._history.pop(0)
        first_at, first = self._history[0]
        return (ended - first) / (now - first_at) if now > first_at else 0.0
