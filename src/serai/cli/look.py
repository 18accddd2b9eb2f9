"""The commands that look at runs: `status`, `explain`, `logs`, `runs`.

They read the journal and nothing else, so that they tell the same from another terminal, while the run goes on and
after its front end was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from serai.dispatch.history import History
    from serai.dispatch.history.archive import Archive
    from serai.dispatch.history.moment import Counts, RunNow, TaskNow

REFRESH_S = 1.0
LOOK_SHARE = 10  # a look at a very long run may take a while: it is taken no more than this part of the time
WIDTH = 100


def _now() -> float:
    from serai.clock import SystemClock  # noqa: PLC0415 - `serai --help` does without

    return SystemClock().wall()


def _archive() -> Archive:
    from serai.dispatch.history.archive import Archive  # noqa: PLC0415 - `serai --help` does without
    from serai.session.home import runs_directory  # noqa: PLC0415 - the same

    return Archive(runs_directory(os.environ))


def _width() -> int:
    return max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


# ---- status


@click.command()
@click.argument("run", required=False)
@click.option("-w", "--watch", is_flag=True, help="Look again and again until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print an object; with --watch, one a line.")
def status(run: str | None, *, watch: bool, as_json: bool) -> None:
    """Show how a run stands.

    RUN is its name, or how that begins; the newest when none is named.
    """
    from serai.cli import tables  # noqa: PLC0415 - `serai --help` does without

    archive = _archive()
    with archive.open(run, _now()) as history:
        name = history.run.name
        if not watch:
            if as_json:
                click.echo(json.dumps(tables.as_json(history), indent=2))
            else:
                click.echo("\n".join(tables.screen(history, _width())))
            return
    try:
        if as_json:
            _watch(archive, name, lambda history: click.echo(json.dumps(tables.as_json(history))))
        elif sys.stdout.isatty():
            _watch_live(archive, name)
        else:
            _watch(archive, name, _Teller().tell)
    except KeyboardInterrupt:  # how one stops watching; the run goes on
        return


class _Teller:
    """Prints a line when something has changed but the time."""

    def __init__(self) -> None:
        self._last: object = None

    def tell(self, history: History) -> None:
        """Print a line for this moment."""
        from serai.cli import tables  # noqa: PLC0415 - `serai --help` does without

        facts = (history.run.state, history.counts)
        if facts != self._last:
            self._last = facts
            click.echo(tables.one_line(history))


def _watch(
    archive: Archive, name: str, show: Callable[[History], object], wait: Callable[[float], object] = time.sleep
) -> None:
    """Show a run until it has ended."""
    while True:
        began = time.monotonic()
        with archive.open(name, _now()) as history:
            show(history)
            alive = history.run.alive
        if not alive:
            return
        wait(max(REFRESH_S, LOOK_SHARE * (time.monotonic() - began)))


def _watch_live(archive: Archive, name: str) -> None:
    from rich.live import Live  # noqa: PLC0415 - slow to import, and only this needs it
    from rich.text import Text  # noqa: PLC0415 - the same

    from serai.cli import tables  # noqa: PLC0415 - `serai --help` does without

    def show(history: History) -> None:
        lines = tables.screen(history, min(WIDTH, live.console.width))
        live.update(Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)

    with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
        _watch(archive, name, show)


# ---- explain


@click.command()
@click.argument("task")
def explain(task: str) -> None:
    """Say why a task is where it is, or which way is taken to files.

    TASK is its number in the newest run, or RUN:NUMBER, or a URL any://HOST/PATH.
    """
    if task.startswith("any:"):
        from serai.cli.filing.explain_url import explain_url  # noqa: PLC0415 - `serai --help` does without

        explain_url(task, _width())
        return
    if "://" in task:
        from serai.errors import UsageError  # noqa: PLC0415 - the same

        scheme, _, rest = task.partition("://")
        raise UsageError(
            f"{scheme}: leads to files in one way: there is nothing to explain", hint=f"serai explain any://{rest}"
        )
    from serai.cli import sentences  # noqa: PLC0415 - `serai --help` does without
    from serai.dispatch.history.archive import parse_task  # noqa: PLC0415 - the same

    name, number = parse_task(task)
    with _archive().open(name, _now()) as history:
        told = sentences.explain(history, history.task(number))
    width = _width()
    for paragraph in told:
        first, _, rest = paragraph.partition("\n")
        click.echo(textwrap.fill(first, width, subsequent_indent="  ", break_on_hyphens=False))
        if rest:  # a traceback, or what ssh said: its lines mean something
            click.echo(rest)


# ---- logs


@click.command()
@click.argument("task", required=False)
@click.option("--stdout", "only", flag_value="stdout", help="Standard output only.")
@click.option("--stderr", "only", flag_value="stderr", help="Standard error only.")
@click.option("--attempts", is_flag=True, help="Say first, on standard error, how earlier attempts ended.")
@click.option("--failed", is_flag=True, help="Of every failed task, each with a header line, all on standard output.")
def logs(task: str | None, only: str | None, *, attempts: bool, failed: bool) -> None:
    """Print what a task printed, byte by byte.

    TASK is its number in the newest run, or RUN:NUMBER. Its standard output goes to standard output, its standard error
    to standard error. With --failed, TASK is the name of a run, or left out.
    """
    from serai.dispatch.history.archive import parse_task  # noqa: PLC0415 - `serai --help` does without
    from serai.errors import UsageError  # noqa: PLC0415 - the same

    wanted = {"stdout": (0,), "stderr": (1,)}.get(only or "", (0, 1))
    if failed:
        with _archive().open(task, _now()) as history:
            _logs_of_failed(history, wanted)
        return
    if task is None:
        raise UsageError("of which task?", hint="serai logs NUMBER, serai logs RUN:NUMBER, or serai logs --failed")
    name, number = parse_task(task)
    with _archive().open(name, _now()) as history:
        found = history.task(number)
        if attempts:
            _tell_attempts(history, found)
        if found.result is None:
            raise UsageError(
                f"task {number} of run {history.run.name} has not ended, and what it prints is kept when it ends",
                hint=f"serai explain {history.run.name}:{number} says where it is",
            )
    for stream in found.streams:
        if stream.which in wanted:
            _copy(stream.chunks(), "stderr" if stream.which else "stdout")


def _tell_attempts(history: History, task: TaskNow) -> None:
    from serai.cli.sentences import attempt_words  # noqa: PLC0415 - `serai --help` does without

    for number, attempt in enumerate(task.attempts, 1):
        click.echo(attempt_words(number, attempt, history.now), err=True)
        if "\n" in attempt.text.strip():
            click.echo(textwrap.indent(attempt.text.strip(), "    "), err=True)


def _logs_of_failed(history: History, wanted: Sequence[int]) -> None:
    from serai.cli.sentences import failed_header  # noqa: PLC0415 - `serai --help` does without

    for number in history.failed_tasks():
        task = history.task(number)
        _copy([f"==> {failed_header(task)} <==\n".encode()], "stdout")
        last = b"\n"
        for stream in task.streams:
            if stream.which in wanted:
                last = _copy(stream.chunks(), "stdout")
        if not last.endswith(b"\n"):
            _copy([b"\n"], "stdout")


def _copy(chunks: Iterable[bytes], where: Literal["stdout", "stderr"]) -> bytes:
    """Write bytes to a standard stream; returns the last of them."""
    stream = sys.stderr if where == "stderr" else sys.stdout
    stream.flush()
    target = stream.buffer
    last = b"\n"
    for chunk in chunks:
        target.write(chunk)
        last = chunk[-1:] or last
    target.flush()
    return last


# ---- runs


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.option("-n", "--last", default=20, show_default=True, help="How many to list; 0 for all.")
@click.option(
    "--prune",
    metavar="AGE",
    help="Remove finished runs, of MapReduce too, that ended longer ago, such as 30d or 12h.",
)
def runs(last: int, prune: str | None, *, as_json: bool) -> None:
    """List the runs, newest first; of MapReduce, what is counted are outputs."""
    archive = _archive()
    if prune is not None:
        _prune(archive, prune, as_json=as_json)
        return
    from serai.cli import tables  # noqa: PLC0415 - `serai --help` does without

    now = _now()
    found, troubles = archive.listing(now, last or None)
    others = _of_mapreduce()
    found = sorted(found + others, key=lambda one: (one[0].began, one[0].name), reverse=True)[: last or None]
    if as_json:
        listed = [tables.run_json(run) | {"counts": tables.counts_json(counts)} for run, counts in found]
        click.echo(json.dumps(listed, indent=2))
    elif found:
        click.echo("\n".join(tables.runs_table(found, now, _width())))
        more = len(archive.names()) + len(others) - len(troubles) - len(found)
        if more > 0:
            click.echo(f"and {more} older: serai runs --last 0 lists all")
    else:
        click.echo(f"there are no runs yet; they would be in {archive.directory}", err=True)
    for trouble in troubles:
        click.echo(str(trouble), err=True)


def _of_mapreduce() -> list[tuple[RunNow, Counts]]:
    from serai.apps.mapreduce import record  # noqa: PLC0415 - `serai --help` does without
    from serai.dispatch.control.asking import living  # noqa: PLC0415 - the same
    from serai.session.home import mapreduce_directory  # noqa: PLC0415 - the same

    room = mapreduce_directory(os.environ)
    return record.listing(room, {one.name for one in living([room])})


def _prune(archive: Archive, age: str, *, as_json: bool) -> None:
    from serai.apps.mapreduce import record  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.sentences import names  # noqa: PLC0415 - the same
    from serai.cli.tables import pruned_words  # noqa: PLC0415 - the same
    from serai.dispatch.control.asking import living  # noqa: PLC0415 - the same
    from serai.quantity import seconds  # noqa: PLC0415 - the same
    from serai.session.home import mapreduce_directory  # noqa: PLC0415 - the same

    older_s, room = seconds(age), mapreduce_directory(os.environ)
    both = [archive.prune(older_s, _now()), record.prune(room, older_s, _now(), {one.name for one in living([room])})]
    removed = [name for one in both for name in one.names]
    kept = [name for one in both for name in one.kept]
    if as_json:
        click.echo(json.dumps({"removed": removed, "bytes": sum(one.size for one in both), "kept": kept}))
        return
    click.echo(pruned_words(removed, sum(one.size for one in both)))
    if kept:
        click.echo(f"kept, because they were interrupted and can go on: {names(kept)}")
