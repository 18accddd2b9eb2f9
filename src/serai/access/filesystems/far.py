"""A host's files through its porter: one call each, or a stream where there is much."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from serai.access.filesystems.offers import HostFacts, Mount
from serai.access.filesystems.port import Writing
from serai.access.porter import shared_porter
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from serai.access.openssh import Target
    from serai.access.porter import Call

PURPOSE = "files"
LONG_S = 600.0  # without a sign of life, for what may take a disk a while
SMALL = 1 << 20  # bytes that go with the call itself
BATCH = 1000  # paths in a call
AT_ONCE = 64  # ranges that are asked for before the first has come


class PorterFiles:
    """The files of a host as its porter sees them. A call whose connection was lost before it began is made once more.

    Args:
        target: the host.
        python: the interpreter there; None for the usual one.
    """

    def __init__(self, target: Target, python: str | None = None) -> None:
        self.target = target
        self.python = python
        self._facts: HostFacts | None = None

    def submit(self, do: str, head: Mapping[str, Any] | None = None, body: bytes = b"") -> Call:
        """Begin a call."""
        for again in (True, False):
            porter = shared_porter(self.target, PURPOSE, self.python)
            try:
                return porter.submit(do, head, body)
            except HostUnreachable:  # it ended since it was last asked, and nothing has begun
                if not again:
                    raise
        raise AssertionError

    def call(
        self, do: str, head: Mapping[str, Any], body: bytes = b"", *, again: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        """Ask and wait.

        Args:
            do: what.
            head: its arguments.
            body: bytes that go with it.
            again: whether it may be asked twice because it changes nothing: a lost connection shows only in the answer.
        """
        call = self.submit(do, head, body)
        try:
            return self._result(call)
        except HostUnreachable:
            if not again:
                raise
            return self._result(self.submit(do, head, body))

    @staticmethod
    def _result(call: Call) -> tuple[dict[str, Any], bytes]:
        for _ in call.pieces(LONG_S):  # signs of life
            pass
        return call.result(LONG_S)

    def facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""
        if self._facts is None:
            who, _ = self.call("who", {}, again=True)
            around, _ = self.call("files.surroundings", {}, again=True)
            self._facts = HostFacts(
                who["host"],
                who["boot"],
                who["user"],
                who["uid"],
                who["home"],
                tuple(Mount(*one) for one in around["mounts"]),
                tuple(around["addresses"]),
            )
        return self._facts

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""
        return self.call("files.stat", {"path": path, "follow": follow}, again=True)[0]

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A path's own facts, and what is below it, with names relative to it."""
        head = {"path": path, "depth": depth, "detail": detail}
        try:
            return self._rows(head)
        except HostUnreachable:
            return self._rows(head)

    def _rows(self, head: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        call = self.submit("files.list", head)
        found: list[dict[str, Any]] = []
        rest = b""
        for piece in call.pieces(LONG_S):
            *lines, rest = (rest + piece).split(b"\n")
            found += map(json.loads, lines)
        return call.result(LONG_S)[0], found

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""
        call = self.submit("files.read", {"path": path, "start": start, "stop": stop})
        try:
            yield from call.pieces(LONG_S)
            _, body = call.result(LONG_S)
            if body:
                yield body
        finally:
            call.cancel()

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one."""
        try:
            return _joined(self.read_from(path, start, stop))
        except HostUnreachable:
            return _joined(self.read_from(path, start, stop))

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order; so many are asked for before the first has come."""
        calls: list[Call] = []
        try:
            for at in range(len(wanted)):
                while len(calls) < min(at + AT_ONCE, len(wanted)):
                    path, start, stop = wanted[len(calls)]
                    calls.append(self.submit("files.read", {"path": path, "start": start, "stop": stop}))
                try:
                    pieces = list(calls[at].pieces(LONG_S))
                    yield b"".join(pieces) or calls[at].result(LONG_S)[1]
                except Exception as error:  # noqa: BLE001 - whoever asked decides
                    yield error
        finally:
            for call in calls:
                call.cancel()

    def ahead(self, path: str, start: int, stop: int) -> Call | None:
        """Ask for bytes that will be wanted; None where that cannot be."""
        return self.submit("files.read", {"path": path, "start": start, "stop": stop})

    # ---- writing

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        head = {"path": path, "how": how, "parents": parents}
        if len(data) <= SMALL:
            self.call("files.put", head, bytes(data))
            return
        with self.writing(path, how, parents=parents) as writing:
            writing.write(data)

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> PorterWriting:
        """See `FarFiles.writing`."""
        return PorterWriting(
            self, self.submit("files.write", {"path": path, "how": how, "parents": parents, "keep": keep})
        )

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        call = self.submit("files.write_at", {"path": path, "start": start})
        try:
            for piece in pieces:
                call.write(piece, LONG_S)
            call.finish()
            return int(call.result(LONG_S)[0]["size"])
        finally:
            call.cancel()

    # ---- changing

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        self.call("files.mkdir", {"path": path, "parents": parents, "exist_ok": exist_ok})

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self.call("files.rmdir", {"path": path})

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for at in range(0, len(paths), BATCH):
            self.call("files.remove", {"paths": list(paths[at : at + BATCH]), "recursive": recursive})

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file there."""
        head = {"source": source, "target": target, "parents": parents, "keep_times": keep_times}
        self.call("files.copy", head)

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""
        self.call("files.move", {"source": source, "target": target, "parents": parents})

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""
        self.call("files.replace", {"source": source, "target": target})

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""
        self.call("files.touch", {"path": path, "truncate": truncate, "parents": parents})

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""
        self.call("files.stamp", {"path": path, "mode": mode, "mtime_ns": mtime_ns})

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a link."""
        self.call("files.link", {"destination": destination, "path": path, "hard": hard})

    # ---- digests

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`."""
        size = max(1, -(-len(paths) // 4)) if len(paths) < 1000 else 250
        batches = [list(paths[at : at + size]) for at in range(0, len(paths), size)]
        found: dict[str, str] = {}
        under_way: list[tuple[list[str], Call]] = []
        for batch in batches:
            head = {"paths": batch, "start": start, "stop": stop, "kind": kind}
            under_way.append((batch, self.submit("files.digest", head)))
            if len(under_way) >= 8:
                done, call = under_way.pop(0)
                found.update(zip(done, self._result(call)[0]["digests"], strict=True))
        for done, call in under_way:
            found.update(zip(done, self._result(call)[0]["digests"], strict=True))
        return found


def _joined(pieces: Iterable[bytes]) -> bytes:
    """All of them, without holding them twice."""
    whole = io.BytesIO()
    for piece in pieces:
        whole.write(piece)
    return whole.getvalue()


class PorterWriting(Writing):
    """See `Writing`."""

    def __init__(self, files: PorterFiles, call: Call) -> None:
        self._files = files
        self._call = call
        self._kept: dict[str, Any] | None = None
        self._begun = False

    def begin(self) -> None:
        """Wait until the host says that it can be written.

        Raises:
            OSError: it cannot.
        """
        if not self._begun:
            self._begun = True
            next(self._call.pieces(LONG_S), None)

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        self._call.write(data, LONG_S)

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        self._call.finish()
        self._kept = self._call.result(LONG_S)[0]

    def commit(self, *, exclusive: bool = False) -> None:
        """Put in its place what was kept."""
        if self._kept:
            kept, self._kept = self._kept, None
            self._files.call("files.commit", {**kept, "exclusive": exclusive})

    def discard(self) -> None:
        """Give it up."""
        self._call.cancel()
        if self._kept and self._kept.get("temporary"):
            kept, self._kept = self._kept, None
            self._files.call("files.remove", {"paths": [kept["temporary"]]})
