"""The file commands that carry nothing between hosts: `ls`, `cat`, `rm`, `stat`, `mkdir`, `du`."""

from __future__ import annotations

import posixpath
import sys
from typing import TYPE_CHECKING, Any

import click

from serai.cli.filing.operands import CONFIG, URLS, complain, echo, meant, opened, reason, shown, stdin_pieces
from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.data.copying.opening import Place

_NO_H = {"help_option_names": ["--help"]}  # -h stands for something else


def each(command: str, places: Sequence[Place], act: Callable[[Place], Any]) -> tuple[list[tuple[Place, Any]], int]:
    """Do something with every place, all file systems at once; complains of those that it fails for, in order."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - `serai --help` does without

    def attempt(place: Place) -> Any:
        try:
            return act(place)
        except (OSError, SeraiError) as error:
            return error

    stores = {place.end.store for place in places}
    if len(stores) > 1:
        with ThreadPoolExecutor(len(stores)) as pool:
            results = list(pool.map(attempt, places))
    else:
        results = [attempt(place) for place in places]
    code = 0
    good = []
    for place, result in zip(places, results, strict=True):
        if isinstance(result, OSError | SeraiError):
            complain(command, f"{place.shown}: {reason(result)}")
            code = 1
        else:
            good.append((place, result))
    return good, code


@click.command(context_settings=_NO_H)
@click.option("-l", "long", is_flag=True, help="Show permissions, owner, size and time.")
@click.option("-a", "--all", "every", is_flag=True, help="Also names that begin with a dot.")
@click.option("-R", "--recursive", is_flag=True, help="Also what is in directories.")
@click.option("-1", "one", is_flag=True, help="A name a line; the default where this is no terminal.")
@click.option("-h", "human", is_flag=True, help="Sizes as 1.2M.")
@click.option("-d", "--directory", is_flag=True, help="Directories themselves, not what is in them.")
@click.option("-t", "by_time", is_flag=True, help="The newest first.")
@click.option("-S", "by_size", is_flag=True, help="The largest first.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="[URL]...")
def ls(urls: tuple[str, ...], **options: Any) -> int:
    """List what is in directories, of this machine, of hosts and of whatever else has a URL."""
    from serai.cli.filing.listing import Listing  # noqa: PLC0415 - `serai --help` does without

    places, code = opened("ls", urls or (".",), options["ssh_config"])
    listing = Listing(options)
    found, failed = each("ls", places, listing.look)
    lines, troubles = listing.lines(found)
    for line in lines:
        echo(line)
    for place, what in troubles:
        complain("ls", f"{place}: {what}")
    return max(code, failed, 1 if troubles else 0)


@click.command()
@click.option(
    "--range", "span", metavar="FROM:TO", help="Only the bytes FROM up to and without TO; either may be left out."
)
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="[URL]...")
def cat(urls: tuple[str, ...], span: str | None, ssh_config: str | None) -> int:
    """Print files, one after another. `-` is the standard input."""
    return print_files("cat", urls or ("-",), ssh_config, _span(span))


def _span(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    start, colon, stop = text.partition(":")
    good = bool(colon) and (not start or start.isdecimal()) and (not stop or stop.isdecimal())
    if not good or (stop and int(stop) < int(start or 0)):
        raise UsageError(f"{text!r} is no range of bytes", hint="write FROM:TO, such as 0:100 or 1000:")
    return int(start or 0), int(stop) if stop else None


def print_files(
    command: str, urls: Sequence[str], ssh_config: str | None, span: tuple[int, int | None] = (0, None)
) -> int:
    """Write files to standard output; gives the exit code."""
    from serai.data.copying.opening import open_places  # noqa: PLC0415 - `serai --help` does without

    named = [url for url in urls if url != "-"]
    ends = dict(zip(named, open_places(named, ssh_config) if named else [], strict=True))
    code = 0
    for url in urls:
        if url == "-":
            _print(stdin_pieces(), *span)
            continue
        places = meant(command, url, ends[url])
        code = code if places else 1
        for one in places:
            try:
                start, stop = span
                _print(one.end.read(one.path, start, follow=True, said={}), 0, None if stop is None else stop - start)
            except BrokenPipeError:
                raise
            except (OSError, SeraiError) as error:
                complain(command, f"{one.shown}: {reason(error)}")
                code = 1
    return code


def _print(pieces: Iterator[bytes | memoryview], start: int, stop: int | None) -> None:
    out = sys.stdout.buffer
    at = 0
    for piece in pieces:
        first, last = max(0, start - at), len(piece) if stop is None else max(0, stop - at)
        out.write(memoryview(piece)[first:last])
        at += len(piece)
        if stop is not None and at >= stop:
            break
    out.flush()


@click.command(no_args_is_help=True)
@click.option("-r", "-R", "--recursive", is_flag=True, help="Also directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was removed.")
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="URL...")
def rm(urls: tuple[str, ...], *, recursive: bool, force: bool, verbose: bool, ssh_config: str | None) -> int:
    """Remove files. Never the root, a home directory, or what . and .. stand for."""
    places, code = opened("rm", urls, ssh_config)

    def remove(place: Place) -> list[OSError]:
        _refuse_what_holds_all(place)
        look = place.end.look([place.path])[0]
        if look is None:
            if force:
                return []
            raise FileNotFoundError(2, "No such file or directory")
        if isinstance(look, OSError):
            raise look
        if look.kind == "directory" and not recursive:
            raise IsADirectoryError(21, "Is a directory")
        return place.end.clear(place.path)

    done, failed = each("rm", places, remove)
    code = max(code, failed)
    for place, troubles in done:
        for error in troubles:
            name = str(error.filename)
            name = place.shown.rstrip("/") + name[len(place.path) :] if name.startswith(place.path) else name
            complain("rm", f"{name}: {reason(error)}")
            code = 1
        if verbose and not troubles:
            echo(f"removed {shown(place.shown)}")
    return code


def _refuse_what_holds_all(place: Place) -> None:
    """Refuse what nobody means to remove.

    Raises:
        OSError: it is such.
    """
    path = place.path
    if posixpath.basename(path) in {".", ".."}:
        raise OSError(22, "refusing to remove '.' or '..'")
    if posixpath.normpath(path) in {"/", "//"}:
        raise OSError(22, "refusing to remove the root")
    home = getattr(place.end, "home", None)
    if home is not None:
        top, mine = place.end.look([path, home], follow=False)
        same = getattr(top, "identity", None)
        if same is not None and same == getattr(mine, "identity", ()):
            raise OSError(22, "refusing to remove a home directory")


@click.command(no_args_is_help=True)
@click.option("-L", "--dereference", is_flag=True, help="Of what links lead to.")
@click.option(
    "-c",
    "--format",
    "pattern",
    metavar="FORMAT",
    help="%n name, %s size, %a %A mode, %F kind, %U %G owner, %Y %y time, %N link.",
)
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="URL...")
def stat(urls: tuple[str, ...], *, dereference: bool, pattern: str | None, ssh_config: str | None) -> int:
    """Show what is known of files."""
    from serai.cli.filing.listing import described  # noqa: PLC0415 - `serai --help` does without

    places, code = opened("stat", urls, ssh_config)

    def look(place: Place) -> str:
        detail = place.end.details(place.path, inside=False)[0]
        if dereference or place.slash:
            found = place.end.look([place.path], follow=True)[0]
            if found is None:
                raise FileNotFoundError(2, "No such file or directory")
            if isinstance(found, OSError):
                raise found
            if place.slash and found.kind != "directory":
                raise NotADirectoryError(20, "Not a directory")
            detail = (detail[0], found, *detail[2:])
        return described(place.shown, detail, pattern)

    found, failed = each("stat", places, look)
    for _, text in found:
        echo(text)
    return max(code, failed)


@click.command(no_args_is_help=True)
@click.option("-p", "--parents", is_flag=True, help="Also those it is in; what exists is no error.")
@click.option("-m", "--mode", metavar="MODE", help="Permissions, as an octal number.")
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="URL...")
def mkdir(urls: tuple[str, ...], *, parents: bool, mode: str | None, ssh_config: str | None) -> int:
    """Make directories."""
    try:
        bits = None if mode is None else int(mode, 8)
    except ValueError:
        raise UsageError(f"mkdir: {mode!r} is no octal number") from None
    places, code = opened("mkdir", urls, ssh_config)

    def make(place: Place) -> None:
        for _, error in place.end.each("make_all" if parents else "make_new", [[place.path, bits]]):
            raise error

    _, failed = each("mkdir", places, make)
    return max(code, failed)


@click.command(context_settings=_NO_H)
@click.option("-s", "--summarize", is_flag=True, help="Only the sum of each operand.")
@click.option("-h", "human", is_flag=True, help="Sizes as 1.2M.")
@CONFIG
@click.argument("urls", type=URLS, nargs=-1, metavar="[URL]...")
def du(urls: tuple[str, ...], *, summarize: bool, human: bool, ssh_config: str | None) -> int:
    """Sum up the sizes of files, in bytes, by directory."""
    from serai.cli.filing.listing import sums  # noqa: PLC0415 - `serai --help` does without

    places, code = opened("du", urls or (".",), ssh_config)
    found, failed = each("du", places, lambda place: sums(place, summarize=summarize, human=human))
    for place, (lines, troubles) in found:
        for line in lines:
            echo(line)
        for name, why in troubles.items():
            complain("du", f"{place.shown.rstrip('/')}/{name}: {why}")
            code = 1
    return max(code, failed)
