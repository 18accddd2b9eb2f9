"""Tables of the studies of data and of hosts: word counts, copies, job starts, ten workers, diffusion, servers. Pure.

Figures of one peer in one part of a study (a size, a route, a link) make a line, with medians over the rounds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Figures = Sequence[Mapping[str, Any]]

NO_FIGURE = "no figure"
MANY = 1000  # from here on, a number is shown whole


@dataclass(frozen=True, slots=True)
class Line:
    """One peer's line.

    Attributes:
        part: the part of the study, as a heading.
        main: median, least and most of what the line is ordered by; None without a figure.
        medians: of all numbers.
    """

    part: str
    peer: str
    kind: str
    main: tuple[float, float, float] | None
    medians: dict[str, float] = field(default_factory=dict)
    rounds: int = 0
    note: str = ""


def lines(figures: Figures, part: Callable[[Mapping[str, Any]], str], main: str) -> list[Line]:
    """Return the lines, part by part in the order of the figures; in each the quickest first, those without last."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for figure in figures:
        groups.setdefault((part(figure), figure["peer"]), []).append(figure)
    parts = list(dict.fromkeys(name for name, _ in groups))
    made = [_line(name, peer, group, main) for (name, peer), group in groups.items()]
    return sorted(made, key=lambda line: (parts.index(line.part), line.main is None, line.main or (0.0,)))


def _line(part: str, peer: str, group: Figures, main: str) -> Line:
    good = [figure for figure in group if "error" not in figure]
    notes = [group[-1].get("note", ""), *[f"fails: {figure['error']}" for figure in group if "error" in figure][:1]]
    names = [name for name, value in good[0].items() if isinstance(value, int | float)] if good else []
    medians = {name: median(figure[name] for figure in good if name in figure) for name in names}
    values = [figure[main] for figure in good if main in figure]
    return Line(
        part,
        peer,
        group[0]["kind"],
        (median(values), min(values), max(values)) if values else None,
        medians,
        len(good),
        "; ".join(filter(None, notes)).replace("|", "/").replace("\n", " "),
    )


def _name(line: Line) -> str:
    if line.kind == "serai":
        return f"**{line.peer}**"
    return line.peer if line.kind in {"peer", "published"} else f"{line.peer} ({line.kind})"


def _range(main: tuple[float, float, float], form: str) -> list[str]:
    return [format(main[0], form), f"{main[1]:{form}} to {main[2]:{form}}"]


def _number(line: Line, name: str, form: str) -> str:
    return format(line.medians[name], form) if name in line.medians else ""


def _over(line: Line, base: float | None) -> str:
    """Return how many times as fast as the base a line is."""
    return f"{base / line.main[0]:.2f}" if base and line.main else ""


def _best(every: Sequence[Line], kind: str, peer: str = "") -> float | None:
    taken = [line.main[0] for line in every if line.main and line.kind == kind and line.peer.startswith(peer)]
    return min(taken, default=None)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = "|---|" + "---:|" * (len(head) - 2) + "---|"
    return [f"| {' | '.join(head)} |", marks, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _by_part(every: Sequence[Line]) -> dict[str, list[Line]]:
    parts: dict[str, list[Line]] = {}
    for line in every:
        parts.setdefault(line.part, []).append(line)
    return parts


def _count_lines(figures: Figures) -> list[Line]:
    return lines(figures, lambda figure: f"{figure['bytes'] / 1e6:,.0f} MB", "wall_s")


def wordcount(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each size of the text."""
    text: list[str] = []
    head = ["", "seconds (median)", "least to most", "MB/s", "x best peer", "x limit", "CPU s", "others' CPU", "rounds"]
    for part, every in _by_part(_count_lines(results["figures"])).items():
        best, limit, rows = _best(every, "peer"), _best(every, "limit"), []
        cores = results["machine"]["cores"]
        for line in every:
            if line.main is None:
                rows.append([_name(line), NO_FIGURE, *[""] * (len(head) - 2), line.note])
                continue
            shares = [line.medians["others_cpu_s"] / line.main[0] / cores]
            cells = [_name(line), *_range(line.main, ".2f"), f"{line.medians['bytes'] / 1e6 / line.main[0]:,.0f}"]
            cells += [_over(line, best), _over(line, limit), _number(line, "cpu_s", ".1f"), f"{shares[0]:.0%}"]
            rows.append([*cells, str(line.rounds), line.note])
        words = max((line.medians.get("words", 0) for line in every), default=0)
        distinct = max((line.medians.get("distinct", 0) for line in every), default=0)
        text += [f"**{part}**, {words:,.0f} words, {distinct:,.0f} distinct:", "", *_table([*head, "notes"], rows)]
    return text


def _copy_lines(figures: Figures) -> list[Line]:
    def part(figure: Mapping[str, Any]) -> str:
        what = (
            f"{figure['bytes'] / 1e6:,.0f} MB in one file" if figure["what"] == "big" else f"{figure['files']:,} files"
        )
        return f"{what}, {'from this machine ' * (figure['route'] == 'to a host')}{figure['route']}"

    return lines(figures, part, "wall_s")


def copying(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each route and size."""
    text: list[str] = []
    for part, every in _by_part(_copy_lines(results["figures"])).items():
        files = max((line.medians.get("files", 0) for line in every), default=0)
        head = ["", "seconds (median)", "least to most", "files/s" if files > 1 else "MB/s", "x best scp", "x limit"]
        scp, limit, rows = _best(every, "peer", "scp"), _best(every, "limit"), []
        for line in every:
            if line.main is None:
                rows.append([_name(line), NO_FIGURE, *[""] * (len(head) - 1), line.note])
                continue
            rate = (files if files > 1 else line.medians["bytes"] / 1e6) / line.main[0]
            cells = [_name(line), *_range(line.main, ".2f"), f"{rate:,.0f}", _over(line, scp), _over(line, limit)]
            rows.append([*cells, _number(line, "cpu_s", ".2f"), line.note])
        text += [f"**{part}**:", "", *_table([*head, "CPU s here", "notes"], rows)]
    return text


def _job_lines(figures: Figures) -> list[Line]:
    def part(figure: Mapping[str, Any]) -> str:
        trip = figure["round_trip_ms"]
        return f"round trip of {trip:g} ms" if trip else "plain link"

    return lines(figures, part, "jobs_s")


def jobstarts(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each link."""
    text: list[str] = []
    head = ["", "jobs/s (median)", "least to most", "all started s", "all done s", "opened s", "CPU s here", "notes"]
    for part, every in _by_part(_job_lines(results["figures"])).items():
        rows = []
        for line in every:
            if line.main is None:
                rows.append([_name(line), NO_FIGURE, *[""] * (len(head) - 3), line.note])
                continue
            count, (middle, least, most) = line.medians["jobs"], line.main
            cells = [_name(line), f"{count / middle:,.1f}", f"{count / most:,.1f} to {count / least:,.1f}"]
            cells += [_number(line, "started_s", ".2f"), f"{middle:.2f}", _number(line, "open_s", ".2f")]
            rows.append([*cells, _number(line, "cpu_s", ".2f"), line.note])
        jobs = max((line.medians.get("jobs", 0) for line in every), default=0)
        text += [f"**{jobs:,.0f} jobs, {part}**:", "", *_table(head, rows)]
    return text


def _worker_lines(figures: Figures) -> list[Line]:
    return lines(figures, lambda _: "", "spawn_s")


def workers10(results: Mapping[str, Any]) -> list[str]:
    """Return the table of the ten workers."""
    head = ["", "workers", "first map s", "all at work s", "least to most", "whole s", "share", "notes"]
    rows = []
    for line in _worker_lines(results["figures"]):
        if line.main is None:
            rows.append([_name(line), *[""] * 2, NO_FIGURE, *[""] * 3, line.note])
            continue
        whole = line.medians.get("wall_s")
        cells = [_name(line), _number(line, "workers", ".0f"), _number(line, "first_map_s", ".2f")]
        cells += [*_range(line.main, ".2f"), _number(line, "wall_s", ".2f")]
        rows.append([*cells, f"{line.main[0] / whole:.0%}" if whole else "", line.note])
    return _table(head, rows)


def _diffusion_lines(figures: Figures) -> list[Line]:
    def part(figure: Mapping[str, Any]) -> str:
        what = (
            f"{figure['files']:,} files of {figure['size_bytes'] / 1e6:,.0f} MB" if "files" in figure else "laboratory"
        )
        return f"{what}, {figure['tasks'] / figure['files']:,.0f} tasks each" if "files" in figure else what

    return lines(figures, part, "wall_s")


def diffusion(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each size."""
    text: list[str] = []
    head = ["", "seconds (median)", "least to most", "x blind", "x best peer", "over the links GB", "x the least"]
    head += ["busiest link GB", "CPU of all", "start-up s", "rounds", "notes"]
    for part, every in _by_part(_diffusion_lines(results["figures"])).items():
        blind, best, rows = _best(every, "serai", "serai, blind"), _best(every, "peer"), []
        cores = results["machine"]["cores"]
        for line in every:
            if line.main is None:
                rows.append([_name(line), NO_FIGURE, *[""] * (len(head) - 3), line.note])
                continue
            giga = [f"{line.medians[name] / 1e9:,.2f}" for name in ("link_bytes", "busiest_link_bytes")]
            cells = [_name(line), *_range(line.main, ".1f"), _over(line, blind), _over(line, best), giga[0]]
            cells += [_number(line, "over_least", ".3f"), giga[1]]
            cells += [f"{line.medians['busy_cores'] / cores:.0%}", _number(line, "startup_s", ".1f")]
            rows.append([*cells, str(line.rounds), line.note])
        text += [f"**{part}**:", "", *_table(head, rows)]
    return text


def _served_lines(figures: Figures) -> list[Line]:
    return lines(figures, lambda figure: figure["what"], "wall_s")


def appliance(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each way and size."""
    text: list[str] = []
    for part, every in _by_part(_served_lines(results["figures"])).items():
        files = max((line.medians.get("files", 0) for line in every), default=0)
        head = ["", "seconds (median)", "least to most", "MB/s", "files/s", "x chirp", "x nginx", "CPU s", "notes"]
        chirp, nginx, rows = _best(every, "peer", "chirp"), _best(every, "peer", "nginx"), []
        for line in every:
            if line.main is None:
                rows.append([_name(line), NO_FIGURE, *[""] * (len(head) - 3), line.note])
                continue
            cells = [_name(line), *_range(line.main, ".2f"), f"{line.medians['bytes'] / 1e6 / line.main[0]:,.0f}"]
            cells += [f"{files / line.main[0]:,.0f}", _over(line, chirp), _over(line, nginx)]
            rows.append([*cells, _number(line, "cpu_s", ".2f"), line.note])
        text += [f"**{part}**:", "", *_table(head, rows)]
    return text


def _plain_lines(figures: Figures) -> list[Line]:
    return lines(figures, lambda figure: figure.get("what", ""), "wall_s")


def plain(results: Mapping[str, Any]) -> list[str]:
    """Return a table for each part, with a column for each number that its figures have."""
    text: list[str] = []
    for part, every in _by_part(_plain_lines(results["figures"])).items():
        names = dict.fromkeys(name for line in every for name in line.medians)
        more = [name for name in names if name not in {"round", "wall_s"}]
        head = ["", "seconds (median)", "least to most", *(name.replace("_", " ") for name in more), "notes"]
        rows = []
        for line in every:
            main = [NO_FIGURE, ""] if line.main is None else _range(line.main, ".2f")
            rows.append([_name(line), *main, *(_short(line.medians.get(name)) for name in more), line.note])
        text += [*([f"**{part}**:", ""] if part else []), *_table(head, rows)]
    return text


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= MANY else f"{value:,.3g}"


TABLES = {
    "wordcount": wordcount,
    "copying": copying,
    "jobstarts": jobstarts,
    "workers10": workers10,
    "diffusion": diffusion,
    "appliance": appliance,
    "decisions": plain,
    "mount": plain,
}
LINES = {
    "wordcount": _count_lines,
    "copying": _copy_lines,
    "jobstarts": _job_lines,
    "workers10": _worker_lines,
    "diffusion": _diffusion_lines,
    "appliance": _served_lines,
    "decisions": _plain_lines,
    "mount": _plain_lines,
}


def summary(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a study as plain values."""
    return [asdict(line) for line in LINES[results["study"]](results["figures"])]
