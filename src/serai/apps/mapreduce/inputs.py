"""What is mapped: paths, directories, globs and URLs become files with their sizes."""

from __future__ import annotations

import glob
import os
import stat
from datetime import datetime
from typing import TYPE_CHECKING, Any

from serai.apps.mapreduce.plan import Input, compression_of
from serai.apps.workers.locality import facts_of
from serai.describe.mapreduce import HAS_SCHEME
from serai.errors import SeraiError, UsageError
from serai.session.url import Url
from serai.travel.steward import who

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.describe.host import HostFacts

MOST_INPUTS = 10_000  # every one is a map at least, and every reduce is told where each map's output is
MOST_NAMED = 20  # of those that are not there
_PATTERN = frozenset("*?[")
_HERE = ("local", "file", "fork")
_THIS_MACHINE = ("", "localhost", "127.0.0.1", "::1")


def host_key(url: Url) -> str:
    """How inputs and workers name a host: "" for this machine, else the user, host and port of the URL."""
    if url.scheme in _HERE or url.host is None or (url.scheme == "any" and url.host in _THIS_MACHINE):
        return ""
    return (f"{url.user}@" if url.user else "") + url.host + (f":{url.port}" if url.port else "")


def local_path(text: str) -> str | None:
    """The path on this machine that a text names; None when it is a URL of somewhere else."""
    if not HAS_SCHEME.match(text):
        return text
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in {*_HERE, "any"}:
        return None
    if not rest.startswith("//"):
        return rest or "."
    host, _, path = rest[2:].partition("/")
    return f"/{path}" if host in _THIS_MACHINE else None


def expand(texts: Iterable[str], ssh_configs: dict[str, str | None] | None = None) -> list[Input]:
    """Finds the files that are meant, in the order of the texts; of a glob or directory in the order of their names.

    Of a directory its files are taken, but none whose name begins with ``.`` or ``_``, and no further directories.

    Args:
        texts: paths, globs, directories, or URLs of such.
        ssh_configs: for each host, as `host_key` names it, the file that ssh is given.

    Raises:
        UsageError: of some nothing is there, or it cannot be read: all are named; or it is too much.
        AccessError: a host cannot be asked.
    """
    found: list[Input] = []
    missing: list[str] = []
    for text in texts:
        path = local_path(text)
        some = _here(path) if path is not None else _elsewhere(text, ssh_configs or {})
        if not some:
            missing.append(text)
        found += some
        if len(found) > MOST_INPUTS:
            raise UsageError(f"more than {MOST_INPUTS} input files", hint="join small files: each is a task of its own")
    if missing:
        more = "".join(f"\nthere is no input {text}" for text in missing[1:MOST_NAMED])
        more += f"\nand {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise UsageError(f"there is no input {missing[0]}{more}", hint="name files, directories or globs")
    return found


def _visible(path: str) -> bool:
    return not os.path.basename(path).startswith((".", "_"))


def _here(text: str) -> list[Input]:
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(path):
        paths = [entry.path for entry in os.scandir(path) if entry.is_file() and _visible(entry.path)]
    elif os.path.exists(path):
        paths = [path]
    elif _PATTERN & set(path):
        paths = [one for one in glob.glob(path, recursive=True) if os.path.isfile(one)]
    else:
        paths = []
    return [_here_one(one) for one in sorted(paths)]


def _here_one(path: str) -> Input:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe's other end is not waited for
        try:
            facts = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(f"the input {path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"the input {path} is no regular file", hint="write what it gives to a file first")
    return Input(path, facts.st_size, "", path, compression_of(path), int(facts.st_mtime), facts.st_ino)


def _elsewhere(text: str, ssh_configs: dict[str, str | None]) -> list[Input]:
    key = key_of(text)
    filesystem, path = filesystem_of(text, ssh_configs.get(key or ""))
    try:
        found = _listed(filesystem, path)
    except FileNotFoundError:
        return []
    except OSError as error:
        if isinstance(error, SeraiError):
            raise
        raise UsageError(f"the input {text} cannot be read: {error.strerror or error}") from error
    scheme = text.partition(":")[0].lower()
    inputs = []
    for one in sorted(found, key=lambda info: str(info["name"])):
        name = str(one["name"])
        there = name if key is not None and name.startswith("/") else None
        url = str(filesystem.unstrip_protocol(name)) if key is None else f"{scheme}://{key}{name}"
        inputs.append(
            Input(url, one.get("size"), key, there, compression_of(name), _whole(one, "mtime"), one.get("ino"))
        )
    return inputs


def _whole(info: Mapping[str, Any], key: str) -> int | None:
    """A number of seconds or a date as whole seconds; None where there is none."""
    value = info.get(key)
    if isinstance(value, datetime):
        value = value.timestamp()
    return int(value) if isinstance(value, int | float) else None


def hosts_of(inputs: Iterable[Input], ssh_configs: Mapping[str, str | None]) -> dict[str, HostFacts]:
    """What the hosts of inputs say of themselves; those that say nothing are left out."""
    found: dict[str, HostFacts] = {}
    for key, url in {one.host: one.url for one in inputs if one.path is not None and one.host is not None}.items():
        if key == "":
            facts = facts_of(who())
        else:
            try:
                facts = filesystem_of(url, ssh_configs.get(key))[0].host_facts()
            except (SeraiError, OSError, AttributeError):  # as of SFTP alone
                continue
        if facts is not None:
            found[key] = facts
    return found


def key_of(text: str) -> str | None:
    """The host of a URL whose files workers on that host may open by their path; None for others, such as s3:."""
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in {"ssh", "any"}:
        return None
    return host_key(Url.parse(f"{scheme}:{'/'.join(rest.split('/')[:3])}"))


def filesystem_of(text: str, ssh_config: str | None = None) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    from serai.access.files import filesystem_for  # noqa: PLC0415 - fsspec is slow to import

    return filesystem_for(text, ssh_config)


def _listed(filesystem: Any, path: str) -> Sequence[dict[str, Any]]:
    if _PATTERN & set(path):
        found = filesystem.glob(path, detail=True)
        infos = list(found.values()) if isinstance(found, dict) else found
        return [info for info in infos if info["type"] == "file"]
    info = filesystem.info(path)
    if info["type"] == "file":
        return [info]
    inside = filesystem.ls(path, detail=True)
    return [info for info in inside if info["type"] == "file" and _visible(str(info["name"]))]
