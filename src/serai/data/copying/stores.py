"""Any file system that fsspec knows, as an end of a copy: no resuming, sizes alone to compare at the end.

Links, permissions and times are kept where the file system says that it has them (`HostFiles`), as appliances do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import posixpath
from typing import TYPE_CHECKING, Any

from serai.access.files import is_of_objects
from serai.data.copy_plan import Fact
from serai.travel.copying import lots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from serai.data.copying.ends import Detail, Look, Tree

__all__ = ["StoreEnd"]

NEW_UMASK, NEW_MODE = 0o022, 0o644  # of what is new in a store whose own are not known


class StoreEnd:
    """The files of an fsspec file system.

    Args:
        filesystem: an instance of it.
    """

    digests = False
    umask = 0

    def __init__(self, filesystem: Any) -> None:
        self._fs = filesystem
        self._stamps = hasattr(filesystem, "stamp")
        if self._stamps:
            self.umask = NEW_UMASK
        self.flat = is_of_objects(filesystem)
        protocol = filesystem.protocol
        self.shown = protocol if isinstance(protocol, str) else protocol[0]
        self.store = f"store {filesystem._fs_token}"  # noqa: SLF001 - what fsspec itself tells instances by

    def look(self, paths: Sequence[str], *, follow: bool = False) -> list[Look]:
        """See `End`."""
        found: list[Look] = []
        for path in paths:
            try:
                found.append(self._fact(self._fs.info(path)))
            except FileNotFoundError:
                found.append(None)
            except OSError as error:
                found.append(error)
        return found

    def details(self, path: str, *, inside: bool) -> list[Detail]:
        """See `End`."""
        if not inside:
            return [(path, self._fact(self._fs.info(path)), None, "-", "-")]
        return [
            (posixpath.basename(one["name"].rstrip("/")), self._fact(one), None, "-", "-")
            for one in sorted(self._fs.ls(path, detail=True), key=lambda one: one["name"])
        ]

    def _fact(self, info: Mapping[str, Any]) -> Fact:
        return _fact(info, stamps=self._stamps)

    def clear(self, path: str) -> list[OSError]:
        """See `End`."""
        self._fs.rm(path, recursive=True)
        return []

    def glob(self, pattern: str) -> list[str]:
        """See `End`."""
        return sorted(self._fs.glob(pattern))

    def walk(self, path: str, *, follow: bool = False, within: Sequence[str] | None = None) -> Tree:
        """See `End`."""
        found = self._fs.find(path, withdirs=True, detail=True)
        top = posixpath.normpath(self._fs._strip_protocol(path))  # noqa: SLF001 - names that are found begin with it
        facts = {"": Fact("directory")}
        troubles: dict[str, str] = {}
        for name in sorted(found):
            below = posixpath.relpath(name, top)
            if below == ".":
                continue
            if below == ".." or below.startswith("../") or "\0" in below:  # a store of objects takes any name
                troubles[below] = "the store names what cannot be in a directory: not copied"
                continue
            # Stores of objects have no directories of their own: what is in one makes it.
            for parent in _parents(below):
                facts.setdefault(parent, Fact("directory"))
            facts[below] = self._fact(found[name])
        return facts, troubles

    def each(self, act: str, rows: Sequence[Any]) -> list[tuple[int, OSError]]:
        """See `End`."""
        troubles: list[tuple[int, OSError]] = []
        for number, row in enumerate(rows):
            try:
                self._act(act, row)
            except OSError as error:
                troubles.append((number, error))
        return troubles

    def _act(self, act: str, row: Any) -> None:
        if act == "make_new" and self._fs.exists(row[0]):
            raise FileExistsError(errno.EEXIST, "File exists")
        if act in {"make", "make_new", "make_all"}:
            self._fs.makedirs(row[0], exist_ok=True)
        elif act == "remove":
            (self._fs.rmdir if self._fs.isdir(row) else self._fs.rm_file)(row)
        elif act == "rename":
            self._fs.mv(row[0], row[1], recursive=self._fs.isdir(row[0]))
        elif act == "link" and self._stamps:
            self._fs.symlink(row[1], row[0])
        elif act == "link":
            raise OSError(errno.EOPNOTSUPP, f"{self.shown}: holds no symbolic links")
        elif act == "stamp" and self._stamps:
            self._fs.stamp(row[0], mode=row[1], mtime_ns=row[2])
        # Others keep neither permissions nor times.

    def _dress(self, row: Sequence[Any], wishes: Mapping[str, Any]) -> None:
        """Give a file that is whole its source's permissions and time, where that is wanted and can be."""
        path, mode, over, mtime_ns = row
        if not self._stamps:
            return
        if wishes.get("stamp"):
            self._fs.stamp(path, mode=None if mode is None else mode & 0o777, mtime_ns=mtime_ns)
        elif not over and mode is not None and mode & 0o777 & ~self.umask != NEW_MODE:
            self._fs.stamp(path, mode=mode & 0o777 & ~self.umask)

    def send(self, paths: Sequence[str], *, follow: bool, troubles: list[list[Any]]) -> Iterator[bytes]:
        """See `End`."""
        step = lots.LOT_FILES
        for start in range(0, len(paths), step):
            wanted = list(paths[start : start + step])
            found = self._fs.cat(wanted, on_error="return") if wanted else {}
            index: list[list[int]] = []
            contents: list[bytes] = []
            for number, path in enumerate(wanted, start):
                data = found.get(path, found.get(self._fs._strip_protocol(path)))  # noqa: SLF001 - how it names what it found
                if isinstance(data, bytes):
                    index.append([number, len(data)])
                    contents.append(data)
                else:
                    code = data.errno if isinstance(data, OSError) and data.errno else errno.ENOENT
                    troubles.append([number, code, str(data)])
            yield lots.pack_lot(index, contents)

    def take(self, pieces: Iterable[bytes], rows: Sequence[Any], wishes: Mapping[str, Any]) -> dict[str, Any]:
        """See `End`."""
        done: list[int] = []
        troubles: list[list[Any]] = []
        sizes: list[tuple[int, int]] = []  # number and size of each, in their order

        def files() -> Iterator[tuple[str, bytes]]:
            for index, contents in lots.unpack_lots(pieces):
                at = 0
                for number, length in index:
                    sizes.append((number, length))
                    yield rows[number][0], bytes(contents[at : at + length])
                    at += length

        size = 0
        many = getattr(self._fs, "pipe_many", self._one_by_one)  # appliances take many at once
        for at, (_, error) in enumerate(many(files())):
            number, length = sizes[at]
            trouble = error or self._undressed(rows[number], wishes)
            if trouble is None:
                done.append(number)
                size += length
            else:
                troubles.append([number, trouble.errno or 0, trouble.strerror or str(trouble)])
        return {"bytes": size, "done": done, "troubles": troubles}

    def _one_by_one(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, OSError | None]]:
        for path, data in files:
            try:
                self._fs.pipe_file(path, data)
            except OSError as error:
                yield path, error
            else:
                yield path, None

    def _undressed(self, row: Sequence[Any], wishes: Mapping[str, Any]) -> OSError | None:
        try:
            self._dress(row, wishes)
        except OSError as error:
            return error
        return None

    def offer(self, path: str) -> tuple[int, str]:
        """See `End`."""
        return 0, ""

    def prefix(self, path: str, size: int) -> str:
        """See `End`."""
        digest = hashlib.sha256()
        with self._fs.open(path, "rb") as file:
            while size and (data := file.read(min(size, lots.BLOCK))):
                digest.update(data)
                size -= len(data)
        return "" if size else digest.hexdigest()

    def prefixes(self, rows: Sequence[Any]) -> list[str]:
        """See `End`."""
        found = []
        for path, size in rows:
            try:
                found.append(self.prefix(path, size))
            except OSError:
                found.append("")
        return found

    def abandon(self) -> None:
        """See `End`."""

    def read(
        self, path: str, start: int, *, follow: bool, said: dict[str, Any], size: int | None = None
    ) -> Iterator[bytes | memoryview]:
        """See `End`."""
        digest, count = hashlib.sha256(), 0
        with self._fs.open(path, "rb") as file:
            file.seek(start)
            while data := file.read(lots.BLOCK):
                digest.update(data)
                count += len(data)
                yield data
        said.update(digest=digest.hexdigest(), size=count)

    def land(
        self, path: str, start: int, pieces: Iterable[bytes | memoryview], *, size: int | None = None
    ) -> dict[str, Any]:
        """See `End`; under its own name, where such stores show nothing before it is whole."""
        sized = getattr(self._fs, "write_sized", None)  # of appliances: in one request
        if sized is not None and size is not None and not start:
            return {"digest": sized(path, pieces, size), "size": size}
        digest, count = hashlib.sha256(), 0
        file = self._fs.open(path, "wb")
        try:
            for piece in pieces:
                digest.update(piece)
                count += len(piece)
                file.write(piece)
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            raise
        file.close()
        return {"digest": digest.hexdigest(), "size": count}

    def commit(self, row: Sequence[Any], size: int, wishes: Mapping[str, Any]) -> None:
        """See `End`; the size is asked for once more."""
        found = self._fs.info(row[0])["size"]
        if found is not None and found != size:
            raise OSError(errno.EIO, f"has {found} bytes instead of {size}")
        self._dress(row, wishes)


def _fact(info: Mapping[str, Any], *, stamps: bool) -> Fact:
    kind = info.get("type")
    mtime = next((info[key] for key in ("mtime", "LastModified", "last_modified", "created") if info.get(key)), None)
    if isinstance(mtime, dt.datetime):
        mtime = mtime.timestamp()
    return Fact(
        "directory" if kind == "directory" else "file" if kind == "file" else "other",
        info.get("size"),
        info.get("mode") if stamps else None,
        int(mtime * 1e9) if isinstance(mtime, int | float) else None,
    )


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])
