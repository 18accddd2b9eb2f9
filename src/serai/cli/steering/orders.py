"""`serai release` and `serai cancel`: what another process asks of a run that goes on."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from serai.dispatch.control.asking import Living

RUN = "The run, or how its name begins; may be left out when only one goes on."
WAIT = "How long to watch for it to be done, which goes on all the same: 30s, 1h."
MOST_LISTED = 5


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--run", "name", metavar="RUN", help=RUN)
@click.option(
    "--last", is_flag=True, help="Also when no node would be left: then tasks that wait fail, or are left over."
)
@click.option("--wait", default="10m", show_default=True, metavar="TIME", help=WAIT)
@click.option("--json", "as_json", is_flag=True, help="Print an object per line: what each node still has to do.")
def release(nodes: tuple[str, ...], name: str | None, wait: str, *, last: bool, as_json: bool) -> int:
    """Let go of nodes of a run that goes on.

    They get no new tasks. What they run ends; what waits there goes to others; files that only their caches have are
    copied to other nodes. Then their executors end. Exit code: 0 they were released, 1 not within --wait.
    """
    run = _living(name)
    told = _Told(as_json=as_json)
    released = _watch(run, "release", wait, told.node, nodes=list(nodes), last=last)
    if not released and not as_json:
        click.echo(f"it goes on: serai status {run.name} shows it", err=True)
    return 0 if released else 1


class _Told:
    """Says what nodes still have to do, when that has changed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said: dict[str, str] = {}

    def node(self, news: Mapping[str, Any]) -> None:
        """Say what is new of a node."""
        if self._as_json:
            click.echo(json.dumps(news))
            return
        if news.get("over"):
            click.echo("the run has ended, and with it all its executors")
            return
        name, words = str(news["node"]), node_words(news)
        if words and self._said.get(name) != words:
            self._said[name] = words
            click.echo(f"{name}: {words}")


def node_words(news: Mapping[str, Any]) -> str:
    """What a node that is let go of still has to do; "" before it is known."""
    from serai.cli.sentences import count_of  # noqa: PLC0415 - `serai --help` does without
    from serai.pool.members import Standing  # noqa: PLC0415 - the same

    if news["standing"] == Standing.RELEASED:
        return "released"
    if news["files"] is None:
        return "" if news["standing"] == Standing.UP else f"it is {news['standing']}, and is waited for no longer"
    left = []
    if news["tasks"]:
        left.append(f"{count_of(int(news['tasks']), 'task')} there end{'s' if news['tasks'] == 1 else ''}")
    if news["files"]:
        left.append(
            f"{count_of(int(news['files']), 'file')} that only it has {'is' if news['files'] == 1 else 'are'} copied"
        )
    return f"no new tasks; {' and '.join(left)}" if left else "it has nothing left to do"


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="TASK...|RUN")
@click.option("--run", "name", metavar="RUN", help=RUN)
@click.option("--wait", default="1m", show_default=True, metavar="TIME", help=WAIT)
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def cancel(what: tuple[str, ...], name: str | None, wait: str, *, as_json: bool) -> int:
    """End tasks of a run that goes on, or all of it.

    TASK is a number, or RUN:NUMBER. With the name of a RUN instead, all that has not ended is cancelled and nothing
    more is begun; what had ended well stays, and serai resume takes the rest up again. Exit code: 0 they have ended,
    1 not within --wait.
    """
    asked, tasks = _meant(what, name)
    run = _living(asked)
    news: dict[str, Any] = {}
    done = _watch(run, "cancel", wait, news.update, tasks=tasks)
    count = int(news.get("cancelled", 0))
    if as_json:
        click.echo(json.dumps({"run": run.name, "tasks": tasks, "cancelled": count, "ended": done}))
    else:
        from serai.cli.sentences import count_of  # noqa: PLC0415 - `serai --help` does without

        click.echo(f"{run.name}: {count_of(count, 'task')} cancelled" + ("" if done else ", and not ended yet"))
    return 0 if done else 1


def _meant(what: Sequence[str], name: str | None) -> tuple[str | None, list[int] | None]:
    """(run or None, tasks or None for all) of the words of a command."""
    from serai.dispatch.history.archive import parse_task  # noqa: PLC0415 - `serai --help` does without

    if not any(":" in word or word.lstrip("#").isdecimal() for word in what):
        if len(what) > 1 or name not in {None, what[0]}:
            raise UsageError("name one run, or tasks", hint="serai cancel RUN, or serai cancel 17 18 --run RUN")
        return what[0], None
    found = [parse_task(word) for word in what]
    names = {run for run, _ in found if run is not None} | ({name} if name is not None else set())
    if len(names) > 1:
        raise UsageError(
            f"these are tasks of {len(names)} runs: {', '.join(sorted(names))}", hint="name them one by one"
        )
    return next(iter(names), None), [task for _, task in found]


def _living(name: str | None) -> Living:
    """The run that is meant.

    Raises:
        UsageError: it is not there, or it is not clear which.
    """
    from serai.dispatch.control.asking import choose, living  # noqa: PLC0415 - `serai --help` does without
    from serai.session.home import mapreduce_directory, runs_directory  # noqa: PLC0415 - the same

    runs = living([runs_directory(os.environ), mapreduce_directory(os.environ)])
    try:
        return choose(runs, name)
    except UsageError:
        if name is not None:
            _say_how_it_ended(name)
        raise


def _say_how_it_ended(name: str) -> None:
    """Raise a better error where there was such a run."""
    from serai.cli.sentences import run_words  # noqa: PLC0415 - `serai --help` does without
    from serai.clock import SystemClock  # noqa: PLC0415 - the same
    from serai.dispatch.history.archive import Archive  # noqa: PLC0415 - the same
    from serai.errors import SeraiError  # noqa: PLC0415 - the same
    from serai.session.home import runs_directory  # noqa: PLC0415 - the same

    now = SystemClock().wall()
    try:
        with Archive(runs_directory(os.environ)).open(name, now) as history:
            run = history.run
    except SeraiError:
        return  # there was none, or several
    raise UsageError(
        f"run {run.name} {run_words(run, now)}", hint="only a run that goes on, on this machine, can be reached"
    )


def _watch(run: Living, order: str, wait: str, tell: Any, **words: object) -> bool:
    """Ask a run, and tell the news until it is done; returns whether it was in time."""
    from serai.dispatch.control.asking import ask  # noqa: PLC0415 - `serai --help` does without
    from serai.quantity import seconds  # noqa: PLC0415 - the same

    until = time.monotonic() + seconds(wait)
    told: Iterator[dict[str, Any]] = ask(run.directory, order, words)
    for news in told:
        if news:
            tell(news)
        if time.monotonic() >= until:
            return False
    return True
