"""What fsspec asks of a file system, in terms of what `port.FarFiles` has; each scheme adds its URLs and options."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import has_magic
from fsspec.utils import isfilelike, stringify_path

from serai.access.filesystems.hosted_file import HostedFile
from serai.errors import AccessError, SeraiError
from serai.travel.porter.drafts import Draft, native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fsspec.dircache import DirCache

    from serai.access.filesystems.offers import HostFacts
    from serai.access.filesystems.port import FarFiles

EXPIRY_S = 2.0  # how old a listing may be that is used once more
MOST_LISTINGS = 1000
_BLOCK = 4 << 20


class HostedFileSystem(AbstractFileSystem):
    """The files of a host or a server.

    Args:
        where: its URL, up to the path.
        auto_mkdir: whether writing makes missing directories, as fsspec's local files can.
        listings_expiry_time: seconds for which a listing is used again; `ls` alone does so.
        storage_options: those that every file system of fsspec has.
    """

    blocksize = _BLOCK
    root_marker = "/"
    dircache: DirCache

    def __init__(
        self,
        where: str,
        *,
        auto_mkdir: bool = False,
        listings_expiry_time: float | None = EXPIRY_S,
        **storage_options: Any,
    ) -> None:
        super().__init__(
            **{"listings_expiry_time": listings_expiry_time, "max_paths": MOST_LISTINGS, **storage_options}
        )
        self.where = where
        self.auto_mkdir = auto_mkdir

    @property
    def far(self) -> FarFiles:
        """The files, as their mediator has them."""
        raise NotImplementedError

    @property
    def fsid(self) -> str:
        """Tells hosts and servers apart."""
        return self.where

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        path = str(self._strip_protocol(name))
        return self.where + ("" if path.startswith("/") else "/") + path

    @classmethod
    def _parent(cls, path: str) -> str:
        path = cls._strip_protocol(path)
        if path == "~":
            return "~/.."
        return path.rpartition("/")[0] or "/"

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings of a path, of what is below it, and of its directory; of all when none is named."""
        if path is None:
            self.dircache.clear()
        else:
            path = self._strip_protocol(path)
            for one in [key for key in self.dircache if key == path or key.startswith(f"{path}/")]:
                with contextlib.suppress(KeyError):  # another thread was first
                    del self.dircache[one]
            with contextlib.suppress(KeyError):
                del self.dircache[self._parent(path)]
        super().invalidate_cache(path)

    # ---- looking

    def ls(self, path: str, detail: bool = True, *, refresh: bool = False, **_: Any) -> list[Any]:
        """What is in a directory; see fsspec."""
        path = self._strip_protocol(path)
        found = None if refresh else self.dircache.get(path)
        if found is None:
            own, rows = self.far.rows(path, 1, detail=True)
            if own["type"] != "directory":
                found = [_info(path, own)]
            else:
                found = self.dircache[path] = [_info(_join(path, row["name"]), row) for row in rows]
        return list(found) if detail else sorted(one["name"] for one in found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of a path, asked each time; see fsspec."""
        path = self._strip_protocol(path)
        return _info(path, self.far.info(path))

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """Everything below a path, in one call; see fsspec.

        Raises:
            PermissionError: the path itself cannot be read. What cannot be below it counts as empty.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        try:
            own, rows = self.far.rows(path, maxdepth, detail=detail)
        except (FileNotFoundError, NotADirectoryError):
            return {} if detail else []
        wanted = [(_join(path, row["name"]), row) for row in rows if withdirs or row["type"] != "directory"]
        if withdirs or own["type"] != "directory":
            wanted.append((path, own))
        wanted.sort(key=lambda one: one[0])
        return {name: _info(name, row) for name, row in wanted} if detail else [name for name, _ in wanted]

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        """Sizes below a path; see fsspec."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        sizes = {name: one["size"] for name, one in found.items()}
        return sum(sizes.values()) if total else sizes

    def _type(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except SeraiError:  # the host is not there: that says nothing about the file
            raise
        except OSError:
            return ""

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is something, behind a link if it is one."""
        return bool(self._type(path))

    def lexists(self, path: str, **_: Any) -> bool:
        """Whether there is something, if only a link that leads nowhere."""
        try:
            self.far.info(self._strip_protocol(path), follow=False)
        except SeraiError:
            raise
        except OSError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether it is a directory, or a link to one."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether it is a regular file, or a link to one."""
        return self._type(path) == "file"

    def islink(self, path: str) -> bool:
        """Whether it is a symbolic link."""
        try:
            return bool(self.far.info(self._strip_protocol(path), follow=False)["islink"])
        except FileNotFoundError:
            return False

    def created(self, path: str) -> dt.datetime:
        """When its inode last changed, which is the nearest that Unix tells."""
        return dt.datetime.fromtimestamp(self.info(path)["created"], tz=dt.UTC)

    def modified(self, path: str) -> dt.datetime:
        """When its contents last changed."""
        return dt.datetime.fromtimestamp(self.info(path)["mtime"], tz=dt.UTC)

    def ukey(self, path: str) -> str:
        """Another text for another version of the file, from its size, time and inode."""
        found = self.info(path)
        facts = (found["size"], found["mtime_ns"], found["ctime_ns"], found["ino"])
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int(self.ukey(path), 16)

    # ---- reading

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes of a file or of a part of it; see fsspec."""
        return self.far.read(self._strip_protocol(path), start or 0, end)

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any
    ) -> list[Any]:
        """Parts of many files, all asked for at once; see fsspec."""
        if max_gap is not None:
            raise NotImplementedError
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("as many starts and ends as paths")
        wanted = [
            (self._strip_protocol(path), start or 0, end) for path, start, end in zip(paths, starts, ends, strict=True)
        ]
        found = list(self.far.read_many(wanted))
        if on_error != "return":
            for one in found:
                if isinstance(one, Exception):
                    raise one
        return found

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of one file or of many, all asked for at once; see fsspec."""
        paths = self.expand_path(path, recursive=recursive, **kwargs)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0])
        found = {}
        for name, one in zip(paths, self.far.read_many([(name, 0, None) for name in paths]), strict=True):
            if isinstance(one, Exception) and on_error == "raise":
                raise one
            if not isinstance(one, Exception) or on_error == "return":
                found[name] = one
        return found

    def head(self, path: str, size: int = 1024) -> bytes:
        """The first bytes."""
        return self.cat_file(path, 0, size)

    def tail(self, path: str, size: int = 1024) -> bytes:
        """The last bytes."""
        return self.cat_file(path, -size) if size else b""

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any) -> None:
        """Fetch a file, which is seen here when it is whole; see fsspec."""
        rpath = self._strip_protocol(rpath)
        outfile = lpath if outfile is None and isfilelike(lpath) else outfile
        if callback is not DEFAULT_CALLBACK:
            callback.set_size(self.info(rpath)["size"])
        pieces = self.far.read_from(rpath)
        try:
            first = next(pieces, b"")
        except IsADirectoryError:
            os.makedirs(lpath, exist_ok=True)
            return
        draft = Draft(native(os.path.abspath(stringify_path(lpath))), "w", parents=True) if outfile is None else None
        try:
            piece = first
            while piece:
                (outfile if draft is None else draft).write(piece)
                callback.relative_update(len(piece))
                piece = next(pieces, b"")
            if draft is not None:
                draft.commit()
        finally:
            pieces.close()
            if draft is not None:
                draft.discard()

    # ---- writing

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a whole file, at once or not at all; see fsspec."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.put(path, value, "x" if mode == "create" else "w", parents=self.auto_mkdir)

    def put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        """Send a file, which is seen there when it is whole; see fsspec."""
        rpath = self._strip_protocol(rpath)
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        with open(lpath, "rb", buffering=0) as file, self._changing(rpath):
            callback.set_size(os.fstat(file.fileno()).st_size)
            with self.far.writing(rpath, "x" if mode == "create" else "w", parents=True) as writing:
                while data := file.read(_BLOCK):
                    writing.write(data)
                    callback.relative_update(len(data))

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> HostedFile:
        return HostedFile(self, self._strip_protocol(path), mode, block_size, **kwargs)

    # ---- changing

    @contextlib.contextmanager
    def _changing(self, *paths: str) -> Iterator[None]:
        try:
            yield
        finally:
            for path in paths:
                self.invalidate_cache(path)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a directory; see fsspec."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.mkdir(path, parents=create_parents, exist_ok=False)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it; see fsspec."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.mkdir(path, parents=True, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.rmdir(path)

    def rm_file(self, path: str) -> None:
        """Remove one file, or a link itself."""
        self.rm(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, directories with ``recursive``; a pattern only where no file has it as its name."""
        paths = [self._strip_protocol(one) for one in (path if isinstance(path, list | tuple | set) else [path])]
        if maxdepth is not None:
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        if any(has_magic(one) and not self.lexists(one) for one in paths):
            paths = self.expand_path(paths, recursive=False)
        with self._changing(*paths):
            self.far.remove(paths, recursive=recursive)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file on the host itself; of a directory, make one."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        with self._changing(path2):
            self.far.copy(path1, path2, parents=True)

    def mv(self, path1: Any, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Rename, within the host; into ``path2`` if it is a directory. Patterns and lists as fsspec does."""
        if not isinstance(path1, str) or maxdepth is not None or (has_magic(path1) and not self.lexists(path1)):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        with self._changing(path1, path2):
            self.far.move(path1, path2, parents=self.auto_mkdir)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """Make an empty file, or empty it; with ``truncate=False`` only its time is set."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.touch(path, truncate=truncate, parents=self.auto_mkdir)

    def chmod(self, path: str, mode: int) -> None:
        """Set permissions."""
        self.stamp(path, mode=mode)

    def link(self, src: str, dst: str, **_: Any) -> None:
        """Give a file another name."""
        dst = self._strip_protocol(dst)
        with self._changing(dst):
            self.far.link(self._strip_protocol(src), dst, hard=True)

    # ---- what `offers.HostFiles` names

    def host_facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""
        return self.far.facts()

    def digest(
        self, paths: Sequence[str], start: int = 0, stop: int | None = None, kind: str = "sha256"
    ) -> dict[str, str]:
        """See `HostFiles.digest`."""
        names = [self._strip_protocol(path) for path in paths]
        found = self.far.digest(names, start, stop, kind)
        return {path: found[name] for path, name in zip(paths, names, strict=True)}

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `HostFiles.read_from`."""
        return self.far.read_from(self._strip_protocol(path), start, stop)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        path = self._strip_protocol(path)
        with self._changing(path):
            return self.far.write_at(path, pieces, start)

    def replace(self, source: str, target: str) -> None:
        """See `HostFiles.replace`."""
        source, target = self._strip_protocol(source), self._strip_protocol(target)
        with self._changing(source, target):
            self.far.replace(source, target)

    def stamp(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """See `HostFiles.stamp`."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.stamp(path, mode=mode, mtime_ns=mtime_ns)

    def symlink(self, destination: str, path: str) -> None:
        """See `HostFiles.symlink`."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.far.link(destination, path, hard=False)

    def copy_within(self, source: str, target: str, *, keep_times: bool = False) -> None:
        """See `HostFiles.copy_within`."""
        source, target = self._strip_protocol(source), self._strip_protocol(target)
        with self._changing(target):
            self.far.copy(source, target, keep_times=keep_times)


def _join(folder: str, name: str) -> str:
    """The path of what a host names in a folder; it is not believed: what is fetched is written by that name.

    Raises:
        AccessError: the name leads out of the folder.
    """
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise AccessError(f"the host names what cannot be in a directory: {name!r} in {folder}")
    return f"{folder.rstrip('/')}/{name}"


def _info(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as fsspec has them."""
    found = {**facts, "name": name}
    if "mtime_ns" in facts:
        found["mtime"], found["created"] = facts["mtime_ns"] / 1e9, facts["ctime_ns"] / 1e9
    return found
