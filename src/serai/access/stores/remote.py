"""The files of a storage appliance, with the face of `serai.access.filesystems.far.PorterFiles`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from serai.access.stores.beside import Beside, pieces
from serai.access.stores.bodies import (
    MOST_BYTES,
    MOST_FILES,
    SHA256,
    WANTED,
    XXH3,
    bundle,
    digest_fields,
    new_check,
    said_digests,
    told_check,
    unbundle,
    xxh3_of,
)
from serai.access.stores.wire import BLOCK, Wire, quoted, shared_wire
from serai.access.stores.writing import LONG_S, Ahead, Appending, Writing
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from serai.access.stores.wire import Server

__all__ = ["Sent", "StoreFiles"]

LONG = 16 << 20  # bytes of an answer from which on it is read in larger pieces
LARGE = 4 << 20  # bytes
PART = 8 << 20  # bytes of a file that is sent in parts
AT_ONCE = 8  # requests of one call at a time
BATCH = 1000  # paths in a request
BUNDLE = 8 << 20  # bytes of small files in a request
FIRST_FILES = 32  # in the first request, before sizes are known
BUNDLES = 2  # requests with many files at a time
DIGEST_S = 1800.0  # for the digest of what may be large: nothing comes before all of it was read
_NOT_SATISFIABLE = 416
_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="store")


class Sent:
    """A file that was sent whole: what the appliance wrote is what was sent.

    Args:
        files: where to.
        path: of the file.
        sha256: of it, where the appliance took it.
    """

    def __init__(self, files: StoreFiles, path: str, sha256: bytes | None) -> None:
        self._files, self._path, self._sha256 = files, path, sha256

    def hex(self) -> str:
        """Its SHA-256 as the appliance has it, which reads the file for that unless it took it as the bytes came."""
        if self._sha256 is not None:
            return self._sha256.hex()
        return self._files.digest([self._path], 0, None, "sha256")[self._path]


class StoreFiles:
    """The files of one appliance. Requests that change nothing are made once more after a lost connection.

    Args:
        server: which.
        lot: the lot that files are charged to; None leaves it to the appliance.
        direct: whether files are read by their paths where that is possible; see `beside`.
    """

    def __init__(self, server: Server, lot: str | None = None, *, direct: bool = True) -> None:
        self.server, self._lot = server, lot
        local = server.host in {"localhost", "::1"} or server.host.startswith("127.")
        self._beside = Beside(lambda: self.wire.json("GET", "/.serai/status")) if direct and local else None

    @property
    def wire(self) -> Wire:
        """The connections."""
        return shared_wire(self.server)

    def facts(self) -> HostFacts:
        """Whose files these are: the appliance's, at ``/``."""
        found = self.wire.json("GET", "/.serai/status")
        return HostFacts(host=found["host"], boot="", user=found["you"]["user"], uid=-1, home="/")

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""
        found: dict[str, Any] = self.wire.call("stat", path=path, follow=follow, again=True)
        return found

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A path's own facts, and what is below it, with names relative to it."""
        body = json.dumps({"do": "rows", "path": path, "depth": depth}).encode("ascii")
        response = self.wire.request("POST", "/.serai/files", {"Content-Type": "application/json"}, body, again=True)
        with self.wire.reading():
            own, *rows = map(json.loads, response.data.splitlines())
        return own, rows

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`; of a whole file the digest is compared where the appliance knows it."""
        if self._beside is not None:
            with self._beside.open(path) as found:
                if found is not None:
                    at, end, _ = slice(start, stop).indices(found[1])
                    yield from pieces(found[0], at, end)
                    return
        headers = self._span(path, start, stop)
        if headers is None:
            return
        response = self.wire.request("GET", quoted(path), headers, again=True, fine=(_NOT_SATISFIABLE,))
        if response.status == _NOT_SATISFIABLE:
            response.drain_conn()
            response.release_conn()
            return
        # Not in a thread of its own: larger pieces are as quick, since they are in the cache when they are written.
        coming = self.wire.pieces(response, LARGE if (response.length_remaining or 0) >= LONG else BLOCK)
        yield from _checked(coming, None if headers else told_check(response.headers), path)

    def _span(self, path: str, start: int, stop: int | None) -> dict[str, str] | None:
        """Which bytes a request is for, as headers; None where there are none."""
        if stop is not None and (start < 0 or stop <= start):  # the size is needed to know, or at least whose it is
            found = self.info(path)
            if found["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            start, stop, _ = slice(start, stop).indices(int(found["size"]))
            if stop <= start:
                return None
        if path == "/":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if start < 0:
            return {"Range": f"bytes={start}"}
        if start or stop is not None:
            return {"Range": f"bytes={start}-" + ("" if stop is None else str(stop - 1))}
        return {}

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one."""
        return b"".join(self.read_from(path, start, stop))

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order; some are asked for before the first has come."""
        if len(wanted) > 1 and all(not start and stop is None for _, start, stop in wanted):
            yield from self.get_many([path for path, _, _ in wanted])
            return
        under_way: list[Future[bytes]] = []
        try:
            for at in range(len(wanted)):
                while len(under_way) < min(at + AT_ONCE, len(wanted)):
                    under_way.append(_threads.submit(self.read, *wanted[len(under_way)]))
                try:
                    yield under_way[at].result(LONG_S)
                except Exception as error:  # noqa: BLE001 - whoever asked decides
                    yield error
        finally:
            for one in under_way:
                one.cancel()

    def get_many(self, paths: Sequence[str]) -> Iterator[bytes | Exception]:
        """The bytes of many files, in order; see `get_small`."""
        for path, one in zip(paths, self.get_small(paths), strict=True):
            yield self._read_or_error(path) if isinstance(one, int) else one

    def get_small(self, paths: Sequence[str]) -> Iterator[bytes | Exception | int]:
        """The bytes of files, in order, many to a request, one being asked for ahead; of long ones the size."""
        if self._beside is not None and self._beside.root() is not None:
            for path in paths:
                yield self._by_path(path)
            return
        todo, had = deque(range(len(paths))), dict[int, bytes | Exception | int]()
        under_way: deque[tuple[list[int], Future[list[bytes | Exception | int]]]] = deque()
        at, count = 0, FIRST_FILES
        try:
            while at < len(paths):
                while todo and len(under_way) < BUNDLES:
                    some = [todo.popleft() for _ in range(min(count, len(todo)))]
                    under_way.append((some, _threads.submit(self._bundle, [paths[one] for one in some])))
                some, future = under_way.popleft()
                later = list[int]()
                sizes = [0]
                for one, found in zip(some, future.result(LONG_S), strict=True):
                    if isinstance(found, int) and found <= MOST_BYTES:
                        later.append(one)
                        continue
                    had[one] = found
                    sizes.append(len(found) if isinstance(found, bytes) else 0)
                todo.extendleft(reversed(later))
                count = max(1, min(MOST_FILES, len(sizes) * BUNDLE // (sum(sizes) + 1)))
                while at in had:
                    yield had.pop(at)
                    at += 1
        finally:
            for _, future in under_way:
                future.cancel()

    def _by_path(self, path: str) -> bytes | Exception | int:
        assert self._beside is not None  # noqa: S101 - for the reader of types
        with self._beside.open(path) as found:
            if found is not None:
                return found[1] if found[1] > MOST_BYTES else b"".join(pieces(found[0], 0, found[1]))
        return self._read_or_error(path)

    def _read_or_error(self, path: str) -> bytes | Exception:
        try:
            return self.read(path)
        except Exception as error:  # noqa: BLE001 - whoever asked decides
            return error

    def _bundle(self, paths: list[str]) -> list[bytes | Exception | int]:
        """The bytes of files, or why they cannot be had; the size of one that is to be asked for again."""
        body = json.dumps({"paths": paths}).encode("ascii")
        response = self.wire.request("POST", "/.serai/get", {"Content-Type": "application/json"}, body, again=True)
        with self.wire.reading():
            rows, contents = unbundle(response.data)
        if len(rows) != len(paths):
            raise OSError(errno.EBADMSG, "the store told of other files than were asked for")
        found: list[bytes | Exception | int] = []
        for path, row, content in zip(paths, rows, contents, strict=True):
            if "errno" in row:
                found.append(OSError(getattr(errno, row["errno"], errno.EIO), row["error"], path))
            elif "later" in row:
                found.append(int(row["later"]))
            elif not _is_what_is_told(row, content):
                found.append(OSError(errno.EBADMSG, "what came is not what the store has", path))
            else:
                found.append(bytes(content))
        return found

    def ahead(self, path: str, start: int, stop: int) -> Ahead:
        """Ask for bytes that will be wanted."""
        return Ahead(_threads.submit(self.read, path, start, stop))

    # ---- writing

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        headers = self._headers(how, parents=parents) | digest_fields({XXH3: xxh3_of(data)})
        response = self.wire.request("PUT", quoted(path), headers, bytes(data))
        response.drain_conn()
        response.release_conn()

    def put_many(
        self, files: Iterable[tuple[str, bytes | memoryview]], how: str = "w", *, parents: bool = False
    ) -> Iterator[tuple[str, OSError | None]]:
        """Write many whole files: some hundred to a request, the next being packed while one is on its way.

        Yields:
            The path of each, and why it could not be written.
        """
        under_way: deque[Future[list[tuple[str, OSError | None]]]] = deque()
        for batch in _batches(files):
            if len(under_way) >= BUNDLES:
                yield from under_way.popleft().result(LONG_S)
            under_way.append(_threads.submit(self._send_bundle, batch, how, parents))
        while under_way:
            yield from under_way.popleft().result(LONG_S)

    def _send_bundle(
        self, batch: list[tuple[str, bytes | memoryview]], how: str, parents: bool
    ) -> list[tuple[str, OSError | None]]:
        if len(batch) == 1:
            path, data = batch[0]
            try:
                self.put(path, data, how, parents=parents)
            except OSError as error:
                return [(path, error)]
            return [(path, None)]
        options = {name: True for name, held in (("exclusive", how == "x"), ("parents", parents)) if held}
        rows = [{"path": path, "size": len(data), "xxh3": xxh3_of(data).hex(), **options} for path, data in batch]
        headers = {"Content-Type": "application/octet-stream"}
        if self._lot is not None:
            headers["Serai-Lot"] = self._lot
        response = self.wire.request("POST", "/.serai/put", headers, bundle(rows, (data for _, data in batch)))
        with self.wire.reading():
            answers = json.loads(response.data)
        return [
            (path, OSError(getattr(errno, said["errno"], errno.EIO), said["error"], path) if "errno" in said else None)
            for (path, _), said in zip(batch, answers, strict=True)
        ]

    def _headers(self, how: str, *, parents: bool) -> dict[str, str]:
        headers = {"Content-Type": "application/octet-stream"}
        if how == "x":
            headers["If-None-Match"] = "*"
        if parents:
            headers["Serai-Parents"] = "1"
        if self._lot is not None:
            headers["Serai-Lot"] = self._lot
        return headers

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> Writing | Appending:
        """Begin to write a file; it is not there before `Writing.finish`, unless it is appended to."""
        if how == "a":
            return Appending(self, path, parents=parents)
        return Writing(self, path, how, parents=parents, keep=keep)

    def stream(self, path: str, pieces: Iterable[bytes], how: str, *, parents: bool) -> dict[str, bytes]:
        """Write a whole file from pieces; returns the digests that the appliance took."""
        response = self.wire.request("PUT", quoted(path), self._headers(how, parents=parents), pieces)
        found = said_digests(response.headers)
        response.drain_conn()
        response.release_conn()
        return found

    def send(
        self,
        path: str,
        pieces: Iterable[bytes | memoryview],
        size: int,
        how: str,
        *,
        parents: bool,
        sha256: bool = False,
    ) -> Sent:
        """Write a whole file whose size is known, which an appliance takes quickest.

        Args:
            path: of the file.
            pieces: its bytes; each is sent before the next one is asked for.
            size: of all, in bytes.
            how: ``w``, or ``x``: there must be none.
            parents: whether missing directories are made.
            sha256: whether the appliance takes the SHA-256 as the bytes come, for `Sent.hex`, instead of reading the
                file again when it is asked for.
        """
        made = new_check()
        failed: list[OSError] = []

        def all_of_them() -> Iterator[bytes | memoryview]:
            try:
                yield from _whole(pieces, size, made, path)
            except OSError as error:  # of the source: the connection is not to blame
                failed.append(error)
                raise

        headers = self._headers(how, parents=parents) | {"Content-Length": str(size)} | (WANTED if sha256 else {})
        try:
            response = self.wire.request("PUT", quoted(path), headers, all_of_them())
        except HostUnreachable:
            if failed:
                raise failed[0] from None
            raise
        found = said_digests(response.headers)
        response.drain_conn()
        response.release_conn()
        if found.get(XXH3) != made.digest():
            raise OSError(errno.EBADMSG, "what the store has is not what was sent", path)
        return Sent(self, path, found.get(SHA256))

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`; it is sent in parts of some MB."""
        held, at = bytearray(), start
        sent = False
        for piece in pieces:
            held += piece
            if len(held) >= PART:
                at, sent = self.part(path, bytes(held), at), True
                held.clear()
        if held or not sent:
            at = self.part(path, bytes(held), at)
        return at

    def part(self, path: str, data: bytes, at: int) -> int:
        """Write a part of a file in place, and cut the file after it; returns its size."""
        response = self.wire.request("PATCH", quoted(path), {"Upload-Offset": str(at)}, data)
        response.drain_conn()
        response.release_conn()
        return int(response.headers["Upload-Offset"])

    # ---- changing

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        self.wire.call("mkdir", path=path, parents=parents, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self.wire.call("remove", paths=[path], directory=True)

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for at in range(0, len(paths), BATCH):
            self.wire.call("remove", paths=list(paths[at : at + BATCH]), recursive=recursive)

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file there."""
        self.wire.call("copy", source=source, target=target, parents=parents, keep_times=keep_times)

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""
        self.wire.call("move", source=source, target=target, parents=parents, into=True)

    def replace(self, source: str, target: str, *, exclusive: bool = False) -> None:
        """Rename, in place of what is there."""
        self.wire.call("move", source=source, target=target, exclusive=exclusive)

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""
        if not truncate:
            try:
                self.stamp(path, mode=None, mtime_ns=-1)
            except FileNotFoundError:
                pass
            else:
                return
        self.put(path, b"", "w", parents=parents)

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""
        self.wire.call("stamp", path=path, mode=mode, mtime_ns=mtime_ns)

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a symbolic link; it is relative and stays inside."""
        if hard:
            raise NotImplementedError("a store gives a file one name")
        self.wire.call("link", destination=destination, path=path)

    # ---- digests

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`."""
        found: dict[str, str] = {}
        for at in range(0, len(paths), BATCH):
            some = list(paths[at : at + BATCH])
            said = self.wire.call("digest", paths=some, start=start, stop=stop, kind=kind, again=True, read_s=DIGEST_S)
            found.update(zip(some, said["digests"], strict=True))
        return found


def _checked(pieces: Iterable[bytes], told: tuple[Any, bytes] | None, path: str) -> Generator[bytes]:
    """The bytes of a file; the last of them only if all have the digest that was told."""
    for piece in pieces:
        if told is not None:
            told[0].update(piece)
        yield piece
    if told is not None and told[0].digest() != told[1]:
        raise OSError(errno.EBADMSG, "what came is not what the store has", path)


def _whole(pieces: Iterable[bytes | memoryview], size: int, made: Any, path: str) -> Iterator[bytes | memoryview]:
    """The pieces of a file, digested; no byte more than was said.

    Raises:
        OSError: they are more or fewer.
    """
    sent = 0
    for piece in pieces:
        sent += len(piece)
        if sent > size:
            break
        made.update(piece)
        yield piece
    if sent != size:
        raise OSError(errno.EIO, "its size changed while it was sent", path)


def _batches(files: Iterable[tuple[str, bytes | memoryview]]) -> Iterator[list[tuple[str, bytes | memoryview]]]:
    """Files by the bundles that they travel in."""
    batch: list[tuple[str, bytes | memoryview]] = []
    size = 0
    for path, data in files:
        if batch and (len(batch) >= MOST_FILES or size + len(data) > BUNDLE):
            yield batch
            batch, size = [], 0
        batch.append((path, data))
        size += len(data)
    if batch:
        yield batch


def _is_what_is_told(row: Mapping[str, Any], content: memoryview) -> bool:
    """Whether what came in a bundle has the digest that its row tells, if it tells one."""
    if "xxh3" in row:
        return xxh3_of(content).hex() == str(row["xxh3"])
    return "sha256" not in row or hashlib.sha256(content).hexdigest() == str(row["sha256"])
