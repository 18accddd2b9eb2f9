"""`serai store`: a storage appliance, its lots and its tokens."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.stores.wire import Wire

DEFAULT_PORT = 9094  # that of Chirp, NeST's descendant
_NAMED = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


@click.group()
def store() -> None:
    """Serve a directory to whoever holds a token: over HTTP and WebDAV, with guaranteed space.

    \b
      serai store serve /scratch/me                    on this host only
      serai store serve /data --listen 0.0.0.0:9094    beyond it: with TLS, and tokens as always
      serai store token /data --user ann --path /cms --rights rw --expires 7d
    """  # noqa: D301 - click reads the \b


@store.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.option(
    "--listen", default=f"127.0.0.1:{DEFAULT_PORT}", show_default=True, help="HOST:PORT; port 0 is a free one."
)
@click.option("--size", help="What all files may have, such as 100GB; default: what the disk has.")
@click.option("--name", default="", help="The store's name in its ad.")
@click.option("--dataset", "datasets", multiple=True, help="A directory to name in the ad; default: those at the top.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="Another attribute of the ad.")
@click.option("--cert", type=click.Path(dir_okay=False), help="A certificate (PEM); default: one is made.")
@click.option("--key", type=click.Path(dir_okay=False), help="Its key.")
@click.option("--tls", is_flag=True, help="TLS on loopback too.")
@click.option(
    "--at-once",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Transfers that go well at a time; with more, the ad says how long a new one waits, and nodes go elsewhere.",
)
@click.option("--adverts", help="Where the ad goes; default: $SERAI_ADVERTS, or this user's own service.")
@click.option("--no-ad", is_flag=True, help="Publish no ad.")
def serve(directory: str, listen: str, size: str | None, attributes: tuple[str, ...], **options: Any) -> None:
    """Serve DIRECTORY until Ctrl-C. Your own clients on this host find their token by themselves."""
    import asyncio  # noqa: PLC0415 - `serai --help` does without

    from serai.clock import SystemClock  # noqa: PLC0415 - the same
    from serai.errors import UsageError  # noqa: PLC0415 - the same
    from serai.quantity import bytes_of  # noqa: PLC0415 - the same

    try:
        from serai.data.appliance.serve import Settings  # noqa: PLC0415 - the same
        from serai.data.appliance.serve import serve as run  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UsageError(f"the appliance needs {error.name}", hint="pip install 'serai[store]'") from error
    host, port = _host_port(listen)
    if (options["cert"] is None) != (options["key"] is None):
        raise UsageError("--cert and --key are given together")
    settings = Settings(
        directory,
        host,
        port,
        name=options["name"],
        size=None if size is None else bytes_of(size),
        cert=options["cert"],
        key=options["key"],
        tls=options["tls"],
        datasets=options["datasets"],
        attributes=dict(map(_attribute, attributes)),
        adverts="" if options["no_ad"] else options["adverts"],
        at_once=options["at_once"],
    )
    asyncio.run(run(settings, SystemClock(), click.echo, os.environ))


@store.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--user", required=True, help="Who will hold it.")
@click.option("--path", default="/", show_default=True, help="Where it holds, with all below.")
@click.option("--rights", default="r", show_default=True, help="r (read and list), w (write), l (list), a (all).")
@click.option("--expires", default="7d", show_default=True, help="How long it lives.")
@click.option(
    "--to", "file", type=click.Path(dir_okay=False), help="Write it to this file (mode 0600); default: print it."
)
def token(directory: str, user: str, path: str, rights: str, expires: str, file: str | None) -> None:
    """Make a token for what is served from DIRECTORY. It is told once: only a digest is kept."""
    from serai.access.stores.trust import save_token  # noqa: PLC0415 - `serai --help` does without
    from serai.quantity import seconds  # noqa: PLC0415 - the same

    now = time.time()
    text, made = _keys(directory).make_token(user, path, rights, now + seconds(expires), now)
    if file is None:
        click.echo(text)
    else:
        save_token(file, text)
    click.echo(f"token {made.name} of {user}: {made.rights} at {made.path} until {_when(made.expires)}", err=True)


@store.command()
@click.argument("directory", type=click.Path(file_okay=False))
def tokens(directory: str) -> None:
    """List the tokens for what is served from DIRECTORY, and its access list."""
    keys = _keys(directory)
    rows = [
        (one.name, one.user, one.rights, _when(one.expires), f"{len(one.paths)} files" if one.parent else one.path)
        for one in keys.tokens.values()
    ]
    _table(("token", "user", "rights", "until", "path"), rows)
    if keys.grants:
        from serai.data.appliance.paths import text_of  # noqa: PLC0415 - seldom
        from serai.data.appliance.rights import letters  # noqa: PLC0415 - seldom

        click.echo()
        _table(("user", "rights", "path"), [(g.user, letters(g.rights) or "-", text_of(g.prefix)) for g in keys.grants])


@store.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("name")
def revoke(directory: str, name: str) -> int:
    """End a token at once, or all tokens of a user."""
    count = _keys(directory).revoke(name)
    click.echo(f"{count} token{'s' * (count != 1)} revoked")
    return 0 if count else 1


@store.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("user")
@click.option("--path", default="/", show_default=True, help="Where, with all below.")
@click.option("--rights", help="r, w, l, a; empty for none there. Of USER *: without a token, on loopback only.")
@click.option("--quota", help="The most that the user's files and lots may have; none: no limit.")
def allow(directory: str, user: str, path: str, rights: str | None, quota: str | None) -> None:
    """Write a line of the access list: what USER's tokens are good for at a path, at the most; or set a quota."""
    from serai.quantity import bytes_of  # noqa: PLC0415 - `serai --help` does without

    keys = _keys(directory)
    if rights is not None:
        keys.allow(user, path, rights)
    if quota is not None:
        keys.limit(user, None if quota == "none" else bytes_of(quota))


@store.command()
@click.argument("url")
@click.argument("fingerprint")
def trust(url: str, fingerprint: str) -> None:
    """Remember the certificate of the store at URL by its FINGERPRINT, as ssh remembers host keys."""
    from serai.access.stores.trust import remember  # noqa: PLC0415 - `serai --help` does without
    from serai.access.stores.wire import server_of  # noqa: PLC0415 - the same
    from serai.errors import UsageError  # noqa: PLC0415 - the same

    server = server_of(url)[0]
    try:
        remember(server.host, server.port, fingerprint, os.environ)
    except ValueError as error:
        raise UsageError(str(error), hint="serai store serve prints it: sha256:…") from error


@store.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def status(url: str, *, as_json: bool) -> None:
    """Show what the store at URL has, and what you may do there."""
    from serai.quantity import format_bytes  # noqa: PLC0415 - `serai --help` does without

    found = _wire(url).json("GET", "/.serai/status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['name']} on {found['host']}")
    for name in ("capacity", "free", "reserved", "stored", "best_effort"):
        click.echo(f"  {name.replace('_', ' '):12}{format_bytes(found[name])}")
    for mode, where in found["modes"]:
        click.echo(f"  {mode:12}{where}")
    for user, size in sorted(found["usage"].items()):
        quota = found["quotas"].get(user)
        of = f" of {format_bytes(quota)}" if quota is not None else ""
        click.echo(f"  used by {user}: {format_bytes(size)}{of}")
    you = found["you"]
    click.echo(f"  you are {you['user']}, with {you['rights']} at {you['path']}")


@store.group()
def lot() -> None:
    """Guaranteed space."""


@lot.command()
@click.argument("url")
@click.argument("size")
@click.option("--for", "life", default="7d", show_default=True, help="How long.")
@click.option("--user", help="For whom; others than yourself as administrator.")
def reserve(url: str, size: str, life: str, user: str | None) -> None:
    """Reserve SIZE at the store at URL; prints the lot's name."""
    from serai.quantity import bytes_of, seconds  # noqa: PLC0415 - `serai --help` does without

    said = {"size": bytes_of(size), "life_s": seconds(life), "user": user}
    click.echo(_wire(url).json("POST", "/.serai/lots", said)["name"])


@lot.command()
@click.argument("url")
@click.argument("name")
@click.option("--for", "life", default="7d", show_default=True, help="How long from now.")
def renew(url: str, name: str, life: str) -> None:
    """Keep a lot for longer."""
    from serai.quantity import seconds  # noqa: PLC0415 - `serai --help` does without

    _wire(url).json("POST", f"/.serai/lots/{name}", {"life_s": seconds(life)})


@lot.command("list")
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def list_lots(url: str, *, as_json: bool) -> None:
    """List your lots; as administrator all."""
    from serai.quantity import format_bytes  # noqa: PLC0415 - `serai --help` does without

    found = _wire(url).json("GET", "/.serai/lots")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (
            one["name"],
            one["user"],
            format_bytes(one["size"]),
            format_bytes(one["used"]),
            _when(one["until"]) if one["live"] else "best effort",
        )
        for one in found
    ]
    _table(("lot", "user", "size", "used", "until"), rows)


@lot.command()
@click.argument("url")
@click.argument("name")
def release(url: str, name: str) -> None:
    """End a lot now; its files stay until space is needed."""
    _wire(url).json("DELETE", f"/.serai/lots/{name}")


def _wire(url: str) -> Wire:
    from serai.access.stores.wire import wire_of  # noqa: PLC0415 - `serai --help` does without

    return wire_of(url)


def _keys(directory: str) -> Any:
    from serai.data.appliance.keys import keys_of  # noqa: PLC0415 - `serai --help` does without

    return keys_of(directory)


def _host_port(text: str) -> tuple[str, int]:
    from serai.errors import UsageError  # noqa: PLC0415 - `serai --help` does without

    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and int(port) < 65536) or not host:
        raise UsageError(f"{text!r} is no HOST:PORT", hint=f"such as 0.0.0.0:{DEFAULT_PORT} or 127.0.0.1:0")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _attribute(text: str) -> tuple[str, Any]:
    from serai.errors import UsageError  # noqa: PLC0415 - `serai --help` does without

    name, equals, value = text.partition("=")
    if not equals or not _NAMED.fullmatch(name):
        raise UsageError(f"{text!r} is no NAME=VALUE", hint="such as HasCMSData=true")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, read if isinstance(read, str | int | float | bool) else value


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
