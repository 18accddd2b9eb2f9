"""`serai`: the group of subcommands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any

import click

from serai.errors import SeraiError, UsageError

EXIT_FAILED = 1  # some task failed
EXIT_USAGE = 2
EXIT_POOL = 3  # no node, or Serai itself failed; nothing is lost
EXIT_INTERRUPTED = 130

# name: (module, attribute, one line); the line is here so that `--help` imports nothing
COMMANDS = {
    "run": ("serai.cli.run", "run", "Run a command over files, lines or numbers."),
    "resume": ("serai.cli.run", "resume", "Take up a run where it was left."),
    "mapreduce": ("serai.cli.mapreduce", "mapreduce", "Run a MapReduce session: MRDL, or TOML."),
    "status": ("serai.cli.look", "status", "Show what a run does."),
    "explain": ("serai.cli.look", "explain", "Say why a task is where it is, or why nowhere."),
    "logs": ("serai.cli.look", "logs", "Print what a task printed."),
    "release": ("serai.cli.steering.orders", "release", "Let go of nodes of a run that goes on."),
    "cancel": ("serai.cli.steering.orders", "cancel", "End tasks of a run that goes on, or all of it."),
    "runs": ("serai.cli.look", "runs", "List runs."),
    "ls": ("serai.cli.filing.files", "ls", "List files anywhere."),
    "cp": ("serai.cli.filing.copying", "cp", "Copy files from anywhere to anywhere."),
    "mv": ("serai.cli.filing.copying", "mv", "Move files."),
    "sync": ("serai.cli.filing.copying", "sync", "Make a directory hold what another holds."),
    "cat": ("serai.cli.filing.files", "cat", "Print files."),
    "rm": ("serai.cli.filing.files", "rm", "Remove files."),
    "mkdir": ("serai.cli.filing.files", "mkdir", "Make directories."),
    "stat": ("serai.cli.filing.files", "stat", "Show what is known of files."),
    "du": ("serai.cli.filing.files", "du", "Sum up the sizes of files."),
    "mount": ("serai.cli.filing.mount", "mount", "Show what is anywhere as files here, to one command or to all."),
    "contexts": ("serai.cli.contexts", "contexts", "List your credentials, and say whether they work."),
    "store": ("serai.cli.appliance.store", "store", "Serve a directory as a storage appliance; its lots and tokens."),
    "nodes": ("serai.cli.discovery.nodes", "nodes", "List nodes and stores that are there, by what they have."),
    "communities": ("serai.cli.discovery.communities", "communities", "List stores with the nodes near them."),
    "adverts": ("serai.cli.adverts", "adverts", "List what is advertised: nodes, stores, workers."),
    "job": ("serai.cli.job", "job", "A command on one host, which goes on when nobody looks."),
    "study": ("serai.cli.study.command", "study", "Repeat the published experiments; replay traces."),
    "lab": ("serai.cli.lab", "lab", "Real Linux hosts on this machine, for trying pools."),
}


class Group(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """See click."""
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click; without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click; names the nearest command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415 - seldom

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else "serai --help lists the commands"
            raise UsageError(f"there is no command {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="serai", prog_name="serai")
def serai() -> None:
    """One queue over everything you have credentials for.

    \b
      serai run 'wc -w {in}' *.txt                         on this machine
      serai run 'wc -w {in}' *.txt --on ssh://lab1         on a host with nothing but sshd
    """  # noqa: D301 - click reads the \b


# Packages that some commands need, and the extra that brings each.
EXTRAS = {
    "aiohttp": "store", "urllib3": "store", "xxhash": "store",
    "botocore": "s3", "distributed": "dask", "matplotlib": "study", "paramiko": "sftp", "psycopg": "postgres",
    "pyarrow": "mapreduce", "s3fs": "s3",
}  # fmt: skip


def main() -> None:
    """The entry point.

    Exit codes: 0 all is well; 1 some task failed; 2 the request was wrong and nothing was started; 3 no node was left,
    or Serai itself failed (nothing is lost: `serai resume`); 130 interrupted.
    """
    _have_streams()
    _be_interrupted_by_sigterm()
    try:
        code = serai.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except click.Abort:
        code = EXIT_INTERRUPTED
    except SeraiError as error:
        click.echo(f"serai: {error}", err=True)
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_POOL
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        words = f"this needs {error.name}, which is not installed\n  hint: pip install 'serai[{extra}]'"
        click.echo(f"serai: {words}", err=True)
        code = EXIT_USAGE
    except BrokenPipeError:
        code = EXIT_FAILED
        # Whoever read our output has gone: nothing more is to be said there, also not when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename and error.strerror else ""
        click.echo(f"serai: {where}{error.strerror or error}", err=True)
        code = EXIT_POOL
    _leave(_code(code))


def _have_streams() -> None:
    """Where a standard stream is closed, open nothing in its place: the next file would get its number."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def _be_interrupted_by_sigterm() -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def _leave(code: int) -> None:
    """Exit; at once where a thread still reads a standard input: the interpreter would wait for the end of it."""
    if any(thread.name == "feed" for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _code(code: Any) -> int:
    return code if isinstance(code, int) else 0


__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_POOL", "main", "serai"]
