"""From what a user writes to an end of a copy and a path in it."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.access.connections import target_of
from serai.access.filesystems.naming import path_of, place_of
from serai.data.copying.ends import End, HostEnd, LocalEnd
from serai.describe.places import split_options
from serai.errors import NoPython, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.openssh import Target

__all__ = ["Place", "open_place", "open_places"]

AT_ONCE = 16  # hosts that are logged in to at a time

_lock = threading.Lock()
_hosts: dict[tuple[Target, str | None], HostEnd] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is.

    Attributes:
        shown: as the user wrote it.
        end: its file system.
        path: in it, without a slash at its end.
        slash: whether it was written with one.
    """

    shown: str
    end: End
    path: str
    slash: bool = False

    def expanded(self) -> list[Place]:
        """The places that a pattern stands for; itself where there is something of that very name, or nothing fits."""
        if not glob.has_magic(self.path) or self.end.look([self.path])[0] is not None:
            return [self]
        found = self.end.glob(self.path)
        shown, options = split_options(self.shown)
        head = shown.rstrip("/").removesuffix(self.path)
        # Where the path is not what the user wrote (~, a relative one), what was found is shown as it is.
        named = head != shown.rstrip("/")
        names = (f"{head}{path}{options}" if named else path for path in found)
        return [Place(name, self.end, path, self.slash) for name, path in zip(names, found, strict=True)] or [self]


def open_place(url: str, ssh_config: str | None = None) -> Place:
    """Find the end of a URL or path; logs in where that is needed.

    Raises:
        UsageError: nobody knows the scheme.
        AccessError: the host cannot be reached.
    """
    slash = url.endswith("/")
    # Without fsspec, which takes a while to import, as long as it can be done without.
    if _is_plain(url):
        return Place(url, LocalEnd(), _trimmed(url), slash)
    if url.startswith("ssh://") and "::" not in url:
        where = place_of(url, "ssh")
        if not where.get("host"):
            raise UsageError(f"{url!r} names no host", hint="write ssh://HOST/PATH")
        with contextlib.suppress(NoPython):  # its file system knows another way
            end = _host_end(target_of(Url("ssh", **where), os.environ, ssh_config), None)
            return Place(url, end, _below_home(path_of(url, "ssh"), end), slash)
    from serai.access.files import filesystem_for  # noqa: PLC0415 - slow to import

    filesystem, path = filesystem_for(url, ssh_config)
    whose, path = _end_of(filesystem, path)
    if isinstance(whose, LocalEnd):
        _refuse_scp_form(url)
    return Place(url, whose, path, split_options(url)[0].endswith("/"))


def _refuse_scp_form(url: str) -> None:
    """Refuses ``lab1:/data``, which is scp's way to name a host's file, unless there is such a file here."""
    host, colon, path = url.partition(":")
    named = colon and "/" not in host and host != "local" and not path.startswith("//")
    if named and not os.path.lexists(url):
        there = path if path.startswith("/") else f"/~/{path}"
        raise UsageError(
            f"{url!r} names no scheme, and no file here", hint=f"on a host: ssh://{host}{there}; a file here: ./{url}"
        )


def open_places(urls: Sequence[str], ssh_config: str | None = None) -> list[Place | Exception]:
    """Find the ends of many, all hosts at once; an error in the place of what cannot be had."""

    def attempt(url: str) -> Place | Exception:
        from serai.errors import SeraiError  # noqa: PLC0415 - an except clause needs it

        try:
            return open_place(url, ssh_config)
        except (SeraiError, OSError) as error:
            return error

    if all(_is_plain(url) for url in urls):
        return [attempt(url) for url in urls]
    with ThreadPoolExecutor(min(AT_ONCE, len(urls))) as pool:
        return list(pool.map(attempt, urls))


def _is_plain(url: str) -> bool:
    return ":" not in url


def _trimmed(path: str) -> str:
    return path.rstrip("/") or path[:1]


def _end_of(filesystem: Any, path: str) -> tuple[End, str]:
    protocol = getattr(filesystem, "protocol", "")
    names = {protocol} if isinstance(protocol, str) else set(protocol)
    if names & {"local", "file"}:
        return LocalEnd(), _trimmed(path)
    from serai.access.filesystems.far import PorterFiles  # noqa: PLC0415 - seldom

    way = getattr(filesystem, "way", None)
    if way is not None:  # any://: by what it has chosen for this path
        chosen = way(path)
        return _end_of(chosen.filesystem, chosen.map(path))
    far = getattr(filesystem, "far", None)
    if isinstance(far, PorterFiles):
        end = _host_end(far.target, far.python)
        return end, _below_home(path, end)
    from serai.data.copying.stores import StoreEnd  # noqa: PLC0415 - seldom

    return StoreEnd(filesystem), _trimmed(path)


def _below_home(path: str, end: HostEnd) -> str:
    return end.home + path[1:] if path.startswith("~") else _trimmed(path)


def _host_end(target: Target, python: str | None) -> HostEnd:
    with _lock:
        found = _hosts.get((target, python))
    if found is None:
        found = HostEnd(target, python)
        with _lock:
            found = _hosts.setdefault((target, python), found)
    return found


os.register_at_fork(after_in_child=_hosts.clear)
