"""Figures to rows: medians, minima, maxima, and ratios within one run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

RATES = ("functions", "commands", "ssh-functions", "ssh-commands", "dask-engine")


@dataclass(frozen=True, slots=True)
class Row:
    """One peer's line in a table.

    Attributes:
        values: median, least and most, in the table's unit (tasks/s or seconds); None without a figure.
        ratio: its median over that of the row it is compared with.
        cpu_us: median CPU microseconds per task of the whole process tree.
        startup_s: median seconds until its workers had had their first tasks.
        others: the largest share of the machine that other processes took while it was timed.
    """

    peer: str
    kind: str
    values: tuple[float, float, float] | None
    ratio: float | None
    cpu_us: float | None
    startup_s: float | None
    tasks: int
    others: float | None
    version: str
    note: str


def rows_of(results: dict[str, Any]) -> list[Row]:
    """Return the rows of one study, the best first; those without a figure last."""
    rate = results["study"] in RATES
    by_peer: dict[str, list[dict[str, Any]]] = {}
    for figure in results["figures"]:
        by_peer.setdefault(figure["peer"], []).append(figure)
    middles = {peer: spread(figures, rate=rate)[0] for peer, figures in by_peer.items() if good(figures)}
    peers = [middles[peer] for peer, figures in by_peer.items() if peer in middles and figures[0]["kind"] == "peer"]
    best = max(peers) if rate and peers else None
    cores = results["machine"]["cores"]
    rows = [
        row(figures, middles.get(figures[0].get("against", ""), best), cores, rate=rate) for figures in by_peer.values()
    ]
    return sorted(rows, key=lambda each: (each.values is None, _order(each, rate=rate)))


def _order(row: Row, *, rate: bool) -> float:
    middle = row.values[0] if row.values else 0.0
    return -middle if rate else middle


def good(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures that are no errors."""
    return [figure for figure in figures if "error" not in figure]


def spread(figures: list[dict[str, Any]], *, rate: bool) -> tuple[float, float, float]:
    """Return median, least and most of the rates or of the seconds."""
    taken = good(figures)
    values = [figure["tasks"] / figure["wall_s"] if rate else figure["wall_s"] for figure in taken]
    return median(values), min(values), max(values)


def row(figures: list[dict[str, Any]], base: float | None, cores: int, *, rate: bool) -> Row:
    """Return one peer's row; `base` is the median that it is compared with."""
    taken, last = good(figures), figures[-1]
    notes = [last.get("note", ""), last.get("reduced", "")]
    notes += [f"fails: {figure['error']}" for figure in figures if "error" in figure][:1]
    if any(figure.get("exposed") for figure in taken):
        notes.append("listens beyond loopback")
    values = spread(figures, rate=rate) if taken else None
    return Row(
        peer=last["peer"],
        kind=last["kind"],
        values=values,
        ratio=values[0] / base if values and base else None,
        cpu_us=_middle([1e6 * each["cpu_s"] / each["tasks"] for each in taken if "cpu_s" in each]),
        startup_s=_middle([each["startup_s"] for each in taken if "startup_s" in each]),
        tasks=max((each["tasks"] for each in taken), default=0),
        others=max(
            (each["others_cpu_s"] / each["wall_s"] / cores for each in taken if "others_cpu_s" in each), default=None
        ),
        version=next((each["version"] for each in taken if "version" in each), ""),
        note="; ".join(filter(None, notes)),
    )


def _middle(values: list[float]) -> float | None:
    return median(values) if values else None
