"""`serai mapreduce`: a session from MRDL or TOML, shown while it runs."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from serai.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from serai.cli.progress import LINE_EVERY_S, say
from serai.errors import SeraiError, TaskFailed, UsageError
from serai.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.apps.mapreduce.record import Former
    from serai.apps.mapreduce.run import Running
    from serai.describe.mapreduce import Session

PERIOD_S = 0.1
COUNTED = (
    ("lost", "workers lost"),
    ("revived", "started in their place"),
    ("again", "maps made again"),
    ("doubled", "doubled"),
    ("skipped", "splits left out"),
)
ON = "A host or pool instead of those of the file: local:, ssh://HOST, or a pool file. May be repeated."


@click.command()
@click.argument("session", type=click.Path())
@click.option("--on", multiple=True, metavar="SITE", help=ON)
@click.option("--workers", type=click.IntRange(1, 1000), metavar="N", help="Workers on each host.")
@click.option("--partitions", type=click.IntRange(1, 10_000), metavar="N", help="How many outputs.")
@click.option(
    "--skip", type=click.IntRange(0, 10_000), metavar="N", help="Leave out up to N splits that fail for good."
)
@click.option("--output", metavar="DIR", help="Where outputs go: a directory or a URL.")
@click.option(
    "--resume", "former", metavar="RUN", help="A run of SESSION that did not end well: outputs that it made are kept."
)
@click.option("--timeline", metavar="FILE.svg", help="Write a picture of what each worker did and when.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object per line on standard output: events, a summary.")
def mapreduce(
    session: str,
    on: tuple[str, ...],
    workers: int | None,
    partitions: int | None,
    skip: int | None,
    output: str | None,
    **how: Any,
) -> int:
    """Run the MapReduce SESSION, an MRDL file (.xml) or its form in TOML.

    Outputs are PREFIXpart-00000 and so on, sorted by key; each appears when it is whole, and their names are printed.
    Workers may die: the outputs are the same. Where the command itself ended, the same words with --resume RUN keep the
    outputs that were whole. Exit code: 0 all well, 1 a map or reduce failed, 2 the request is wrong,
    3 no worker left, 130 interrupted.
    """
    timeline, former, as_json = how["timeline"], how["former"], bool(how["as_json"])
    asked = _asked(read_session(session), on, workers, partitions, output)
    if skip is not None:
        asked = replace(asked, skip=skip)
    if timeline is not None and not os.path.isdir(os.path.dirname(timeline) or "."):
        raise UsageError(f"--timeline {timeline}: there is no such directory")
    return _drive(asked, former, timeline, as_json=as_json)


def read_session(path: str) -> Session:
    """Reads a session by its name's end: ``.toml``, or else MRDL.

    Raises:
        UsageError: it has mistakes.
    """
    if path.endswith(".toml"):
        from serai.describe.mapreduce import read_toml  # noqa: PLC0415 - `serai --help` does without

        return read_toml(path)
    from serai.describe.mrdl import read_mrdl  # noqa: PLC0415 - as above

    return read_mrdl(path)


def _asked(
    session: Session, on: Sequence[str], workers: int | None, partitions: int | None, output: str | None
) -> Session:
    """The session with what the command line says instead."""
    from serai.describe.mapreduce import host_of  # noqa: PLC0415 - as above
    from serai.describe.poolfile import sites_from  # noqa: PLC0415 - as above

    if on:
        session = replace(session, hosts=tuple(host_of(site) for site in sites_from(on)))
    if workers is not None:
        session = replace(session, hosts=tuple(replace(host, workers=workers) for host in session.hosts))
    if partitions is not None:
        session = replace(session, partitions=partitions)
    if output is not None:
        session = replace(session, output=output, prefix="")
    if session.output is None:
        raise UsageError("nothing says where outputs go", hint="--output DIR, or output = … in the file")
    return session


def _former(name: str) -> Former:
    from serai.apps.mapreduce.record import Former  # noqa: PLC0415 - as above
    from serai.session.home import mapreduce_directory  # noqa: PLC0415 - as above

    if not name or os.path.basename(name) != name:
        raise UsageError(f"{name!r} is no name of a run")
    return Former(mapreduce_directory(os.environ) / name)


def _drive(session: Session, resumed: str | None, picture: str | None, *, as_json: bool) -> int:
    from serai.apps.frontends.mapreduce import statistics_of  # noqa: PLC0415 - as above
    from serai.apps.mapreduce.run import Running, new_directory  # noqa: PLC0415 - as above
    from serai.apps.mapreduce.timeline import timeline_of  # noqa: PLC0415 - as above

    former = None if resumed is None else _former(resumed)
    running = Running(session, new_directory(os.environ, time.time()), former=former)
    view = _Json(running) if as_json else _Live(running) if sys.stderr.isatty() else _Lines(running)
    failure: SeraiError | None = None
    files: list[str] = []
    interrupted = False
    try:
        with running:
            while not running.wait(PERIOD_S):
                view.refresh()
            view.refresh()
            view.clear()
            try:
                files = running.files()
            except SeraiError as error:  # the summary says what was done all the same
                failure = error
    except KeyboardInterrupt:
        interrupted = True
    view.clear()
    timeline = timeline_of(running.record.events)
    if picture is not None:
        with open(picture, "w", encoding="utf-8") as file:
            file.write(timeline.svg())
    view.summary(files, asdict(statistics_of(running, timeline)), timeline.table(), interrupted=interrupted)
    if isinstance(failure, TaskFailed):
        say(f"serai: {failure}")
    elif failure is not None:
        raise failure
    return EXIT_INTERRUPTED if interrupted else EXIT_FAILED if failure is not None else 0


class _Lines:
    """Now and then a line, for logs; what does not work is said at once."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._told = 0
        self._said_at = 0.0

    def refresh(self) -> None:
        """Show what is new."""
        self._say_troubles()
        elapsed = self.running.record.elapsed_s
        if elapsed - self._said_at >= LINE_EVERY_S:
            self._said_at = elapsed
            say(self.now())

    def _say_troubles(self) -> None:
        troubles = self.running.troubles
        while self._told < len(troubles):
            self.clear()
            say(troubles[self._told])
            self._told += 1

    def now(self) -> str:
        """Where it stands, in a line."""
        desk = self.running.desk
        master = desk.master
        alive = sum(worker.alive for worker in master.workers.values())
        return (
            f"map {master.maps_done}/{len(master.maps)}, reduce {master.reduces_done}/{len(master.reduces)},"
            f" {alive} workers, {format_seconds(round(self.running.record.elapsed_s))}"
        )

    def clear(self) -> None:
        """Leave nothing on the line."""

    def summary(self, files: list[str], facts: dict[str, object], table: str, *, interrupted: bool) -> None:
        """The last words; the outputs' names are what the command prints."""
        self._say_troubles()
        for file in files:
            print(file)
        if files:
            say(table)
        ended = (
            "interrupted" if interrupted else f"{facts['records']} records in {len(files)} files" if files else "failed"
        )
        extra = [f"{facts[key]} {words}" for key, words in COUNTED if facts[key]]
        words = f"{self.running.name}: {ended}, input {format_bytes(int(str(facts['bytes'])))},"
        words += f" by {facts['workers']} workers in {format_seconds(round(float(str(facts['seconds'])), 1))}"
        say(", ".join([words, *extra]))
        whole, wanted = len(self.running.desk.finals), self.running.work.partitions
        if self.running.resumable and not files:
            say(f"{whole} of {wanted} outputs are whole; the same command with --resume {self.running.name} keeps them")


class _Live(_Lines):
    """One line that is written again and again, on a terminal."""

    _shown = False

    def refresh(self) -> None:
        """See `_Lines.refresh`."""
        self._say_troubles()
        print(f"\r\x1b[K{self.now()}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        """See `_Lines.clear`."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


class _Json(_Lines):
    """Every event as a JSON object."""

    _printed = 0

    def refresh(self) -> None:
        """See `_Lines.refresh`."""
        events = self.running.record.events
        while self._printed < len(events):
            print(json.dumps(events[self._printed], default=str))
            self._printed += 1
        sys.stdout.flush()

    def summary(self, files: list[str], facts: dict[str, object], table: str, *, interrupted: bool) -> None:
        """See `_Lines.summary`."""
        self.refresh()
        said = {"what": "summary", "run": self.running.name, "files": files, "interrupted": interrupted}
        more = {"troubles": self.running.troubles, "left_out": self.running.skipped}
        print(json.dumps({**said, **facts, **more}))
