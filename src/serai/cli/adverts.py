"""`serai adverts`: what the advert service has."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import click

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.adverts.service import Adverts, Change, Entry

WIDTH = 100
WATCH_S = 20.0

_url = click.option("--url", metavar="URL", help="sqlite:///PATH or postgresql://USER@HOST/DATABASE.  [$SERAI_ADVERTS]")


class _Group(click.Group):
    """A group whose first command is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["ls", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def adverts() -> None:
    """Show what the advert service has: nodes, stores, replicas and workers are found there.

    \b
      serai adverts [ls] [PATH] [--where NAME=VALUE]… [-r] [--watch] [--json]
      serai adverts rm [-r] PATH…
    """  # noqa: D301 - click reads the \b


@adverts.command()
@click.argument("path", default="/")
@click.option(
    "--where", metavar="NAME=VALUE", multiple=True, help="Or NAME>NUMBER, NAME<NUMBER; * stands for any text."
)
@click.option("-r", "--recursive", is_flag=True, help="Also what is in the directories below.")
@click.option("-w", "--watch", is_flag=True, help="Tell what there is below PATH, and every change, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects; with --watch, one a line.")
@_url
def ls(path: str, where: Sequence[str], url: str | None, *, recursive: bool, watch: bool, as_json: bool) -> None:
    """List the entries in a directory, and the directories in it.

    PATH begins with a slash; / when it is left out.
    """
    from serai.adverts.service import open_adverts  # noqa: PLC0415 - `serai --help` does without

    with open_adverts(url) as service:
        if watch:
            try:
                _watch(service, path, where, as_json=as_json)
            except KeyboardInterrupt:  # how one stops watching
                return
        else:
            _list(service, path, where, recursive=recursive, as_json=as_json)


@adverts.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Also all that is below.")
@_url
def rm(paths: Sequence[str], url: str | None, *, recursive: bool) -> None:
    """Remove entries."""
    from serai.adverts.service import open_adverts  # noqa: PLC0415 - `serai --help` does without

    with open_adverts(url) as service:
        for path in paths:
            try:
                service.remove(path, recursive=recursive)
            except FileNotFoundError as error:
                below = "" if recursive else "-r removes what is below a path"
                raise UsageError(str(error), hint=below or None) from error


def _list(service: Adverts, path: str, where: Sequence[str], *, recursive: bool, as_json: bool) -> None:
    from serai.adverts.where import conditions  # noqa: PLC0415 - `serai --help` does without

    wanted = conditions(where)
    itself = service.get(path) if path.strip("/") and not path.endswith("/") else None
    entries = [itself] if itself and all(one.holds(itself.attributes) for one in wanted) else []
    entries += service.list(path, where, recursive=recursive)
    now = service.now()
    if as_json:
        click.echo(json.dumps([_as_json(entry, now) for entry in entries], indent=2))
        return
    directories = [] if recursive or where else service.directories(path)
    if entries or directories:
        click.echo("\n".join(_table(entries, directories, now)))
    else:
        click.echo(f"nothing is advertised at {path}" + (" that is so" if where else ""), err=True)


def _table(entries: Sequence[Entry], directories: Sequence[str], now: float) -> list[str]:
    from serai.cli.tables import aligned  # noqa: PLC0415 - `serai --help` does without
    from serai.quantity import format_seconds  # noqa: PLC0415 - the same

    rows = [(f"{path}/", "", "", "") for path in directories]
    for entry in entries:
        left = "never" if entry.expires is None else format_seconds(max(0.0, entry.expires - now))
        rows.append((entry.path, left, entry.owner or "", _short(entry)))
    rows.sort()
    return aligned(["PATH", "EXPIRES IN", "OWNER", "ATTRIBUTES"], rows, right={"EXPIRES IN"}, width=_width())


def _short(entry: Entry) -> str:
    return "  ".join(f"{name}={_value(value)}" for name, value in entry.attributes.items())


def _value(value: object) -> str:
    """A value on one line, harmless to a terminal: others wrote it."""
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _as_json(entry: Entry, now: float) -> dict[str, object]:
    left = None if entry.expires is None else round(max(0.0, entry.expires - now), 3)
    return dataclasses.asdict(entry) | {"expires_in_s": left}


def _watch(service: Adverts, path: str, where: Sequence[str], *, as_json: bool) -> None:
    from serai.adverts.where import conditions  # noqa: PLC0415 - `serai --help` does without

    wanted, shown, since = conditions(where), set[str](), 0
    while True:
        watched = service.watch(path, since, WATCH_S)
        since = watched.version
        for change in watched.changes:
            # What is gone has no attributes to look at: it is told where it was told before.
            if change.entry is None:
                told = change.kind == "reset" or change.path in shown
                shown.discard(change.path)
            else:
                told = all(one.holds(change.entry.attributes) for one in wanted)
                shown.add(change.path) if told else shown.discard(change.path)
            if told:
                click.echo(json.dumps(dataclasses.asdict(change)) if as_json else _line(change))


def _line(change: Change) -> str:
    from serai.cli.tables import cut_right  # noqa: PLC0415 - `serai --help` does without

    owner = f"  claimed by {change.entry.owner}" if change.entry and change.entry.owner else ""
    facts = _short(change.entry) if change.entry else ""
    return cut_right(f"{time.strftime('%H:%M:%S')}  {change.kind:<7}  {change.path}{owner}  {facts}".rstrip(), _width())


def _width() -> int:
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if os.isatty(1) else 10_000
