"""`serai run` and `serai resume`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from serai.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.apps.command_run import CommandRun, Request
    from serai.apps.plan import Plan
    from serai.cli.progress import View
    from serai.describe.sources import Source

LEAST_MEMORY = 1 << 20
ON = "A site: local:, ssh://HOST, dask://HOST:8786, or a pool file. May be repeated; this machine when left out."
POLICY = click.Choice([
    "first-available", "first-cache-available", "max-cache-hit", "max-compute-util", "good-cache-compute", "auto",
])  # fmt: skip
ACCESS = click.Choice(["auto", "stage", "mount"])
SHOW = click.Choice(["auto", "live", "lines", "json", "none"])


class _Run(click.Command):
    """The command, which knows what somebody meant who did not quote theirs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities or words[0].startswith("-"):
                raise
            quoted = f"{words[0]} {error.option_name} {{in}}"
            raise UsageError(
                f"there is no option {error.option_name}", hint=f"the command is one word: serai run '{quoted}' FILES"
            ) from error


@click.command(cls=_Run)
@click.argument("command")
@click.argument("files", nargs=-1, type=click.Path())
@click.option("--on", multiple=True, metavar="SITE", help=ON)
@click.option(
    "--each", metavar="SOURCE", help="One task per line of a file, number of 1..100, row of a .csv, .tsv or .jsonl."
)
@click.option("--out", metavar="DIR", help="Where outputs ({out}, {out:.png}) go.")
@click.option("--keep-dirs", is_flag=True, help="Keep the directories of inputs below --out.")
@click.option("--group", type=click.IntRange(1, 1_000_000), default=1, help="Files per task.")
@click.option("--send", multiple=True, metavar="PATH", help="A file or directory that every task needs.")
@click.option("--no-auto-send", is_flag=True, help="Do not send files that the command names plainly.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="A variable for the tasks.")
@click.option("--workdir", metavar="DIR", help="The directory on the node to run in.")
@click.option("--time-limit", metavar="TIME", help="For each task: 90s, 10m, 2h.")
@click.option("--retries", type=click.IntRange(0, 1000), help="How often a task that ended badly is tried again.")
@click.option("--cores", type=click.IntRange(1, 100_000), default=1, help="Cores that a task needs.")
@click.option("--memory", metavar="SIZE", help="Memory that a task needs: 4GB.")
@click.option("--software", multiple=True, metavar="NAME", help="A program that the node must have.")
@click.option(
    "--requirements", metavar="EXPR", help="Which nodes will do: 'Memory > 4000 && HasSoftware(\"openmpi\")'."
)
@click.option("--rank", metavar="EXPR", help="Which of them is best, as a number: the highest is taken first.")
@click.option("--fail-fast", is_flag=True, help="End everything at the first task that fails.")
@click.option(
    "--home-calling",
    type=click.Choice(["files", "shell"]),
    help="Let tasks on ssh hosts use this machine as the host home: scp home:data/x . (shell: commands too).",
)
@click.option(
    "--home-address", metavar="HOST[:PORT]", help="Where nodes reach this machine; else through the connection."
)
@click.option("--policy", type=POLICY, help="How the place of data counts when a lane is free; auto goes by price.")
@click.option("--access", type=ACCESS, help="Copy inputs to nodes, or mount them there; auto takes what is cheaper.")
@click.option(
    "--cache", metavar="SIZE", help="What each node may keep of inputs: 20GB; half of its free disk if unsaid."
)
@click.option(
    "--no-direct", is_flag=True, help="Send nodes what they would read at stores, S3 and web servers themselves."
)
@click.option(
    "--show", type=SHOW, default="auto", help="The view: live on a terminal, lines in a log, json for programs."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --show json.")
@click.pass_context
def run(ctx: click.Context, /, **options: object) -> int:
    """Run COMMAND once for each of FILES, or for each line, number or row of --each.

    FILES may be URLs, with patterns in quotes: 'any://lab1/data/*.txt'. What lies on a node is used there.

    \b
    {in}            the input file(s)         {line}      the line or number
    {out} {out:.X}  an output of the task     {column}    a column of the table
    {name} {stem}   of the input's name       {n}         the task's number

    Outputs appear when they are whole. What tasks print is printed here. Exit code: 0 all well, 1 some task failed,
    2 the request is wrong, 3 no node left (serai resume), 130 interrupted.
    """  # noqa: D301 - click reads the \b
    from serai.apps.command_run import CommandRun  # noqa: PLC0415 - `serai --help` does without
    from serai.clock import SystemClock  # noqa: PLC0415 - as above
    from serai.session.home import runs_directory  # noqa: PLC0415 - as above

    request = _request(ctx.params)
    running = CommandRun.fresh(request, runs_directory(os.environ), SystemClock())
    show = "json" if options["as_json"] else str(options["show"])
    return _drive(running, show, fail_fast=bool(options["fail_fast"]), sends=request.plan.shared)


@click.command()
@click.argument("name", required=False, metavar="[RUN]")
@click.option("--on", multiple=True, metavar="SITE", help="Other sites than before.")
@click.option("--failed", is_flag=True, help="Tasks that failed run again, too.")
@click.option("--fail-fast", is_flag=True, help="End everything at the first task that fails.")
@click.option("--show", type=SHOW, default="auto", help="As for serai run.")
@click.option("--json", "as_json", is_flag=True, help="The same as --show json.")
def resume(name: str | None, on: tuple[str, ...], show: str, *, failed: bool, fail_fast: bool, as_json: bool) -> int:
    """Take up RUN (the latest by default) where it was left; no finished task runs again."""
    from serai.apps.command_run import CommandRun  # noqa: PLC0415 - `serai --help` does without
    from serai.clock import SystemClock  # noqa: PLC0415 - as above
    from serai.dispatch.history import find_run  # noqa: PLC0415 - as above
    from serai.session.home import runs_directory  # noqa: PLC0415 - as above

    if name is not None:
        _not_of_mapreduce(name)
    directory = find_run(runs_directory(os.environ), name)
    running = CommandRun.again(directory, on, SystemClock(), failed_too=failed)
    return _drive(running, "json" if as_json else show, fail_fast=fail_fast, sends=())


def _not_of_mapreduce(name: str) -> None:
    """Say how such a run is resumed."""
    from serai.session.home import mapreduce_directory  # noqa: PLC0415 - as above

    if os.path.basename(name) == name and (mapreduce_directory(os.environ) / name / "events.jsonl").is_file():
        raise UsageError(
            f"{name} is a run of MapReduce", hint=f"the command that began it, with --resume {name}, keeps its outputs"
        )


def _request(given: dict[str, object]) -> Request:
    """What the options ask for."""
    from dataclasses import replace  # noqa: PLC0415 - `serai --help` does without

    from serai.apps.command_run import Request, auto_send  # noqa: PLC0415 - as above
    from serai.apps.plan import Plan  # noqa: PLC0415 - as above
    from serai.describe.task import Needs  # noqa: PLC0415 - as above
    from serai.dispatch.schedule.events import Retry  # noqa: PLC0415 - as above
    from serai.quantity import seconds  # noqa: PLC0415 - as above

    on = _words(given["on"]) or ("local:",)
    source = _source(_words(given["files"]), given["each"], given["group"], on)
    memory, limit, retries = given["memory"], given["time_limit"], given["retries"]
    plan = Plan(
        command=str(given["command"]),
        cwd=os.getcwd(),
        columns=source.columns,
        out_dir=None if given["out"] is None else str(given["out"]),
        keep_dirs=bool(given["keep_dirs"]),
        shared=_words(given["send"]),
        env=_environment(_words(given["env"])),
        workdir=None if given["workdir"] is None else str(given["workdir"]),
        time_limit_s=0.0 if limit is None else seconds(str(limit)),
        needs=Needs(
            int(str(given["cores"])),
            0 if memory is None else _memory(str(memory)),
            _words(given["software"]),
            requirements=_expression(given, "requirements"),
            rank=_expression(given, "rank"),
        ),
        retry=Retry(_retries(on) if retries is None else int(str(retries))),
    )
    _check(plan, source, bool(given["files"]))
    more = () if given["no_auto_send"] else auto_send(plan)
    plan = replace(plan, shared=plan.places().without_repeats(plan.shared + more))
    names = ("home_calling", "home_address", "policy", "access", "cache")
    said: dict[str, Any] = {one: None if given[one] is None else str(given[one]) for one in names}
    said["direct"] = False if given["no_direct"] else None
    return Request(plan, source, on, tuple(sys.argv[1:]), **said)


def _expression(given: dict[str, object], name: str) -> str:
    """A ClassAd expression that was given, checked."""
    text = given[name]
    if text is None:
        return ""
    from serai.describe.ads.expressions import parse_expression  # noqa: PLC0415 - most runs do without

    parse_expression(str(text), what=f"--{name}")
    return str(text)


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, tuple) else ()


def _source(files: tuple[str, ...], each: object, group: object, on: tuple[str, ...]) -> Source:
    from serai.describe import sources  # noqa: PLC0415 - `serai --help` does without

    if each is not None:
        if files:
            raise UsageError("--each and FILES both say what the tasks are", hint="name files in a column: {in:COLUMN}")
        return sources.each(str(each), stdin=sys.stdin.buffer)
    if files:
        return sources.files(_files(files, on), int(str(group)))
    return sources.each("1..1")


def _files(files: tuple[str, ...], on: tuple[str, ...]) -> Sequence[str]:
    """The files that are meant: patterns that no shell has expanded are expanded here."""
    from serai.describe.places import is_url  # noqa: PLC0415 - `serai --help` does without

    files = tuple(name for word in files for name in ((word,) if is_url(word) else _matching(word)))
    if not any(map(is_url, files)):
        return files
    from serai.apps.inputs import expand, ssh_configs  # noqa: PLC0415 - most runs do without
    from serai.describe.poolfile import sites_from  # noqa: PLC0415 - the same

    return expand(files, ssh_configs(sites_from(on)))


def _matching(word: str) -> Sequence[str]:
    """The files that a word means; a file may have a name that looks like a pattern."""
    import glob  # noqa: PLC0415 - as above

    if not glob.has_magic(word) or os.path.lexists(word):
        return (word,)
    names = sorted(glob.glob(word, recursive=True))
    if not names:
        raise UsageError(f"no file matches {word!r}", hint=f"looked from {os.getcwd()}")
    return names


def _memory(text: str) -> int:
    """Bytes; so few that no task can do with them are a unit that was left out."""
    from serai.quantity import bytes_of  # noqa: PLC0415 - as above

    found = bytes_of(text)
    if found < LEAST_MEMORY:
        raise UsageError(f"--memory {text}: no task can do with {found} bytes", hint=f"--memory {text.rstrip('bB ')}GB")
    return found


def _check(plan: Plan, source: Source, has_files: bool) -> None:
    """Mistakes that would make every task wrong are said before anything starts."""
    from serai.describe.task import Item  # noqa: PLC0415 - `serai --help` does without

    template = plan.template()
    if has_files and not template.uses_inputs:
        raise UsageError("the command has no {in}: the files would not be used", hint="serai run 'wc -w {in}' FILES")
    if template.uses_inputs and not has_files and not template.input_columns:
        wants = [one.text for one in template.placeholders if one.kind in {"in", "nth", "name", "stem", "dir"}]
        if wants and source.describe().get("kind") not in {"jsonl", "json lines"}:
            raise UsageError(
                f"the command has {{{wants[0]}}} and no files are given", hint="give FILES after the command"
            )
    if has_files and template.uses_line:
        raise UsageError(
            "the command has {line}, and files have none", hint="give lines by --each, or name each task's files there"
        )
    for one in template.outputs:  # else every task would say so
        if has_files:
            plan.places().output_path(next(iter(source)), one, 1)
        elif one == "out" and plan.out_dir is None:
            plan.places().output_path(Item(), one, 1)
    _check_files(plan)


def _check_files(plan: Plan) -> None:
    """What every task needs must be there."""
    for path in plan.shared:
        if not os.path.exists(os.path.join(plan.cwd, path)):
            raise UsageError(f"--send {path}: there is no such file")
    program = next(iter(plan.command.split()), "")
    own = program.startswith("./") and program in plan.template().words_that_may_be_files()
    if own and plan.workdir is None and not os.path.exists(os.path.join(plan.cwd, program)):
        raise UsageError(f"{program}: there is no such file", hint="a program that is here travels to the nodes")


def _environment(words: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise UsageError(f"--env {name}: there is no such variable here", hint="--env NAME=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def _retries(on: tuple[str, ...]) -> int:
    from serai.describe.poolfile import read_pool_file  # noqa: PLC0415 - beside its use

    for word in on:
        if "://" not in word and os.path.isfile(word):
            found = read_pool_file(word).retries
            if found is not None:
                return found
    return 0


def _drive(running: CommandRun, show: str, *, fail_fast: bool, sends: tuple[str, ...]) -> int:
    """Run to the end, showing it; returns the exit code."""
    from serai.describe.task import State  # noqa: PLC0415 - as above

    view = _view_for(show, running, sends)
    interrupted = False
    through = False
    try:
        with view:
            running.start(view.ended)
            try:
                while not (through := running.wait(view.period_s)):
                    view.refresh()
                    if fail_fast and view.failed:
                        running.bag.cancel()
            except KeyboardInterrupt:
                interrupted = True
            view.refresh()
    finally:
        complete = through and running.failure is None and running.bag.complete
        running.close(finished=complete)
    view.summary(interrupted=interrupted)
    if running.failure is not None:
        raise running.failure
    failure = running.bag.failure
    if failure is not None:
        raise SeraiError(f"the dispatcher failed: {failure!r}") from failure
    if interrupted:
        return EXIT_INTERRUPTED
    ended_badly = running.bag.counts[State.FAILED] + running.bag.counts[State.CANCELLED]
    return EXIT_FAILED if ended_badly else 0


def _view_for(show: str, running: CommandRun, sends: tuple[str, ...]) -> View:
    """The view that was asked for, or that fits."""
    from serai.cli import progress  # noqa: PLC0415 - `serai --help` does without

    if show == "auto":
        show = "live" if sys.stderr.isatty() else "lines"
    if show == "live":
        from serai.cli.live import Live  # noqa: PLC0415 - rich is slow to import

        return Live(running, sends)
    views = {"lines": progress.Lines, "json": progress.Json, "none": progress.Nothing}
    return views[show](running, sends)
