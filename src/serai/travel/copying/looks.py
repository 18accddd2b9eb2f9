"""What is there: facts of many paths and of whole trees, in one call.

Directories, links and stamps are made, paths renamed and removed, in one call for many, too.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import grp
import json
import os
import platform
import pwd
import shutil
import stat
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Optional

    from ..porter.calls import Call

    Row = Optional[list[Any]]  # a fact: see `fact`

ROWS = 1000  # of a tree in one piece
NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR))


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"


def fact(path: str, found: os.stat_result) -> list[Any]:
    """What is known of a path: kind, size, mode, mtime in ns, link, kind of what is behind it, device, inode."""
    kind = _kind(found.st_mode)
    link = behind = None
    if kind == "link":
        with contextlib.suppress(OSError):
            link = os.readlink(path)
            behind = _kind(os.stat(path).st_mode)
    return [
        kind,
        found.st_size,
        stat.S_IMODE(found.st_mode),
        found.st_mtime_ns,
        link,
        behind,
        found.st_dev,
        found.st_ino,
    ]


def look(paths: Sequence[str], follow: bool) -> list[Any]:
    """For each path its fact, None when nothing is there, or [errno, sentence]."""
    found: list[Any] = []
    for path in paths:
        try:
            found.append(fact(path, os.stat(path) if follow else os.lstat(path)))
        except OSError as error:
            found.append(None if error.errno in NOT_THERE else [error.errno, error.strerror])
        except ValueError:
            found.append(None)  # a NUL in it
    return found


def walk(root: str, follow: bool, within: Optional[Sequence[str]] = None) -> Iterator[list[Any]]:
    """Yield ``[name, fact]`` of all in a directory, parents first, and ``[name, [errno, sentence]]`` of what hides.

    Args:
        root: a directory; its own name is "".
        follow: whether links are followed. One that leads to a directory it is in is trouble.
        within: the names of the only directories that are looked into; None for all.
    """
    only = None if within is None else set(within)
    top = os.stat(root)
    yield ["", fact(root, top)]
    # (name of a directory, its path, the identities of those it is in)
    stack: list[tuple[str, str, tuple[Any, ...]]] = [("", root, ((top.st_dev, top.st_ino),))]
    while stack:
        name, path, above = stack.pop()
        try:
            with os.scandir(path) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield [name, [error.errno, error.strerror]]
            continue
        deeper = []
        for entry in children:
            below = name + "/" + entry.name if name else entry.name
            try:
                found = entry.stat(follow_symlinks=follow)
            except OSError as error:
                yield [below, [error.errno, error.strerror]]
                continue
            is_directory = stat.S_ISDIR(found.st_mode)
            here: tuple[Any, ...] = ()
            if is_directory and follow:
                if (found.st_dev, found.st_ino) in above:
                    yield [below, [errno.ELOOP, "a link that leads to a directory it is in"]]
                    continue
                here = (*above, (found.st_dev, found.st_ino))
            yield [below, fact(entry.path, found)]
            if is_directory and (only is None or below in only):
                deeper.append((below, entry.path, here))
        stack.extend(reversed(deeper))


def details(path: str, inside: bool) -> list[list[Any]]:
    """What ``ls -l`` shows, of a path or of what is in a directory: [name, fact, links, owner, group] of each."""
    if not inside:
        return [_detail(path, path)]
    return [_detail(name, os.path.join(path, name)) for name in sorted(os.listdir(path))]


def _detail(name: str, path: str) -> list[Any]:
    found = os.lstat(path)
    return [name, fact(path, found), found.st_nlink, _owner(found.st_uid), _group(found.st_gid)]


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def clear(path: str) -> list[list[Any]]:
    """Remove a path with all that is in it; [path, errno, sentence] of what could not be. Links are not followed."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return []
    troubles: list[list[Any]] = []

    def failed(_act: object, name: str, info: Any) -> None:
        error = info[1]
        # That a directory is not empty follows from what was said of what is in it.
        if not (troubles and error.errno in (errno.ENOTEMPTY, errno.EEXIST)):
            troubles.append([name, error.errno or 0, error.strerror or str(error)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # onerror has another name since 3.12, unknown before
        shutil.rmtree(path, onerror=failed)
    return troubles


def fitting(pattern: str) -> list[str]:
    """What fits a pattern of a shell; ``**`` stands for any directories."""
    return sorted(glob.glob(pattern, recursive=True))


def each(rows: Iterable[Any], act: Callable[[Any], object]) -> list[list[Any]]:
    """Do something with each row, and return [number, errno, sentence] of those it failed for."""
    troubles = []
    for number, row in enumerate(rows):
        try:
            act(row)
        except OSError as error:
            troubles.append([number, error.errno or 0, error.strerror or str(error)])
        except ValueError as error:
            troubles.append([number, 0, str(error)])
    return troubles


def make(row: Sequence[Any]) -> None:
    """Make a directory that can be written to for now: [path, mode]."""
    path, mode = row
    try:
        os.mkdir(path, 0o777 if mode is None else mode & 0o777 | 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_new(row: Sequence[Any]) -> None:
    """Make a directory that is not there: [path, mode]."""
    os.mkdir(row[0])
    if row[1] is not None:
        os.chmod(row[0], row[1])


def make_all(row: Sequence[Any]) -> None:
    """Make a directory and those it is in, where they are not there: [path, mode]."""
    there = os.path.isdir(row[0])
    os.makedirs(row[0], exist_ok=True)
    if row[1] is not None and not there:
        os.chmod(row[0], row[1])


def link(row: Sequence[Any]) -> None:
    """Make a symbolic link, in place of what is there unless that is a directory: [path, where it leads]."""
    path, leads = row
    partial = path + ".serai-partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    os.symlink(leads, partial)
    try:
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def stamp(row: Sequence[Any]) -> None:
    """Set what is not None: [path, mode, mtime in ns]."""
    path, mode, mtime_ns = row
    if mode is not None:
        os.chmod(path, mode & 0o7777)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def remove(path: str) -> None:
    """Remove one path; a directory must be empty."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)


def rename(row: Sequence[Any]) -> None:
    """Give a path another name, in place of a file or an empty directory: [path, new path]."""
    os.rename(row[0], row[1])


def where() -> dict[str, Any]:
    """What tells this file system, seen as this user, from all others; and the home directory.

    Hosts in containers may share a kernel and a name: their roots differ.
    """
    root = os.stat("/")
    boot = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return {
        "host": platform.node(),
        "boot": boot,
        "uid": os.geteuid(),
        "root": [root.st_dev, root.st_ino],
        "home": os.path.expanduser("~"),
        "umask": umask(),
    }


def umask() -> int:
    """The bits that new files are not given."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    value = os.umask(0o077)  # other threads see this for a moment: only where nothing else can be asked
    os.umask(value)
    return value


def _rows(call: Call) -> Any:
    return json.loads(call.body)


def do_look(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"follow"}, [path] -> [fact | None | [errno, sentence]]."""
    return {}, json.dumps(look(_rows(call), bool(call.head.get("follow")))).encode()


def do_walk(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path", "follow"}, [name] or nothing -> pieces, each a line with a list of what `walk` yields."""
    rows = []
    for row in walk(call.head["path"], bool(call.head.get("follow")), _rows(call) if call.body else None):
        rows.append(row)
        if len(rows) == ROWS:
            call.write(json.dumps(rows).encode() + b"\n")
            rows = []
    if rows:
        call.write(json.dumps(rows).encode() + b"\n")
    return {}, b""


ACTS: dict[str, Callable[[Any], object]] = {
    "make": make,
    "make_new": make_new,
    "make_all": make_all,
    "link": link,
    "stamp": stamp,
    "rename": rename,
    "remove": remove,
}


def do_each(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"act"}, [row] -> [[number, errno, sentence]] of those it failed for."""
    return {}, json.dumps(each(_rows(call), ACTS[call.head["act"]])).encode()


def do_glob(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"pattern"} -> [path]."""
    return {}, json.dumps(fitting(call.head["pattern"])).encode()


def do_details(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path", "inside"} -> see `details`."""
    return {}, json.dumps(details(call.head["path"], bool(call.head["inside"]))).encode()


def do_clear(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path"} -> see `clear`."""
    return {}, json.dumps(clear(call.head["path"])).encode()


def do_where(_call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{} -> see `where`."""
    return where(), b""


HANDLERS = {
    "looks.look": do_look,
    "looks.walk": do_walk,
    "looks.glob": do_glob,
    "looks.each": do_each,
    "looks.details": do_details,
    "looks.clear": do_clear,
    "looks.where": do_where,
}
