"""`serai job`: commands on one host, which go on when nobody looks."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

import click

from serai.access.jobs import Description, Job, JobService, State
from serai.errors import HostUnreachable, SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_FAILED = 1
EXIT_SIGNAL = 128  # and the signal's number on top, as a shell has it
PIECE = 1 << 16  # bytes

_config = click.option("-F", "--ssh-config", metavar="FILE", help="What ssh is given instead of your own file.")
_jobs = click.argument("jobs", nargs=-1, required=True, metavar="[URL] JOB…")


@click.group()
def job() -> None:
    """Commands on one host, which go on when nobody looks.

    A JOB is named by its whole identifier, quoted for the shell, or by its last part after the URL of its host.

    \b
      serai job run ssh://lab1 -- make -j4                 its output here, and its exit code
      serai job run --detach ssh://lab1 -- make -j4        prints [ssh://lab1]-[k3w0q9z1x7m2]
      serai job wait '[ssh://lab1]-[k3w0q9z1x7m2]'
    """  # noqa: D301 - click reads the \b


@job.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_config
@click.option("-d", "--detach", is_flag=True, help="Print its identifier and return.")
@click.option("-C", "--directory", metavar="DIR", help="Where it runs; else in the home directory.")
@click.option("-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; may be repeated.")
@click.option("-n", "--no-input", is_flag=True, help="Give it nothing to read.")
@click.option("--time-limit", "limit_s", type=float, metavar="SECONDS", help="End it after so long.")
@click.argument("url")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    url: str,
    command: tuple[str, ...],
    ssh_config: str | None,
    directory: str | None,
    variables: tuple[str, ...],
    limit_s: float | None,
    *,
    detach: bool,
    no_input: bool,
) -> int:
    """Run COMMAND on the host of URL; no shell looks at it there.

    Ctrl-C is passed on; a second one cancels. The exit code is the command's, 128 and the number for a signal.
    """
    pairs = [one.partition("=") for one in variables]
    for name, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--env {name}: there is no =", hint="write --env NAME=VALUE")
    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        raise UsageError(f"{command[0]} stands where the command begins", hint="options stand before the URL")
    if not command:
        raise UsageError("there is no command after --")
    if len(command) == 1 and " " in command[0] and "/" not in command[0]:
        raise UsageError(
            f"{command[0]!r} would be the name of a program, and no shell looks at it",
            hint=f"serai job run {url} -- sh -c {shlex.quote(command[0])}; or each word on its own",
        )
    reads = not (detach or no_input)
    description = Description(
        command[0],
        command[1:],
        environment={name: value for name, _, value in pairs},
        working_directory=directory,
        interactive=reads,
        wall_time_limit_s=limit_s,
    )
    started = JobService(url, ssh_config).run_job(description)
    if detach:
        click.echo(started.id)
        return 0
    try:
        code = _attend(started, reads=reads)
    except HostUnreachable as error:
        error.hint = f"where its host is up it goes on: serai job logs --follow '{started.id}'"
        raise
    except BrokenPipeError:  # whoever read its output has gone: it ends as in a pipe of this machine
        started.cancel()
        started.remove()
        raise
    started.remove()
    return code


def _attend(one: Job, *, reads: bool) -> int:
    """Copy a job's streams until it has ended; returns the exit code."""
    news: queue.SimpleQueue[BaseException | str] = queue.SimpleQueue()  # may be put into by what interrupts a put
    if reads:
        threading.Thread(target=_feed, args=(one,), name="feed", daemon=True).start()
    threading.Thread(target=_watch, args=(one, news), daemon=True).start()
    before = {
        number: signal.signal(number, lambda _number, _frame: news.put("interrupt"))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        asked = 0
        while (word := news.get()) != "end":
            if isinstance(word, BaseException):
                raise word
            asked += 1
            if asked == 1:
                _signal(one, signal.SIGINT)
            else:
                one.cancel()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _code(one)


def _watch(one: Job, news: queue.SimpleQueue[BaseException | str]) -> None:
    """Copy a job's streams, and tell of its end."""
    try:
        errors = threading.Thread(target=_copy, args=(one, "stderr", sys.stderr.buffer, news), daemon=True)
        errors.start()
        _copy(one, "stdout", sys.stdout.buffer, news)
        errors.join()
        one.wait()
    except (OSError, SeraiError) as error:
        news.put(error)
    news.put("end")


def _signal(one: Job, number: int) -> None:
    try:
        one.signal(number)
    except UsageError:  # it has ended in the meantime
        return


def _copy(one: Job, name: str, stream: BinaryIO, news: queue.SimpleQueue[BaseException | str]) -> None:
    try:
        for piece in one.read(name, follow=True):
            stream.write(piece)
            stream.flush()
    except (OSError, SeraiError) as error:
        news.put(error)


def _feed(one: Job) -> None:
    try:
        while piece := os.read(0, PIECE):
            one.stdin.write(piece)
        one.stdin.close()
    except (OSError, SeraiError):  # it reads no more
        return


def _code(one: Job) -> int:
    """The exit code for a shell; says why where there is none."""
    status = one.status()
    if status.error:
        error = SeraiError(status.error, host=_where(one), command=shlex.join(status.command))
        click.echo(f"serai: {error}", err=True)
    if status.exit_code is None:
        return EXIT_FAILED
    return status.exit_code if status.exit_code >= 0 else EXIT_SIGNAL - status.exit_code


def _where(one: Job) -> str:
    return one.id[1:].partition("]-[")[0].removesuffix(":")


@job.command(name="list")
@_config
@click.argument("url")
def list_jobs(url: str, ssh_config: str | None) -> None:
    """Show every job of yours on the host of URL."""
    for one in JobService(url, ssh_config).list():
        _show(one)


@job.command()
@_config
@_jobs
def state(jobs: tuple[str, ...], ssh_config: str | None) -> None:
    """Show how far jobs are."""
    for one in _find(jobs, ssh_config):
        _show(one)


def _show(one: Job) -> None:
    status = one.status()
    code = "" if status.exit_code is None else str(status.exit_code)
    began = "" if status.started is None else time.strftime("%F %T", time.localtime(status.started))
    text = " ".join(status.command).encode("utf-8", "replace").decode()
    shown = "".join(char if char.isprintable() else "�" for char in text)
    click.echo(f"{one.id}  {status.state.value:9}  {code:>4}  {began:19}  {shown}")
    if status.error:
        click.echo(f"    {status.error}")


@job.command()
@_config
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Give up waiting after so long.")
@_jobs
def wait(jobs: tuple[str, ...], ssh_config: str | None, timeout_s: float | None) -> int:
    """Wait until jobs have ended. The exit code is the command's where it is one job; else 1 when one failed."""
    found = _find(jobs, ssh_config)
    until = None if timeout_s is None else time.monotonic() + timeout_s
    for one in found:
        one.wait(None if until is None else max(0.0, round(until - time.monotonic(), 3)))
    codes = [_code(one) for one in found]
    return codes[0] if len(codes) == 1 else EXIT_FAILED * any(one.state is not State.DONE for one in found)


@job.command()
@_config
@click.option("--grace", "grace_s", type=float, default=5.0, show_default=True, help="Seconds from SIGTERM to SIGKILL.")
@_jobs
def cancel(jobs: tuple[str, ...], ssh_config: str | None, grace_s: float) -> None:
    """End jobs with all that they started."""
    _each(jobs, ssh_config, lambda one: one.cancel(grace_s))


@job.command()
@_config
@_jobs
def suspend(jobs: tuple[str, ...], ssh_config: str | None) -> None:
    """Stop all processes of jobs."""
    _each(jobs, ssh_config, lambda one: one.suspend())


@job.command()
@_config
@_jobs
def resume(jobs: tuple[str, ...], ssh_config: str | None) -> None:
    """Let suspended jobs go on."""
    _each(jobs, ssh_config, lambda one: one.resume())


@job.command()
@_config
@_jobs
def remove(jobs: tuple[str, ...], ssh_config: str | None) -> None:
    """Remove what a host keeps of jobs that have ended."""
    _each(jobs, ssh_config, lambda one: one.remove())


@job.command()
@_config
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@click.option("--stderr", "stream", flag_value="stderr", help="Its standard error.")
@click.option("--stdout", "stream", flag_value="stdout", default="stdout", help="Its standard output, the default.")
@_jobs
def logs(jobs: tuple[str, ...], ssh_config: str | None, stream: str, *, follow: bool) -> None:
    """Print what jobs have written."""
    for one in _find(jobs, ssh_config):
        for piece in one.read(stream, follow=follow):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _each(jobs: Sequence[str], ssh_config: str | None, act: Callable[[Job], None]) -> None:
    for one in _find(jobs, ssh_config):
        act(one)


def _find(names: Sequence[str], ssh_config: str | None) -> list[Job]:
    """The jobs of ``[URL] JOB…``."""
    services: dict[str, JobService] = {}
    here: str | None = None
    found = []
    for name in names:
        if not name:
            raise UsageError("a job's identifier is empty", hint=f"serai job list {here or 'URL'}")
        url, bracket, _ = name[1:].partition("]-[") if name.startswith("[") else (here, "", "")
        if not bracket and ":" in name:
            here = name
            continue
        if url is None:
            raise UsageError(f"{name}: on which host?", hint="write its whole identifier, or the host's URL before it")
        service = services.setdefault(url, JobService(url, ssh_config))
        found.append(service.get_job(name))
    if not found:
        raise UsageError("no job is named", hint=f"serai job list {here}")
    return found
