"""The figures of the studies, as SVG files that are the same for the same results."""

from __future__ import annotations

import os
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from serai.errors import UsageError
from serai.quantity import format_bytes
from serai.sim.studies.published import IDEAL_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.cli.study.tables import CommunitiesReport, DiffusionReport
    from serai.sim.studies.community_world import CommunityOutcome
    from serai.sim.studies.diffusion import Outcome
    from serai.sim.studies.published import Setting

__all__ = ["check", "communities", "diffusion"]

HERE, PUBLISHED, AUTO = "#3b6ea5", "#222222", "#d97706"
LOCAL, PEER, MISSED, QUEUE = "#3b6ea5", "#9cc3e6", "#d97706", "#222222"
PER_MINUTE_S = 60.0


def check() -> None:
    """Say at once when figures cannot be drawn.

    Raises:
        UsageError: matplotlib is not there.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("figures are drawn by matplotlib, which is not here", hint="pip install 'serai[study]'")


def _pyplot() -> Any:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and an extra

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "serai"  # equal results make equal files
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: small files
    mpl.rcParams["font.size"] = 9
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    return plt


def _save(plt: Any, figure: Any, directory: str, name: str) -> None:
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def diffusion(directory: str, report: DiffusionReport) -> None:
    """Draw `diffusion-summary.svg`, `diffusion-timelines.svg` and `diffusion-mixed.svg`."""
    plt = _pyplot()
    _bars(plt, directory, "diffusion-summary.svg", report.runs, published=not report.quick)
    _bars(plt, directory, "diffusion-mixed.svg", report.mixed, published=False)
    chosen = [outcome for setting, outcome in report.runs if setting.published_s or setting.policy == "auto"]
    best = {outcome.policy: outcome for outcome in chosen}  # the last, with the largest cache
    _timelines(plt, directory, list(best.values()))


def _bars(plt: Any, directory: str, name: str, runs: Sequence[tuple[Setting, Outcome]], *, published: bool) -> None:
    figure, panel = plt.subplots(figsize=(7.5, 0.9 + 0.3 * len(runs)), layout="constrained")
    rows = list(reversed(runs))
    times = [outcome.completion_s for _, outcome in rows]
    colours = [AUTO if setting.policy == "auto" else HERE for setting, _ in rows]
    panel.barh(range(len(rows)), times, color=colours, height=0.7)
    for at, (setting, outcome) in enumerate(rows):
        panel.annotate(f" {outcome.completion_s:,.0f} s", (outcome.completion_s, at), va="center", fontsize=8)
        if published and setting.published_s:
            panel.plot([setting.published_s] * 2, [at - 0.42, at + 0.42], color=PUBLISHED, linewidth=2)
    if published:
        panel.plot([], [], color=PUBLISHED, linewidth=2, label="published, as recalled")
    ideal_s = IDEAL_S if published else rows[0][1].ideal_s
    panel.axvline(ideal_s, color="grey", linestyle=":", label="ideal: the last task comes")
    panel.set_yticks(range(len(rows)), [_label(setting) for setting, _ in rows])
    panel.set_xlabel("seconds until the last task ended (simulated)")
    panel.legend(fontsize=8, loc="lower right", frameon=False)
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    _save(plt, figure, directory, name)


def _label(setting: Setting) -> str:
    return str(setting.policy) if setting.policy == "first-available" else (
        f"{setting.policy}, {format_bytes(setting.cache_bytes)}"
    )  # fmt: skip


def _timelines(plt: Any, directory: str, outcomes: Sequence[Outcome]) -> None:
    """For each policy: tasks begun a second by where their file was; how many wait; how many nodes there are."""
    figure, panels = plt.subplots(len(outcomes), 1, figsize=(7.5, 1.55 * len(outcomes)), layout="constrained")
    for panel, outcome in zip(panels, outcomes, strict=True):
        moments = outcome.moments
        minutes = [after.at_s / PER_MINUTE_S for _, after in pairwise(moments)]
        spans = [max(1e-9, after.at_s - before.at_s) for before, after in pairwise(moments)]
        kinds = [
            [getattr(after, kind) / span for (_, after), span in zip(pairwise(moments), spans, strict=True)]
            for kind in ("local", "peer", "missed")
        ]
        panel.stackplot(minutes, kinds, colors=(LOCAL, PEER, MISSED), labels=("here", "from a peer", "missed"))
        panel.set_ylabel("tasks/s")
        panel.set_title(f"{outcome.policy}: {outcome.completion_s:,.0f} s", loc="left", fontsize=9)
        other = panel.twinx()
        other.plot(minutes, [after.queue for _, after in pairwise(moments)], color=QUEUE, linewidth=1)
        other.set_ylabel("waiting")
        nodes = max(moment.nodes for moment in moments)
        full = [after.nodes / nodes * panel.get_ylim()[1] for _, after in pairwise(moments)]
        panel.plot(minutes, full, color="green", linewidth=1, linestyle="--", label=f"nodes, of {nodes}")
        for one in (panel, other):
            one.spines["top"].set_visible(False)
            one.set_ylim(bottom=0)
    panels[0].plot([], [], color=QUEUE, linewidth=1, label="waiting tasks (right)")
    panels[0].legend(fontsize=7, loc="upper right", ncols=5, frameon=False)
    panels[-1].set_xlabel("minutes")
    _save(plt, figure, directory, "diffusion-timelines.svg")


def communities(directory: str, report: CommunitiesReport) -> None:
    """Draw the two figures of the talk, and the completion times of the mixed load."""
    plt = _pyplot()
    _community_bars(plt, directory, "communities-completion.svg", report.runs, efficiency=False)
    _community_bars(plt, directory, "communities-efficiency.svg", report.runs, efficiency=True)
    _community_bars(plt, directory, "communities-mixed.svg", report.mixed, efficiency=False)


def _community_bars(plt: Any, directory: str, name: str, runs: Sequence[CommunityOutcome], *, efficiency: bool) -> None:
    figure, panel = plt.subplots(figsize=(7.5, 0.8 + 0.3 * len(runs)), layout="constrained")
    rows = list(reversed(runs))
    values = [100 * one.cpu_efficiency if efficiency else one.completion_s for one in rows]
    panel.barh(
        range(len(rows)), values, color=[AUTO if one.rule.startswith("auto") else HERE for one in rows], height=0.7
    )
    most = max(values)
    if not efficiency and most > 20 * min(values):
        panel.set_xscale("log")
    for at, value in enumerate(values):
        panel.annotate(f" {value:,.0f} {'%' if efficiency else 's'}", (value, at), va="center", fontsize=8)
    panel.set_yticks(range(len(rows)), [one.rule for one in rows])
    panel.set_xlabel(
        "CPU efficiency: time computing over time on machines (simulated)"
        if efficiency
        else "seconds until the last job ended (simulated)"
    )
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    _save(plt, figure, directory, name)
