"""What all servers share that do one plain thing at a time: the rest of `FarFiles` is made of it from here."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import secrets
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from serai.clock import SystemClock
from serai.errors import HostUnreachable
from serai.travel.porter.drafts import encoded

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from serai.access.filesystems.port import Writing
    from serai.describe.host import HostFacts

__all__ = ["PlainFiles", "draft_of"]

_LONGEST_NAME = 200  # bytes of a name that its draft keeps; with the rest it is below the usual 255


def draft_of(path: str) -> str:
    """Where a file is written before it is put in its place: beside it, under a name of its own."""
    folder, name = posixpath.split(path)
    kept = encoded(name)[:_LONGEST_NAME].decode("utf-8", "ignore")  # a character is kept whole or not at all
    return posixpath.join(folder, f".{kept}.{secrets.token_hex(6)}.serai")


class PlainFiles(ABC):
    """The files of a server. What is abstract is one request or a few; see `FarFiles` for the rest.

    Directories are listed one by one, and what a server cannot do itself (copies, digests) is done from here, so the
    bytes travel.
    """

    # ---- what a server does

    @abstractmethod
    def facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""

    @abstractmethod
    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""

    @abstractmethod
    def entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """The names in a directory, with what is known of them; of a link, of what it leads to, with ``islink``."""

    @abstractmethod
    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""

    @abstractmethod
    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> Writing:
        """See `FarFiles.writing`."""

    @abstractmethod
    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""

    @abstractmethod
    def make_directory(self, path: str) -> None:
        """Make one directory.

        Raises:
            FileExistsError: there is something.
        """

    @abstractmethod
    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    @abstractmethod
    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""

    @abstractmethod
    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""

    @abstractmethod
    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""

    @abstractmethod
    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a link."""

    def renew(self) -> None:  # noqa: B027 - a mediator may have but one connection, and forget it when it is lost
        """Let the next request have a new connection: the last one was lost, and others may be as well."""

    # ---- what is made of it

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """See `FarFiles.rows`; one question for each directory. One below that cannot be read counts as empty."""
        own = self.info(path)
        found: list[dict[str, Any]] = []
        todo = [("", 1)] if own["type"] == "directory" else []
        while todo:
            below, level = todo.pop()
            try:
                entries = self.entries(f"{path.rstrip('/')}/{below}".rstrip("/") or "/")
            except PermissionError:
                if not below:
                    raise
                continue
            for name, facts in entries:
                row = {**facts, "name": below + name}
                if row["islink"] and row["type"] != "file":
                    row["type"] = "other"  # nothing to walk into
                found.append(row)
                if row["type"] == "directory" and (depth is None or level < depth):
                    todo.append((f"{below}{name}/", level + 1))
        return own, found

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one; once more from the beginning after a lost connection."""
        try:
            return b"".join(self.read_from(path, start, stop))
        except HostUnreachable:
            self.renew()
            return b"".join(self.read_from(path, start, stop))

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order."""
        for path, start, stop in wanted:
            try:
                yield self.read(path, start, stop)
            except Exception as error:  # noqa: BLE001 - whoever asked decides
                yield error

    def ahead(self, path: str, start: int, stop: int) -> None:  # noqa: B027 - it is done, by doing nothing
        """Nothing is read ahead."""

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        with self.writing(path, how, parents=parents) as writing:
            writing.write(data)

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        above = posixpath.dirname(path.rstrip("/"))
        if parents and above not in {"", "/", path}:
            try:
                self.info(above)
            except FileNotFoundError:
                self.mkdir(above, parents=True, exist_ok=True)
        try:
            self.make_directory(path)
        except FileExistsError:
            if not exist_ok or self.info(path)["type"] != "directory":
                raise

    def make_parents(self, path: str) -> None:
        """Make the directory that a path is in."""
        self.mkdir(posixpath.dirname(path) or "/", parents=True, exist_ok=True)

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file, by way of this machine; of a directory, make one."""
        found = self.info(source)
        if found["type"] == "directory":
            self.mkdir(target, parents=True, exist_ok=True)
            return
        with self.writing(target, "w", parents=parents) as writing:
            for piece in self.read_from(source):
                writing.write(piece)
        self.stamp(target, mode=stat.S_IMODE(found["mode"]), mtime_ns=found["mtime_ns"] if keep_times else None)

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""
        if parents:
            self.make_parents(target)
        with contextlib.suppress(OSError):  # renaming says better what is wrong
            if self.info(target)["type"] == "directory":
                target = f"{target}/{posixpath.basename(source)}"
        self.replace(source, target)

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""
        if not truncate:
            try:
                self.stamp(path, mode=None, mtime_ns=int(SystemClock().wall() * 1e9))
            except FileNotFoundError:
                pass
            else:
                return
        self.put(path, b"", "w", parents=parents)

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`."""
        return {path: self.digest_of(path, start, stop, kind) for path in paths}

    def digest_of(self, path: str, start: int, stop: int | None, kind: str) -> str:
        """The digest of one file; the bytes travel here."""
        made = hashlib.new(kind, usedforsecurity=False)
        for piece in self.read_from(path, start, stop):
            made.update(piece)
        return made.hexdigest()
