"""`serai mount`: what is at a URL, as files, for a command and its children, or for everybody here."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.travel.mount.wrap import Mount
    from serai.travel.reading.sources import Source

CACHE = "2GB"


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
@click.argument("url")
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--read-only", is_flag=True, help="Nothing can be changed.")
@click.option(
    "--cache", default=CACHE, show_default=True, metavar="SIZE", help="The most that is kept of what is read."
)
@click.option("--deadline", default="30s", show_default=True, help="A source that is silent for so long is an error.")
@click.option("--record", type=click.Path(dir_okay=False), help="Add to this file which parts of which files are read.")
@click.option("--public", is_flag=True, help="Mount for everybody here, until Ctrl-C: as root, or by fusermount3.")
@click.option("-F", "--ssh-config", metavar="FILE", help="Give ssh this instead of ~/.ssh/config.")
def mount(url: str, directory: str, command: tuple[str, ...], *, public: bool, **options: Any) -> int:
    """Show what is at URL as files in DIRECTORY, to COMMAND and what it starts, or to everybody.

    \b
      serai mount ssh://lab1/data /mnt -- ./analyse /mnt/run1.root     one program, no privilege
      serai mount store://nest:9094/cms ~/cms                         a shell; it is gone when that ends
      serai mount s3://bucket/path /mnt --public                      everybody, until Ctrl-C

    URL: ssh://, any://, store://, s3:// and whatever else fsspec knows, or a directory. What is written goes to the
    source when the file is closed, whole. The exit code is that of COMMAND.
    """  # noqa: D301 - click reads the \b
    from serai.errors import UsageError  # noqa: PLC0415 - `serai --help` does without
    from serai.quantity import bytes_of, seconds  # noqa: PLC0415 - the same

    where = os.path.abspath(directory)
    if _left_behind(where):
        raise UsageError(
            f"{directory} is a mount whose server has gone", hint=f"umount {directory}, or fusermount3 -u {directory}"
        )
    if not os.path.isdir(where):
        raise UsageError(f"{directory} is no directory", hint=f"mkdir {directory}")
    deadline_s, limit = seconds(options["deadline"]), bytes_of(options["cache"])
    if not deadline_s or deadline_s <= 0:
        raise UsageError("--deadline is a time, such as 30s")
    if public and command:
        raise UsageError("a mount for everybody has no command of its own", hint="leave out --public, or the command")
    if not command and not public and sys.stdin.isatty():
        command = (os.environ.get("SHELL") or "/bin/sh",)

    def made(read_only: bool) -> Mount:
        return _mount(url, options, (deadline_s, limit), read_only=read_only)

    if command:
        return _run(command, where, options["read_only"], made)
    return _show(url, where, options["read_only"], made)


def _source(url: str, ssh_config: str | None, silent_s: float) -> Source:
    """What a URL names: our own appliances by their own protocol, directories as such, all else by fsspec."""
    from serai.travel.reading import web  # noqa: PLC0415 - `serai --help` does without
    from serai.travel.reading.sources import Directory  # noqa: PLC0415 - the same

    if url.startswith("store://"):
        from serai.access.stores.trust import known_fingerprint, token_path  # noqa: PLC0415 - the same
        from serai.access.stores.wire import server_of  # noqa: PLC0415 - the same

        server, path = server_of(url)
        pin = server.fingerprint or known_fingerprint(server.host, server.port, os.environ)
        token = server.token_file or token_path(server.host, server.port, os.environ)
        token_file = token if os.path.exists(token) else None
        far = web.Server(server.host, server.port, fingerprint=pin, token_file=token_file, silent_s=silent_s)
        return web.Store(far, path)
    path = url.removeprefix("local:").removeprefix("file://")
    if "://" not in path and "::" not in path:
        return Directory(os.path.expanduser(path))
    from serai.data.afar import FarSource  # noqa: PLC0415 - the same

    return FarSource(url, ssh_config)


def _mount(url: str, options: dict[str, Any], limits: tuple[float, int], *, read_only: bool) -> Mount:
    """The mount, whose source has answered once: what is wrong with a URL is said at once."""
    from serai.errors import AccessError, UsageError  # noqa: PLC0415 - `serai --help` does without
    from serai.travel.mount.wrap import Mount  # noqa: PLC0415 - the same

    deadline_s, limit = limits
    source = _source(url, options["ssh_config"], deadline_s)
    try:
        found = source.stat("/")
    except FileNotFoundError as error:
        raise UsageError(f"there is nothing at {url}") from error
    except OSError as error:
        raise AccessError(f"{url} cannot be read: {error.strerror or error}", hint=_hint(url, error)) from error
    if found.kind != "directory":
        raise UsageError(f"{url} is a file", hint="mount the directory that it is in")
    from serai.describe.places import split_options  # noqa: PLC0415 - `serai --help` does without

    cache = _cache_directory()
    top = split_options(url)[0].rstrip("/")
    return Mount(
        source,
        lambda path: top + path,
        cache=(os.path.join(cache, "blocks"), limit),
        record=options["record"],
        scratch=None if read_only else _scratch(cache),
        deadline_s=deadline_s,
    )


def _hint(url: str, error: OSError) -> str | None:
    """What can be done about a URL that cannot be read."""
    if not url.startswith("store://") or error.errno != errno.EACCES:
        return None
    from serai.access.stores.trust import token_path  # noqa: PLC0415 - `serai --help` does without
    from serai.access.stores.wire import server_of  # noqa: PLC0415 - the same

    server, _ = server_of(url)
    path = server.token_file or token_path(server.host, server.port, os.environ)
    return f"the token is looked for in {path}; serai store status URL says what it is good for"


def _left_behind(where: str) -> bool:
    try:
        os.stat(where)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _cache_directory() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("SERAI_CACHE") or os.path.join(home, "serai")


def _scratch(cache: str) -> str:
    path = os.path.join(cache, "drafts")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _run(command: Sequence[str], where: str, read_only: bool, made: Callable[[bool], Mount]) -> int:
    """Run a command in namespaces of its own, which are forked before anything here has threads."""
    from serai.travel.mount import namespace, wrap  # noqa: PLC0415 - `serai --help` does without

    sys.stdout.flush()
    try:
        program = namespace.start(command, where, read_only=read_only, bound=False)
    except namespace.CannotMount as error:
        raise _cannot(error) from error
    try:
        mount = made(read_only)
    except BaseException:
        program.cancel()
        raise
    wrap.end_as(wrap.follow(program, mount, linger=True))
    return 0


def _show(url: str, where: str, read_only: bool, made: Callable[[bool], Mount]) -> int:
    """Mount for everybody, until Ctrl-C or ``fusermount3 -u``."""
    from serai.travel.mount import namespace  # noqa: PLC0415 - `serai --help` does without

    mount, by_helper = made(read_only), os.geteuid() != 0
    try:
        if by_helper:
            device = namespace.mount_by_helper(where, read_only=read_only)
        else:
            device = namespace.open_device()
            namespace.mount(device, where, read_only=read_only, public=True)
    except namespace.CannotMount as error:
        raise _cannot(error) from error
    session = mount.serve(device)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    click.echo(f"{url} is at {where}", err=True)
    while not session.ended.is_set() and not stop.wait(0.2):
        pass
    if not session.ended.is_set():
        (namespace.unmount_by_helper if by_helper else namespace.unmount)(where)
        session.ended.wait(5.0)
    mount.close()
    return 0


def _cannot(error: Any) -> Exception:
    from serai.errors import AccessError  # noqa: PLC0415 - `serai --help` does without

    return AccessError(f"{error.strerror}: {os.strerror(error.errno or 0)}", hint=error.hint or None)
