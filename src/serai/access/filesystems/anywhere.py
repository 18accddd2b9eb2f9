"""``any://user@host/path``: the nearest way to a host's files, found out where and when they are used.

An instance that was pickled decides anew where it wakes up, so each worker takes its own way. `match.any_candidates`
says which ways there may be; here they are tried, each under a deadline, and what was found is remembered for a while
for each mount of the host. A way that fails is left for the next one.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import has_magic

from serai.access.filesystems.choosing import Chooser, Way
from serai.access.filesystems.naming import path_of, place_of, url_of
from serai.access.filesystems.ssh import SshFileSystem
from serai.errors import HostUnreachable
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.filesystems.offers import HostFacts
    from serai.match.any_candidates import Decision

__all__ = ["AnyFileSystem", "decide"]

# A way that was fine and is not any more: its server is gone, or it was mounted anew.
_STALE = frozenset({errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT})


def decide(url: str, ssh_config: str | None = None) -> Decision:
    """Find the way that ``any://…`` takes from here, whatever is remembered; no error when there is none."""
    return AnyFileSystem(**place_of(url, "any"), ssh_config=ssh_config).decide(path_of(url, "any"))


def _delegated(name: str, *, safe: bool) -> Any:
    def method(self: AnyFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._do(name, path, *args, safe=safe, **kwargs)

    method.__name__ = name
    method.__doc__ = f"See fsspec, or `HostFiles`: `{name}` by the path's way."
    return method


class AnyFileSystem(AbstractFileSystem):
    """The files of a host by the nearest way.

    Args:
        host: whose; empty for this machine.
        user: as whom; by default as ssh does.
        port: of its ssh.
        ssh_config: the file that ssh is given instead of the user's own.
        python: the interpreter on the host.
        auto_mkdir: whether writing makes missing directories.
        storage_options: those that every file system of fsspec has.
    """

    protocol = "any"
    root_marker = "/"
    blocksize = SshFileSystem.blocksize

    def __init__(
        self,
        host: str = "",
        user: str | None = None,
        port: int | None = None,
        *,
        ssh_config: str | None = None,
        python: str | None = None,
        auto_mkdir: bool = False,
        **storage_options: Any,
    ) -> None:
        super().__init__(**storage_options)
        self.url = Url("any", user, host or None, port)
        self._options: dict[str, Any] = {"ssh_config": ssh_config, "python": python, "auto_mkdir": auto_mkdir}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path_of(path, "any")

    @classmethod
    def _parent(cls, path: str) -> str:
        return SshFileSystem._parent(path_of(path, "any"))  # noqa: SLF001 - fsspec's own

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return place_of(path, "any")

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        path = path_of(name, "any")
        return f"any://{path}" if self.url.host is None else url_of(self.url, path)

    @property
    def fsid(self) -> str:
        """Tells hosts apart."""
        return str(self.url)

    # ---- deciding

    @property
    def chooser(self) -> Chooser:
        """What finds the ways."""
        return Chooser(self.url, **self._options)

    def decide(self, path: str) -> Decision:
        """Try the ways to a path in their order, and remember the first that holds."""
        return self.chooser.decide(path_of(path, "any"))

    def way(self, *paths: str) -> Way:
        """How paths are reached, from what is remembered or found out now; see `Chooser.way`."""
        return self.chooser.way(*paths)

    def _do(self, name: str, path: str, *args: Any, safe: bool = False, **kwargs: Any) -> Any:
        """Do something with a path by its way; once more by a new way if that one failed and it does no harm."""
        path = path_of(path, "any")
        for again in (safe, False):
            way = self.way(path)
            try:
                return way.renamed(getattr(way.filesystem, name)(way.map(path), *args, **kwargs))
            except (HostUnreachable, OSError) as error:
                lost = isinstance(error, HostUnreachable) or (isinstance(error, OSError) and error.errno in _STALE)
                if lost:
                    self.chooser.forget()
                if not (lost and again):
                    raise
        raise AssertionError

    def _do_both(self, name: str, one: str, other: str, **kwargs: Any) -> None:
        one, other = path_of(one, "any"), path_of(other, "any")
        way = self.way(one, other)
        getattr(way.filesystem, name)(way.map(one), way.map(other), **kwargs)

    # ---- what fsspec asks

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """See fsspec."""
        kwargs = {key: value for key, value in kwargs.items() if key == "refresh"}
        return self._do("ls", path, detail=detail, safe=True, **kwargs)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """See fsspec."""
        return self._do("find", path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, safe=True)

    def du(self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **_: Any) -> Any:
        """See fsspec."""
        return self._do("du", path, total=total, maxdepth=maxdepth, withdirs=withdirs, safe=True)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> Any:
        """See fsspec."""
        return self._do("cat_file", path, start, end, safe=True)

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any
    ) -> Any:
        """See fsspec."""
        paths = path_of(paths, "any")
        if not paths:
            return []
        way = self.way(*paths)
        return way.filesystem.cat_ranges([way.map(one) for one in paths], starts, ends, max_gap, on_error)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """See fsspec."""
        paths = self.expand_path(path, recursive=recursive, **kwargs)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == path_of(path, "any"):
            return self.cat_file(paths[0])
        found = dict(zip(paths, self.cat_ranges(paths, 0, None, on_error="return"), strict=True))
        for one in found.values():
            if isinstance(one, Exception) and on_error == "raise":
                raise one
        return {key: one for key, one in found.items() if on_error == "return" or not isinstance(one, Exception)}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        return self._do("_open", path, mode, block_size, safe=True, **kwargs)

    info = _delegated("info", safe=True)  # safe: asking twice does no harm
    exists = _delegated("exists", safe=True)
    lexists = _delegated("lexists", safe=True)
    isdir = _delegated("isdir", safe=True)
    isfile = _delegated("isfile", safe=True)
    islink = _delegated("islink", safe=True)
    created = _delegated("created", safe=True)
    modified = _delegated("modified", safe=True)
    ukey = _delegated("ukey", safe=True)
    checksum = _delegated("checksum", safe=True)
    head = _delegated("head", safe=True)
    tail = _delegated("tail", safe=True)
    pipe_file = _delegated("pipe_file", safe=False)
    mkdir = _delegated("mkdir", safe=False)
    makedirs = _delegated("makedirs", safe=False)
    rmdir = _delegated("rmdir", safe=False)
    rm_file = _delegated("rm_file", safe=False)
    touch = _delegated("touch", safe=False)
    chmod = _delegated("chmod", safe=False)

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        """See fsspec."""
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
        else:
            self._do("get_file", rpath, lpath, callback=callback, safe=True, **kwargs)

    def put_file(self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        """See fsspec."""
        path = path_of(rpath, "any")
        way = self.way(path)
        way.filesystem.put_file(lpath, way.map(path), callback=callback, **kwargs)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """See fsspec."""
        paths = path_of(list(path) if isinstance(path, list | tuple | set) else [path], "any")
        if maxdepth is not None:
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        if any(has_magic(one) and not self.lexists(one) for one in paths):
            paths = self.expand_path(paths)
        for one in paths:
            self._do("rm", one, recursive=recursive)

    def mv(self, path1: Any, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """See fsspec."""
        if not isinstance(path1, str) or maxdepth is not None or (has_magic(path1) and not self.lexists(path1)):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
        else:
            self._do_both("mv", path1, path2)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """See fsspec."""
        self._do_both("cp_file", path1, path2)

    def link(self, src: str, dst: str, **_: Any) -> None:
        """Give a file another name."""
        self._do_both("link", src, dst)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings; see fsspec."""
        if self.url.host is not None:
            self._ssh().invalidate_cache(path)
        super().invalidate_cache(path)

    # ---- what `offers.HostFiles` names

    read_from = _delegated("read_from", safe=False)
    write_at = _delegated("write_at", safe=False)
    stamp = _delegated("stamp", safe=False)

    def host_facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""
        facts: HostFacts = self.way("/").filesystem.host_facts()
        return facts

    def digest(
        self, paths: Sequence[str], start: int = 0, stop: int | None = None, kind: str = "sha256"
    ) -> dict[str, str]:
        """See `HostFiles.digest`."""
        if not paths:
            return {}
        names = path_of(list(paths), "any")
        way = self.way(*names)
        found = way.filesystem.digest([way.map(one) for one in names], start, stop, kind)
        return {path: found[way.map(name)] for path, name in zip(paths, names, strict=True)}

    def replace(self, source: str, target: str) -> None:
        """See `HostFiles.replace`."""
        self._do_both("replace", source, target)

    def copy_within(self, source: str, target: str, *, keep_times: bool = False) -> None:
        """See `HostFiles.copy_within`."""
        self._do_both("copy_within", source, target, keep_times=keep_times)

    def symlink(self, destination: str, path: str) -> None:
        """See `HostFiles.symlink`."""
        path = path_of(path, "any")
        way = self.way(path)
        way.filesystem.symlink(destination, way.map(path))
