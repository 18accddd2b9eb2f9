"""The commands that carry files: `cp`, `mv`, `sync`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from serai.cli.filing.operands import CONFIG, URLS, complain, echo, stdin_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.data.copying.carrying import Outcome
    from serai.data.copying.tally import Tally


def _quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(command)


@contextlib.contextmanager
def _counting(command: str, *, quiet: bool, verbose: bool) -> Iterator[Tally]:
    """A tally that is shown on a terminal while it counts."""
    from serai.data.copying.tally import Tally  # noqa: PLC0415 - `serai --help` does without

    tally = Tally((lambda what: complain(command, what)) if verbose else None)
    if quiet or not sys.stderr.isatty():
        yield tally
        return
    from serai.cli.filing.bar import shown  # noqa: PLC0415 - rich is slow to import

    with shown(tally):
        yield tally


def _tell(command: str, outcome: Outcome) -> int:
    for source, target in outcome.made:
        echo(f"{source!r} -> {target!r}")
    for what in outcome.complaints:
        complain(command, what)
    return 1 if outcome.complaints else 0


@click.command(no_args_is_help=True)
@click.option("-r", "-R", "--recursive", is_flag=True, help="Copy directories with what is in them.")
@click.option("-a", "--archive", is_flag=True, help="As -r -p -P.")
@click.option("-p", "--preserve", is_flag=True, help="Preserve permissions and times of change.")
@click.option("-L", "follow", is_flag=True, help="Follow symbolic links.")
@click.option("-P", "keep_links", is_flag=True, help="Copy symbolic links as such; the default with -r.")
@click.option("-n", "--no-clobber", is_flag=True, help="Leave what exists as it is.")
@click.option("-u", "--update", is_flag=True, help="Leave what is not older than its source as it is.")
@click.option("-f", "--force", is_flag=True, help="Replace also what may not be written to.")
@click.option("-T", "as_file", is_flag=True, help="Never copy into DEST, even if it is a directory.")
@click.option("-t", "--target-directory", metavar="DIR", help="Copy everything into this directory.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was copied, and which way it took.")
@_quiet
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="SOURCE... DEST")
def cp(urls: tuple[str, ...], **options: Any) -> int:
    """Copy files between this machine, hosts and whatever else has a URL.

    \b
      serai cp data.csv ssh://lab1/tmp/
      serai cp -r 'ssh://lab1/results/*' ssh://lab2/all     directly, where lab1 reaches lab2
      tar c . | serai cp - ssh://lab1/backup.tar

    As the cp that you know. What was interrupted goes on where it stopped (a .serai-partial beside the destination).
    """  # noqa: D301 - click reads the \b
    from serai.data.transfer import Wishes, copy  # noqa: PLC0415 - `serai --help` does without

    sources, destination = _operands("cp", urls, options["target_directory"])
    if "-" in {*sources, destination}:
        return _streamed(sources, destination, options)
    archive = options["archive"]
    wishes = Wishes(
        recursive=options["recursive"] or archive,
        as_file=options["as_file"],
        into=options["target_directory"] is not None,
        keep=options["no_clobber"],
        update=options["update"],
        times=options["preserve"] or archive,
        force=options["force"],
        verbose=options["verbose"],
    )
    links = "follow" if options["follow"] else "keep" if options["keep_links"] or archive else None
    with _counting("cp", quiet=options["quiet"], verbose=options["verbose"]) as tally:
        outcome = copy(sources, destination, wishes, links=links, tally=tally, ssh_config=options["ssh_config"])  # type: ignore[arg-type] # one of the words
    return _tell("cp", outcome)


def _operands(command: str, urls: tuple[str, ...], into: str | None) -> tuple[list[str], str]:
    if into is not None:
        if not urls:
            raise click.UsageError(f"{command}: missing file operand")
        return list(urls), into
    if len(urls) < 2:
        what = "missing file operand" if not urls else f"missing destination file operand after {urls[0]!r}"
        raise click.UsageError(f"{command}: {what}")
    return list(urls[:-1]), urls[-1]


def _streamed(sources: list[str], destination: str, options: dict[str, Any]) -> int:
    if destination == "-":
        from serai.cli.filing.files import print_files  # noqa: PLC0415 - the other half of the file commands

        return print_files("cp", sources, options["ssh_config"])
    if len(sources) > 1:
        raise click.UsageError("cp: standard input goes into one file, alone")
    from serai.data.transfer import store_stream  # noqa: PLC0415 - `serai --help` does without

    with _counting("cp", quiet=options["quiet"], verbose=options["verbose"]) as tally:
        tally.expect(1, 0)
        try:
            store_stream(tally.count(stdin_pieces()), destination, ssh_config=options["ssh_config"])
        except OSError as error:
            complain("cp", f"{destination}: {error.strerror or error}")
            return 1
    return 0


@click.command(no_args_is_help=True)
@click.option("-n", "--no-clobber", is_flag=True, help="Leave what exists as it is.")
@click.option("-u", "--update", is_flag=True, help="Leave what is not older than its source as it is.")
@click.option("-f", "--force", is_flag=True, help="Replace also what may not be written to.")
@click.option("-T", "as_file", is_flag=True, help="Never move into DEST, even if it is a directory.")
@click.option("-t", "--target-directory", metavar="DIR", help="Move everything into this directory.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was moved, and which way it took.")
@_quiet
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="SOURCE... DEST")
def mv(urls: tuple[str, ...], **options: Any) -> int:
    """Move files and directories: a rename on one host, else a copy whose source goes when all of it is there."""
    from serai.data.transfer import Wishes, move  # noqa: PLC0415 - `serai --help` does without

    sources, destination = _operands("mv", urls, options["target_directory"])
    wishes = Wishes(
        as_file=options["as_file"],
        into=options["target_directory"] is not None,
        keep=options["no_clobber"],
        update=options["update"],
        force=options["force"],
        verbose=options["verbose"],
    )
    with _counting("mv", quiet=options["quiet"], verbose=options["verbose"]) as tally:
        outcome = move(sources, destination, wishes, tally=tally, ssh_config=options["ssh_config"])
    return _tell("mv", outcome)


@click.command(no_args_is_help=True)
@click.option("--delete", is_flag=True, help="Remove what the source has not.")
@click.option("-c", "--checksum", is_flag=True, help="Compare contents, not sizes and times.")
@click.option("-n", "--dry-run", is_flag=True, help="Only list what would be done.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was done, and which way it took.")
@_quiet
@CONFIG
@click.argument("source", type=URLS)
@click.argument("destination", type=URLS)
def sync(source: str, destination: str, **options: Any) -> int:
    """Make one directory hold what another holds; only what differs is copied."""
    from serai.data.transfer import sync as synchronize  # noqa: PLC0415 - `serai --help` does without

    with _counting("sync", quiet=options["quiet"], verbose=options["verbose"]) as tally:
        try:
            done = synchronize(
                source,
                destination,
                delete=options["delete"],
                checksum=options["checksum"],
                dry_run=options["dry_run"],
                tally=tally,
                ssh_config=options["ssh_config"],
            )
        except OSError as error:
            complain("sync", f"{error.filename or source}: {error.strerror or error}")
            return 1
    plan = done.plan
    if options["dry_run"] or options["verbose"]:
        for name in plan.deletions:
            echo(f"delete {name}")
        for job in (*plan.copies.directories, *plan.copies.links, *plan.copies.small, *plan.copies.large):
            echo(f"copy {job.origin}{'/' if job.fact.kind == 'directory' else ''}")
        for job in plan.stamps:
            echo(f"stamp {job.origin}")
    for what in done.outcome.complaints:
        complain("sync", what)
    return 1 if done.outcome.complaints else 0
