"""Tables and plots of what runs have left in a folder.

python benchmarks/report.py tables benchmarks/out                    # markdown, and summary.json
python benchmarks/report.py page benchmarks/out docs/benchmarks.md   # the tables put into the page, the plot beside
benchmarks/.envs/report/bin/python benchmarks/report.py plot benchmarks/out
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asked
import sections
from summary import RATES, Row, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TITLES = {
    "functions": "Functions: no-op, each submitted by itself, all results collected",
    "commands": "Commands: `/bin/true`, with exit code, stdout and stderr of each",
    "ssh-functions": "Functions through one ssh host, against local",
    "ssh-commands": "Commands through one ssh host, against local",
    "dask-engine": "Functions over a Dask cluster: through Serai, and by Dask itself",
    "cold": "A command from nothing (whole process)",
    "hosts16": "Many hosts at once",
    "queued": "Millions of queued tasks",
    "wordcount": "Word count of English-like text, whole processes on two cores",
    "workers10": "Word count by ten workers on ssh hosts, their start included",
    "jobstarts": "Job starts of `/bin/true` on one ssh host, until all are done",
    "diffusion": "Many short tasks over few files, on laboratory hosts with slow links",
    "decisions": "Decisions of the schedule, simulated",
    "appliance": "Put and get over loopback: the appliance, nginx, a Chirp server",
    "mount": "Reads through a mount",
    "copying": "Copies to and between laboratory hosts, whole processes",
}
WIDE = 20
COLOURS = {"serai": "#c2410c", "peer": "#64748b", "limit": "#cbd5e1"}


def load(out: Path) -> list[dict[str, Any]]:
    """Return the results of every study in the folder, in the order of the titles."""
    return [
        json.loads((out / f"{study}.json").read_text(encoding="utf-8"))
        for study in TITLES
        if (out / f"{study}.json").exists()
    ]


def write(out: Path) -> str:
    """Write benchmarks.md and summary.json into the folder; return the text of the former."""
    every = load(out)
    text = "\n".join(section(results) for results in every)
    rows = {results["study"]: rows_in(results) for results in every}
    (out / "benchmarks.md").write_text(text, encoding="utf-8")
    (out / "summary.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return text


def rows_in(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of one study as plain values."""
    if results["study"] in sections.TABLES:
        return sections.summary(results)
    return [asdict(row) for row in rows_of(results)]


def section(results: dict[str, Any]) -> str:
    """Return one study as markdown."""
    facts, study = results["machine"], results["study"]
    quick = " **A quick run: to try the scripts, not to quote.**" if results["quick"] else ""
    where = f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {facts['system']}"
    what = f"Linux {facts['kernel']}, Python {facts['python']}; load before {facts['load_before']}"
    lines = [f"### {TITLES[study]}", "", f"{results['date']}; {where}, {what}.{quick}", ""]
    lines += asked.table(study, results["figures"])
    lines += sections.TABLES.get(study, queued_table if study == "queued" else table)(results)
    lines += [f"\nLeft out: {what}: {why}." for what, why in results["left_out"].items()]
    return "\n".join([*lines, ""])


def table(results: dict[str, Any]) -> list[str]:
    """Return the table of a study of rates or of seconds."""
    rate = results["study"] in RATES
    value, ratio = ("tasks/s", "x best peer") if rate else ("seconds", "ratio")
    head = [
        "",
        f"{value} (median)",
        "least to most",
        ratio,
        "CPU µs/task",
        "start-up s",
        "tasks",
        "others' CPU",
        "notes",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * 7 + "---|"]
    for row in rows_of(results):
        name = f"{row.peer} {row.version}".strip()
        cells = [f"**{name}**" if row.kind == "serai" else f"{name} (limit)" if row.kind == "limit" else name]
        cells += [*values(row, rate=rate), *costs(row), row.note.replace("|", "/").replace("\n", " ")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def values(row: Row, *, rate: bool) -> list[str]:
    """Return the cells with median, range and ratio."""
    if row.values is None:
        return ["no figure", "", ""]
    middle, least, most = (f"{value:,.0f}" if rate else f"{value:.3f}" for value in row.values)
    return [middle, f"{least} to {most}", "" if row.ratio is None else f"{row.ratio:.2f}"]


def costs(row: Row) -> list[str]:
    """Return the cells with CPU, start-up, count and noise."""
    return [
        "" if row.cpu_us is None else f"{row.cpu_us:,.0f}",
        "" if row.startup_s is None else f"{row.startup_s:.2f}",
        f"{row.tasks:,}" if row.tasks else "",
        "" if row.others is None else f"{row.others:.0%}",
    ]


def queued_table(results: dict[str, Any]) -> list[str]:
    """Return the table of the study of queued tasks."""
    head = (
        "| | tasks | wall s | tasks/s | slowest to quickest window | peak RSS MiB | finished | alone after s | notes |"
    )
    lines = [head, "|---|" + "---:|" * 7 + "---|"]
    for figure in results["figures"]:
        name = f"**{figure['peer']}**"
        if "error" in figure:
            lines.append(f"| {name} | {figure['tasks']:,} | | | | | | | fails: {figure['error']} |")
            continue
        rates = [rate for _, rate in figure["windows"]]
        first, last = (figure["progress"][0], figure["progress"][-1]) if figure["progress"] else ((0, 0), (0, 0))
        mean = f"{(last[1] - first[1]) / (last[0] - first[0]):,.0f}" if last[0] > first[0] else ""
        span = f"{min(rates):,.0f} to {max(rates):,.0f}" if rates else ""
        cells = [name, f"{figure['tasks']:,}", f"{figure['wall_s']:.1f}", mean, span]
        cells += [f"{figure['peak_rss_bytes'] / (1 << 20):,.0f}", f"{figure['finished']}", f"{figure['strays_s']}"]
        lines.append("| " + " | ".join([*cells, "killed with -9" if figure["killed"] else ""]) + " |")
    return lines


def page(out: Path, target: Path) -> None:
    """Put the tables between the page's marks; those of studies that the folder lacks stay as they are.

    The plot goes beside the page when it shows everything that the page has.
    """
    before, begin, rest = target.read_text(encoding="utf-8").partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{target} lacks the marks {BEGIN} and {END}")
    write(out)
    new = {TITLES[results["study"]]: section(results) for results in load(out)}
    kept = {title: text for title, text in sections_of(old).items() if title not in new}
    plot, beside = out / "benchmarks.svg", target.with_suffix(".svg")
    if plot.exists() and not kept:
        shutil.copy(plot, beside)
    every = new | kept
    texts = [f"![Serai beside its peers]({beside.name})\n"] if beside.exists() else []
    texts += [
        every[title].strip() + "\n" for title in [*TITLES.values(), *every.keys() - TITLES.values()] if title in every
    ]
    body = "\n".join(texts)
    target.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


def sections_of(body: str) -> dict[str, str]:
    """Return the sections of a page by their titles."""
    texts = [f"### {text}" for text in f"\n{body}".split("\n### ")[1:]]
    return {text.splitlines()[0].removeprefix("### "): text for text in texts}


def plot(out: Path) -> None:
    """Draw one panel per study into benchmarks.png and benchmarks.svg."""
    import matplotlib as mpl  # noqa: PLC0415 - only in the environment of the report

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "serai"  # equal figures make equal files
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    every = [results for results in load(out) if drawable(results)]
    if not every:
        return
    heights = [1.2 + 0.32 * len({figure["peer"] for figure in results["figures"]}) for results in every]
    figure, panels = plt.subplots(
        len(every), 1, figsize=(9, sum(heights) + 0.6), height_ratios=heights, layout="constrained", squeeze=False
    )
    for panel, results in zip(panels[:, 0], every, strict=True):
        if results["study"] == "queued":
            draw_queued(panel, results)
        else:
            draw_rows(panel, results)
        panel.set_title(TITLES[results["study"]].replace("`", ""), loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(out / f"benchmarks.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)


def drawable(results: dict[str, Any]) -> bool:
    """Tell whether a study has any figure to draw."""
    if results["study"] in sections.TABLES:
        return False
    if results["study"] == "queued":
        return any(figure.get("windows") for figure in results["figures"])
    return any(row.values for row in rows_of(results))


def draw_rows(panel: Axes, results: dict[str, Any]) -> None:
    """Draw medians as bars, with whiskers from least to most."""
    rate = results["study"] in RATES
    rows = [(row, row.values) for row in reversed(rows_of(results)) if row.values]
    middles = [values[0] for _, values in rows]
    whiskers = [[values[0] - values[1] for _, values in rows], [values[2] - values[0] for _, values in rows]]
    names = [row.peer for row, _ in rows]
    panel.barh(names, middles, xerr=whiskers, color=[COLOURS[row.kind] for row, _ in rows], height=0.7, capsize=2)
    wide = max(middles) > WIDE * min(middles)  # bars of like lengths are only honest from nought
    if rate and wide:
        panel.set_xscale("log")
    for at, (_, (middle, _, most)) in enumerate(rows):
        panel.annotate(f" {middle:,.0f}" if rate else f" {middle:.3f}", (most, at), va="center", fontsize=8)
    panel.margins(x=0.12)
    scale = "tasks/s, logarithmic" if wide else "tasks/s"
    panel.set_xlabel(f"{scale if rate else 'seconds'}; orange: Serai, dark: peers, light: limits", fontsize=8)
    panel.tick_params(labelsize=8)


def draw_queued(panel: Axes, results: dict[str, Any]) -> None:
    """Draw the rate of each window over time."""
    for figure in results["figures"]:
        if figure.get("windows"):
            panel.step(*zip(*figure["windows"], strict=True), where="pre", label=figure["peer"])
    panel.set_ylim(bottom=0)
    panel.set_xlabel("seconds", fontsize=8)
    panel.set_ylabel("tasks/s", fontsize=8)
    panel.legend(fontsize=8)


def main(words: list[str]) -> None:
    """Do what the command line says."""
    match words:
        case ["tables", out]:
            print(write(Path(out)))
        case ["page", out, target]:
            page(Path(out), Path(target))
        case ["plot", out]:
            plot(Path(out))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
