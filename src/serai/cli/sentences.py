"""What became of one task and why, in sentences."""

from __future__ import annotations

import json
import textwrap
import time
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause, State
from serai.dispatch.front_end import NEAREST, STORES, TASK
from serai.dispatch.history.moment import RunState, cause_words, gist
from serai.dispatch.ports import PRICES
from serai.errors import SeraiError
from serai.match.explaining import Candidate, needs_in, what_fits, who_can, wishes, would_fit
from serai.match.matching import Matching
from serai.pool.members import Standing
from serai.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.dispatch.history import History
    from serai.dispatch.history.moment import Attempt, Held, NodeSeen, Note, Result, RunNow, TaskNow
    from serai.match.explaining import Fit

MOST_NAMES = 4
MOST_RELAXED = 3
MOST_SENTENCES = 8  # about nodes of one kind
STANDINGS = {
    Standing.CONNECTING: "is being connected to",
    Standing.WAITING: "is not there and will be tried again",
    Standing.GIVEN_UP: "was given up",
    Standing.ENDED: "has ended",
    Standing.RELEASED: "was released",
}


# ---- words


def clean(text: str) -> str:
    """Text of others for a terminal: one that cannot move its cursor, or worse."""
    return "".join(one if one.isprintable() or one == "\n" else " " if one in "\t\r" else "?" for one in text)


def cut(text: str, most: int) -> str:
    """The first line of a text, in at most so many characters."""
    line = clean(text).strip().partition("\n")[0]
    return line if len(line) <= most else line[: max(0, most - 3)] + "..."


def at_time(at: float, now: float) -> str:
    """A time of day, with its date when that is not today's."""
    there, here = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if there[:3] == here[:3] else "%Y-%m-%d %H:%M:%S", there)


def count_of(number: int, word: str) -> str:
    """``1 task``, ``2 tasks``, ``1,000 tasks``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def names(of: Sequence[str], most: int = MOST_NAMES) -> str:
    """``a, b and c``; from some number on ``a, b, c and 9 more``."""
    if len(of) == 1:
        return of[0]
    if len(of) > most + 1:
        return f"{', '.join(of[:most])} and {len(of) - most} more"
    return f"{', '.join(of[:-1])} and {of[-1]}" if of else "nothing"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``11th``."""
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def item_words(item: Any) -> str:
    """What is a task's own: its input files, its line, or its columns."""
    if item is None or isinstance(item, str):
        return item or ""
    if isinstance(item, dict):
        parts = [*map(str, item.get("in") or ())]
        columns = item.get("columns") or {}
        parts += [f"{key}={value}" for key, value in columns.items()]
        if item.get("line") is not None and not columns:
            parts.append(str(item["line"]))
        return ", ".join(parts)
    if isinstance(item, list) and all(isinstance(one, str) for one in item):
        return ", ".join(item)
    return json.dumps(item, ensure_ascii=False)


def run_words(run: RunNow, now: float) -> str:
    """How a run stands, and since when."""
    began = at_time(run.began, now)
    if run.state is RunState.RUNNING:
        return f"running since {began} ({format_seconds(max(0, now - run.began))})"
    took = format_seconds(max(0.0, run.until(now) - run.began))
    if run.state is RunState.FINISHED:
        return f"finished at {at_time(run.until(now), now)}; it took {took}"
    return f"interrupted; began at {began}, last heard of at {at_time(run.heard_at, now)}"


# ---- a task


def explain(history: History, task: TaskNow) -> list[str]:
    """Say why a task is where it is, or why it is nowhere; paragraphs, the first of which names it."""
    run, now = history.run, history.now
    own = cut(item_words(task.item), 300)
    named = f"Task {task.number} of run {run.name}"
    told = [named + (f": {clean(task.what)}" if task.what else "") + (f", with {own}" if own else "") + "."]
    told += [attempt_words(number, attempt, now) for number, attempt in enumerate(task.attempts, 1)]
    if task.result is not None:
        told += _ended(history, task, task.result)
    elif not run.alive:
        told.append(_left_over(run, now))
    elif task.places:
        for place in task.places:
            told += _placed(history, task, place)
    else:
        told += _queued(history, task)
    return told + [_noted(note, now) for note in task.notes]


def _noted(note: Note, now: float) -> str:
    """A note, with the lines that it has."""
    at, text = at_time(note.at, now), clean(note.text).strip()
    if text.startswith(PRICES):
        lines = textwrap.indent(text.removeprefix(PRICES), "    ")
        return f"At {at}, its inputs were thought to cost until they could be read:\n{lines}"
    return f"At {at}: {text.removesuffix('.')}."


def attempt_words(number: int, attempt: Attempt, now: float) -> str:
    """How an attempt ended that was followed by another."""
    where = f" on {attempt.node}" if attempt.node else ""
    why = gist(attempt.cause, None, attempt.text, b"")
    if attempt.cause == Cause.EXIT:  # the code of an attempt that was tried again is not kept
        why = cut(attempt.text, 300) or "an exit code other than 0"
    return f"Attempt {number}{where} ended badly at {at_time(attempt.at, now)}: {clean(why)}."


def failed_header(task: TaskNow) -> str:
    """A failed task in one line: where, and why."""
    if task.result is None:
        return f"task {task.number}"
    tail = next((stream.tail() for stream in task.streams if stream.which == 1), b"")
    why = cut(gist(task.result.cause, task.result.exit_code, task.detail, tail), 200)
    where = f" on {task.result.node}" if task.result.node else ""
    return f"task {task.number}{where}, after {format_seconds(task.result.took_s)}: {why}"


def _ended(history: History, task: TaskNow, result: Result) -> list[str]:
    run, now = history.run, history.now
    where = f" on {result.node}" if result.node else ""
    where += f", lane {result.lane}" if result.node and result.lane >= 0 else ""
    began, took = at_time(result.started, now), format_seconds(result.took_s)
    ran = f"It began at {began} and took {took}"
    if result.peak_bytes:
        ran += f", with at most {format_bytes(result.peak_bytes)} of memory"
    if result.state is State.CANCELLED:
        return [f"It was cancelled at {began}{where}."]
    told = [f"It ended well{where}. {ran}."] if result.state is State.DONE else []
    if result.state is State.FAILED:
        tail = next((stream.tail() for stream in task.streams if stream.which == 1), b"")
        why = clean(gist(result.cause, result.exit_code, task.detail, tail))
        if result.cause == Cause.NEEDS:  # which node, and why, follows
            why = why.partition(":")[0]
        kind = "" if result.cause == Cause.EXIT else f" ({cause_words(result.cause)})"
        told.append(f"It failed{where}{kind}: {why}." + (f" {ran}." if result.lane >= 0 else f" That was at {began}."))
    if task.attempts:
        told.append(f"That was attempt {len(task.attempts) + 1}.")
    if result.cause == Cause.NEEDS:
        told += _who_runs_it(history, task)
    if result.state is State.FAILED and "\n" in task.detail.strip():
        told.append("What was said about it:\n" + textwrap.indent(clean(task.detail.strip()), "    "))
    outputs = _outputs(task) if result.state is State.DONE else []
    if outputs:
        told.append(f"It wrote {names([clean(one) for one in outputs], 20)}.")
    return [*told, _printed(task, run)]


def _outputs(task: TaskNow) -> list[str]:
    """Where its outputs are; none where the journal does not say."""
    from serai.apps.plan import Plan, decode  # noqa: PLC0415 - only commands have outputs

    try:
        plan = Plan.from_description(task.description)
        item = decode(task.item)
        placed = [plan.places().output_path(item, one, task.number) for one in plan.template().outputs]
        return placed + [plan.places().named_output(item, one) for one in item.outputs]
    except (SeraiError, KeyError, TypeError, AttributeError):  # of another version, or a function
        return []


def _printed(task: TaskNow, run: RunNow) -> str:
    parts = []
    for stream in task.streams:
        size = "an unknown amount (its file is gone)" if stream.size is None else format_bytes(stream.size)
        parts.append(f"{size} on standard {('output', 'error')[stream.which]}")
    if not parts:
        return "It printed nothing."
    return f"It printed {names(parts)}: serai logs {run.name}:{task.number}"


def _left_over(run: RunNow, now: float) -> str:
    when = at_time(run.until(now), now)
    word = "ended" if run.state is RunState.FINISHED else "was interrupted"
    again = f" until serai resume {run.name}" if run.kind == "command" else ""
    return f"It had not ended when the run {word} at {when}: nothing will happen to it{again}."


def _placed(history: History, task: TaskNow, place: Held) -> list[str]:
    now = history.now
    node = next((one for one in history.nodes if one.name == place.node), None)
    waiting = format_seconds(max(0.0, now - place.at))
    doing = {lane: (number, took) for lane, number, took in node.doing} if node else {}
    current = doing.get(place.lane)
    late = max(0.0, now - node.beat_at) if node is not None and node.beat_at else 0.0
    if current and current[0] == task.number:
        ran = current[1] + late
        told = [f"It runs on {place.node}, lane {place.lane}, since {at_time(now - ran, now)} ({format_seconds(ran)})."]
    else:
        bundle = f", as the {ordinal(place.position)} of a bundle of {place.size}" if place.size > 1 else ""
        told = [f"It was sent to {place.node}, lane {place.lane}{bundle}, {waiting} ago."]
        if current:
            for_s = format_seconds(current[1] + late)
            told.append(f"That lane runs task {current[0]}, for {for_s} now.")
        elif not place.ahead:
            told.append("It is next there, or has just begun.")
        if place.ahead:
            verb = "has" if place.ahead == 1 else "have"
            told.append(f"{count_of(place.ahead, 'task')} before it in the bundle {verb} not ended.")
    if node is not None and node.up and node.beat_at and late > 10:
        told.append(f"{node.name} said nothing for {format_seconds(late)}.")
    if node is not None and not node.up:
        told.append(_absent([node.name], node, now))
    return told


def _queued(history: History, task: TaskNow) -> list[str]:
    told = []
    if task.before:
        turn = ""
        if history.pace.per_s > 0:
            turn = f"; at the pace of late its turn comes in about {format_seconds(task.before / history.pace.per_s)}"
        told.append(f"It is queued behind {count_of(task.before, 'other task')}{turn}.")
    else:
        told.append("It is queued, on no node, with no other task before it.")
    if task.attempts:
        told.append(_next_attempt(task.attempts, task.description, history.now))
    return told + _who_runs_it(history, task)


def _next_attempt(attempts: Sequence[Attempt], description: Mapping[str, Any], now: float) -> str:
    retry = description.get("retry") or {}
    blamed = attempts[-1].cause in {Cause.NODE_LOST, Cause.EXECUTOR, Cause.INPUT, Cause.OUTPUT}
    if blamed or "first_s" not in retry:
        return f"Attempt {len(attempts) + 1} comes when it is its turn."
    most = min(float(retry.get("most_s", 60.0)), float(retry["first_s"]) * 2.0 ** min(len(attempts) - 1, 60))
    latest = attempts[-1].at + most
    if latest <= now:
        return f"Attempt {len(attempts) + 1} comes when it is its turn: the wait before it is over."
    return (
        f"Attempt {len(attempts) + 1} of at most {int(retry.get('times', 0)) + 1} may begin between "
        f"{at_time(latest - most / 2, now)} and {at_time(latest, now)}."
    )


def _who_runs_it(history: History, task: TaskNow) -> list[str]:
    needs = needs_in(task.description)
    there = [node for node in history.nodes if node.up]
    matching = _matching(history)
    fit = who_can(
        needs, [Candidate(node.name, node.ad, node.slots, node.memory_bytes) for node in there], matching, history.now
    )
    told = []
    if fit.able:
        able = [node for node in there if node.name in fit.able]
        slots, busy, held = (sum(values) for values in zip(*((n.slots, n.busy, n.held) for n in able), strict=True))
        told.append(
            f"{names(fit.able)} can run it: {busy} of {count_of(slots, 'slot')} {'is' if busy == 1 else 'are'} in use, "
            f"and {count_of(held, 'task')} {'is' if held == 1 else 'are'} there now."
        )
    told += [
        f"Whether {names(nodes)} {'has' if len(nodes) == 1 else 'have'} {programs} is being asked."
        for programs, nodes in _grouped((node, names(programs)) for node, programs in fit.unsure)
    ]
    told += [f"{names(nodes)} cannot run it: {reason}." for reason, nodes in _grouped(fit.unable)]
    told += _apart(fit, matching, history.now)
    if not fit.able and not fit.unsure:
        least = what_fits(needs)
        told.append("No node that is there can run it" + (f". One with {least} would." if least and there else "."))
    gone = [node for node in history.nodes if not node.up]
    by_name = {node.name: node for node in gone}
    reasons = _grouped((node.name, f"{node.state} {node.why.removeprefix(f'{node.name}: ')}") for node in gone)
    return told + [_absent(nodes, by_name[nodes[0]], history.now) for _, nodes in reasons]


def _matching(history: History) -> Matching:
    """What answers for expressions, with what this run knew."""
    known = history.discovered
    matching = Matching(
        known[TASK], known[STORES], moment=lambda now: datetime.fromtimestamp(now, UTC).astimezone(), patience_s=inf
    )
    matching.put_stores({}, known[NEAREST])
    return matching


def _apart(fit: Fit, matching: Matching, now: float) -> list[str]:
    """Which clauses keep a task and nodes apart, and what would fit."""
    if not fit.refused:
        return []
    told = []
    for wish in wishes(fit, matching.ads(now))[:MOST_SENTENCES]:
        rejected = [f"is false on {names(wish.false)}"] if wish.false else []
        if wish.lacking:
            rejected.append(f"{names(wish.lacking)} {'does' if len(wish.lacking) == 1 else 'do'} not say what that is")
        if wish.of == "node":
            who = names([*wish.false, *wish.lacking])
            verb = "requires of its" if len(wish.false) + len(wish.lacking) == 1 else "require of their"
            told.append(
                clean(f"{who} {verb} tasks {wish.clause}" + (f", and {wish.instead}." if wish.instead else "."))
            )
        else:
            words = f"It requires {wish.clause}, which {' and '.join(rejected)}" if wish.false else (
                f"It requires {wish.clause}, and {rejected[0]}"
            )  # fmt: skip
            told.append(clean(words + (f"; {wish.instead}." if wish.instead else ".")))
        if wish.by_clock:
            told.append("That goes by the clock: it is looked at again when the hour changes.")
    stores = sorted({store for node, _ in fit.refused if (store := matching.awaited(node, now))})
    if stores:
        told.append(f"No ad of the store {names(stores)} is there: serai nodes --stores lists those that are.")
    for clauses, nodes in would_fit(fit)[:MOST_RELAXED]:
        told.append(clean(f"Without {' and '.join(clauses)}, {names(nodes)} would run it."))
    return told


def _absent(nodes: Sequence[str], node: NodeSeen, now: float) -> str:
    words = STANDINGS.get(node.state, f"is not there ({node.state})")  # type: ignore[call-overload]
    if len(nodes) > 1:
        words = words.replace("is ", "are ", 1).replace("was ", "were ", 1).replace("has ", "have ", 1)
    first, _, rest = clean(node.why).strip().removeprefix(f"{node.name}: ").partition("\n")
    why = f": {first}" if first else ""
    return f"{names(nodes)} {words}, since {at_time(node.since, now)}{why}." + (f"\n{rest}" if rest else "")


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """(reason, nodes) from (node, reason), so that a hundred nodes with one reason are one sentence."""
    found: dict[str, list[str]] = {}
    for node, reason in pairs:
        found.setdefault(reason, []).append(node)
    return list(found.items())[:MOST_SENTENCES]
