"""Runs on a screen, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click import style

from serai.cli.sentences import at_time, clean, count_of, cut, run_words
from serai.dispatch.history.moment import RunState, cause_words
from serai.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.dispatch.history import History
    from serai.dispatch.history.moment import Counts, NodeSeen, Pace, RunNow

WIDTH = 100
BAR = 40
MOST_NODES = 20
MOST_FAILURES = 8
MOST_NOTES = 5
MOST_WHY = 3  # lines about a node that is not there
COLOURS = {RunState.RUNNING: "cyan", RunState.FINISHED: "green", RunState.INTERRUPTED: "yellow"}


# ---- a run


def screen(history: History, width: int = WIDTH) -> list[str]:
    """A run as lines of at most ``width`` characters, with colours."""
    run, now = history.run, history.now
    lines = [f"{style(run.name, bold=True)}  {style(run_words(run, now), fg=COLOURS[run.state])}"]
    if run.command:
        lines.append(f"  {cut(run.command, width - 2)}")
    lines += ["", *_progress(history, width)]
    if history.nodes:
        lines += ["", *_nodes(history, width)]
    if history.failures:
        lines += ["", *_failures(history, width)]
    notes = history.notes(MOST_NOTES)
    if notes:
        lines += ["", style("notes", bold=True)]
        for note in notes:
            who = " ".join(filter(None, (note.node, f"task {note.task}" if note.task else "")))
            said = clean(note.text).removeprefix(f"{note.node}: ")
            lines.append("  " + cut(f"{at_time(note.at, now)}  {who + ': ' if who else ''}{said}", width - 2))
    return lines


def _progress(history: History, width: int) -> list[str]:
    counts, run = history.counts, history.run
    lines = ["  " + counts_words(counts, alive=run.alive)]
    if counts.total:
        share = counts.ended / counts.total
        filled = int(BAR * share)
        lines.append(f"  [{'#' * filled}{'.' * (BAR - filled)}] {int(100 * share):3d}%")
    words = pace_words(history.pace)
    left = history.pace.left_s(counts) if run.alive else None
    if run.alive and counts.ended:
        span = f"in the last {format_seconds(round(history.pace.window_s))}"
        lines.append(f"  {words} {span}" + (f", about {format_seconds(left)} left" if left else ""))
    elif counts.ended:
        lines.append(f"  {words} on average")
    if counts.total is None:
        why = "functions are noted when they are sent" if history.has_functions else "its items are read as they come"
        more = "how many more there will be" if run.alive else "how many more there were"
        lines.append("  " + cut(f"{more} is not known: {why}", width - 2))
    if run.state is RunState.INTERRUPTED and run.kind == "command":
        lines.append(f"  serai resume {run.name} takes it up again")
    return lines


def counts_words(counts: Counts, *, alive: bool) -> str:
    """``412 of 1,000 done, 3 failed, 8 running, 12 assigned, 565 queued``."""
    of = f" of {counts.total:,}" if counts.total is not None else ""
    parts = [style(f"{counts.done:,}{of} done", fg="green" if counts.done else None)]
    if counts.failed:
        parts.append(style(f"{counts.failed:,} failed", fg="red"))
    if counts.cancelled:
        parts.append(f"{counts.cancelled:,} cancelled")
    if not alive:
        return ", ".join([*parts, f"{counts.queued:,} not done"] if counts.queued else parts)
    numbers = ((counts.running, "running"), (counts.assigned, "assigned"), (counts.queued, "queued"))
    return ", ".join([*parts, *(f"{number:,} {word}" for number, word in numbers if number)])


def pace_words(pace: Pace) -> str:
    """``2.1 tasks a second``."""
    units = ((pace.per_s, "a second"), (pace.per_s * 60, "a minute"), (pace.per_s * 3600, "an hour"))
    number, unit = next((one for one in units if one[0] >= 1), units[-1])
    text = f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
    return f"{text} task{'' if text == '1' else 's'} {unit}"


def _nodes(history: History, width: int) -> list[str]:
    alive, now = history.run.alive, history.now
    # Those with trouble first, then those at work.
    ranked = sorted(history.nodes, key=lambda node: (node.up, -node.busy, node.name)) if alive else history.nodes
    shown = ranked[:MOST_NODES]
    rows: list[tuple[str, ...]]
    titles: tuple[str, ...]
    if alive:
        titles = ("node", "state", "busy", "done", "failed", "load", "heard", "now")
        rows = [_living_row(node, now) for node in shown]
    else:
        titles = ("node", "slots", "done", "failed")
        rows = [(cut(node.name, 40), _number(node.slots), _number(node.done), _number(node.failed)) for node in shown]
    table = aligned(titles, rows, right={"busy", "slots", "done", "failed", "load", "heard"}, width=width)
    lines = [style(table[0], bold=True)]
    for node, line in zip(shown, table[1:], strict=True):
        lines.append(line if node.up or not alive else style(line, fg="yellow"))
        if alive and not node.up:
            why = node.why.removeprefix(f"{node.name}: ").splitlines()[:MOST_WHY]
            lines += [f"    {cut(line, width - 4)}" for line in why]
    rest = ranked[MOST_NODES:]
    if rest:
        up = sum(node.up for node in rest)
        there = f", {up} of them up" if alive else ""
        lines.append(f"and {count_of(len(rest), 'more node')}{there}")
    return lines


def _living_row(node: NodeSeen, now: float) -> tuple[str, ...]:
    late = max(0.0, now - node.beat_at) if node.beat_at else 0.0
    doing = ", ".join(f"{task} ({format_seconds(round(took + late))})" for _, task, took in node.doing)
    busy = f"{node.busy} of {node.slots}" if node.slots else ""
    heard = f"{format_seconds(max(1, round(late)))} ago" if node.beat_at else "-"
    load = "-" if node.load is None else f"{node.load:.1f}"
    if not doing and node.held:
        doing = f"holds {count_of(node.held, 'task')}"
    return (cut(node.name, 30), node.state, busy, _number(node.done), _number(node.failed), load, heard, doing)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _failures(history: History, width: int) -> list[str]:
    groups, failed = history.failures, history.counts.failed
    lines = [style("failed", fg="red", bold=True)]
    digits = len(f"{groups[0].count:,}")
    for group in groups[:MOST_FAILURES]:
        more = ", ..." if group.count > len(group.tasks) else ""
        tasks = f"task{'s' if group.count > 1 else ''} {', '.join(map(str, group.tasks))}{more}"
        words = cut(group.message, width - digits - 4)
        line = f"  {group.count:{digits},}  {words}"
        if len(line) + len(tasks) + 4 <= width:
            lines.append(f"{line}  ({tasks})")
        else:
            lines += [line, " " * (digits + 4) + f"({tasks})"]
    rest = failed - sum(group.count for group in groups[:MOST_FAILURES])
    if rest:
        lines.append(f"  and {rest:,} more")
    return lines


def one_line(history: History) -> str:
    """A run in one plain line, for a log: the time of day, the counts, the pace, the time left."""
    counts, run = history.counts, history.run
    line = f"{at_time(history.now, history.now)}  {counts_words(counts, alive=run.alive)}"
    if run.alive and counts.ended:
        left = history.pace.left_s(counts)
        line += f"; {pace_words(history.pace)}" + (f", about {format_seconds(left)} left" if left else "")
    return line if run.alive else f"{line}; {run_words(run, history.now)}"


def as_json(history: History) -> dict[str, Any]:
    """A run as an object; keys are only ever added.

    Times are seconds since the epoch, durations seconds, sizes bytes; null is "not known".

    * ``run``: ``name``, ``directory``, ``state`` (running, finished, interrupted), ``kind``, ``command``, ``began``,
      ``ended`` (null unless finished), ``heard_at`` (last sign of life), ``pid``, ``host``, ``sites``
    * ``now``: when this was looked at
    * ``counts``: ``total`` (null while nobody knows), ``seen``, ``done``, ``failed``,
      ``cancelled``, ``running``, ``assigned``, ``queued`` (at least so many where the total is null)
    * ``rate_per_s`` over the last ``rate_window_s``; ``left_s``
    * ``nodes``: ``name``, ``url``, ``state``, ``since``, ``why``, ``slots``, ``busy``, ``assigned`` (tasks it holds),
      ``done``, ``failed``, ``running`` (``lane``, ``task``, ``for_s`` as of the last word), ``load``,
      ``memory_free_bytes``, ``disk_free_bytes``, ``heard_at``
    * ``failures``: ``cause``, ``message`` (of one of them), ``count``, ``tasks`` (the first few)
    * ``notes``: the last ten: ``at``, ``node``, ``task`` (0 for none), ``text``
    """
    run, counts, pace = history.run, history.counts, history.pace
    return {
        "run": run_json(run),
        "now": history.now,
        "counts": counts_json(counts),
        "rate_per_s": pace.per_s,
        "rate_window_s": pace.window_s,
        "left_s": pace.left_s(counts) if run.alive else None,
        "nodes": [_node_json(node) for node in history.nodes],
        "failures": [
            {"cause": cause_words(one.cause), "message": one.message, "count": one.count, "tasks": list(one.tasks)}
            for one in history.failures
        ],
        "notes": [
            {"at": note.at, "node": note.node, "task": note.task, "text": note.text} for note in history.notes(10)
        ],
    }


def run_json(run: RunNow) -> dict[str, Any]:
    """See `as_json`."""
    return {
        "name": run.name,
        "directory": str(run.directory),
        "state": run.state.value,
        "kind": run.kind,
        "command": run.command,
        "began": run.began,
        "ended": run.ended,
        "heard_at": run.heard_at,
        "pid": run.pid,
        "host": run.host,
        "sites": list(run.sites),
    }


def counts_json(counts: Counts) -> dict[str, Any]:
    """See `as_json`."""
    names = ("total", "seen", "done", "failed", "cancelled", "running", "assigned", "queued")
    return {name: getattr(counts, name) for name in names}


def _node_json(node: NodeSeen) -> dict[str, Any]:
    plain = ("name", "url", "state", "since", "why", "busy", "done", "failed", "load")
    return {name: getattr(node, name) for name in plain} | {
        "slots": node.slots or None,
        "assigned": node.held,
        "running": [{"lane": lane, "task": task, "for_s": took} for lane, task, took in node.doing],
        "memory_free_bytes": node.memory_free_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "heard_at": node.beat_at,
    }


# ---- all runs


def runs_table(runs: Sequence[tuple[RunNow, Counts]], now: float, width: int = WIDTH) -> list[str]:
    """The runs, one line each."""
    rows = []
    for run, counts in runs:
        took = format_seconds(max(0.0, run.until(now) - run.began))
        rows.append((
            run.name, run.state.value, at_time(run.began, now), took, f"{counts.done:,}",
            f"{counts.failed:,}", f"{counts.seen - counts.done - counts.failed:,}", clean(run.command),
        ))  # fmt: skip
    titles = ("run", "state", "began", "took", "done", "failed", "other", "command")
    lines = aligned(titles, rows, right={"took", "done", "failed", "other"}, width=width)
    return [style(lines[0], bold=True), *lines[1:]]


def pruned_words(names: Sequence[str], size: int) -> str:
    """What pruning did."""
    return f"removed {count_of(len(names), 'run')}, {format_bytes(size)}"


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: set[str], width: int) -> list[str]:
    """Lines with columns below each other; the last column is cut to what is left of the width."""
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    lines = []
    for row in table:
        cells = [
            text.rjust(size) if title in right else text.ljust(size)
            for title, text, size in zip(titles, row, widths, strict=True)
        ]
        lines.append(cut_right("  ".join(cells).rstrip(), width))
    return lines


def cut_right(line: str, width: int) -> str:
    """A line in at most so many characters; blanks at its front stay."""
    return line if len(line) <= width else line[: width - 3] + "..."
