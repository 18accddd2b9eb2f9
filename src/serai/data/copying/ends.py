"""The two ends of a copy: this machine, a host behind its porter, or any file system that fsspec knows.

The first two run the same code (`serai.travel.copying.looks` and ``lots``), here or there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from serai.access.connections import shared
from serai.access.porter import shared_porter
from serai.data.copy_plan import Fact
from serai.travel.boot import SHUTTLE
from serai.travel.copying import looks, lots, peers
from serai.travel.copying.shuttle import Line, land_order, read_order
from serai.travel.porter.calls import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from serai.access.openssh import Target
    from serai.access.porter import Porter

__all__ = ["End", "HostEnd", "LocalEnd", "Tree", "fact_of", "sort_tree"]

SLOWEST_DIGEST = 20 << 20  # bytes a second: a disk that reads slower has missed its deadline
START_S = 30.0
ALONE_FROM = 16 << 20  # bytes; a shorter file has passed before a session of its own was there
CLEAR_S = 3600.0  # for a tree to be removed
PATIENCE_S = 60.0  # with a host that says nothing

Detail = tuple[str, Fact, int | None, str, str]  # name, fact, how many names it has, owner, group
Tree = tuple[dict[str, Fact], dict[str, str]]  # facts by name, and why others could not be had
Look = Fact | OSError | None


class End(Protocol):
    """What a copy needs of a file system. Methods may be called from several threads.

    Attributes:
        store: tells file systems apart.
        shown: what messages call it.
        digests: whether contents are digested where they lie; else sizes are all there is to compare.
        flat: whether directories are there as soon as something is in them.
        umask: the bits that new files are not given.
    """

    store: str
    shown: str
    digests: bool
    flat: bool
    umask: int

    def look(self, paths: Sequence[str], *, follow: bool = False) -> list[Look]:
        """Facts of paths; None of what is not there, an error of what cannot be seen."""
        ...

    def walk(self, path: str, *, follow: bool = False, within: Sequence[str] | None = None) -> Tree:
        """Facts of all in a directory, parents first, and of itself; ``within`` names the only ones looked into."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """The paths that fit a pattern of a shell, sorted."""
        ...

    def details(self, path: str, *, inside: bool) -> list[Detail]:
        """What is known of a path, or of what is in a directory."""
        ...

    def clear(self, path: str) -> list[OSError]:
        """Remove a path with all that is in it; gives what could not be, by ``filename``."""
        ...

    def each(self, act: str, rows: Sequence[Any]) -> list[tuple[int, OSError]]:
        """Do one of `looks.ACTS` with each row; gives the numbers of those it failed for."""
        ...

    def send(self, paths: Sequence[str], *, follow: bool, troubles: list[list[Any]]) -> Iterator[bytes]:
        """Yield files as lots; see `lots.lots`."""
        ...

    def take(self, pieces: Iterable[bytes], rows: Sequence[Any], wishes: Mapping[str, Any]) -> dict[str, Any]:
        """Write files that come as lots; see `lots.store`."""
        ...

    def offer(self, path: str) -> tuple[int, str]:
        """How much of a file came earlier, and its digest."""
        ...

    def prefix(self, path: str, size: int) -> str:
        """The digest of the first bytes of a file."""
        ...

    def prefixes(self, rows: Sequence[Any]) -> list[str]:
        """The digests of the first bytes of files, each [path, number]; empty of those that cannot be read."""
        ...

    def abandon(self) -> None:
        """Make whatever is under way fail."""
        ...

    def read(
        self, path: str, start: int, *, follow: bool, said: dict[str, Any], size: int | None = None
    ) -> Iterator[bytes | memoryview]:
        """Yield a file from an offset on; see `lots.read`. A piece is good until the next is asked for.

        Args:
            path: the file.
            start: the offset.
            follow: whether it may be a link.
            said: is told the digest of what was read, and how much it was.
            size: of the file, if known: long ones may take another way.
        """
        ...

    def land(
        self, path: str, start: int, pieces: Iterable[bytes | memoryview], *, size: int | None = None
    ) -> dict[str, Any]:
        """Write a file beside its name from an offset on; see `lots.land`."""
        ...

    def commit(self, row: Sequence[Any], size: int, wishes: Mapping[str, Any]) -> None:
        """Give it its name; see `lots.commit`."""
        ...


def fact_of(row: Sequence[Any]) -> Fact:
    """What `looks.fact` gave."""
    kind, size, mode, mtime_ns, link, behind, device, inode = row
    return Fact(kind, size, mode, mtime_ns, link, behind, (device, inode))


def _look_of(row: Any) -> Look:
    if row is None:
        return None
    return OSError(*row) if len(row) == 2 else fact_of(row)


def sort_tree(rows: Iterable[Any], tree: Tree) -> None:
    """Take what `looks.walk` gave. A host is not believed: what it names is written to elsewhere, by that name.

    A name that leads out of the tree, or through what is no directory of it (a link that was made before), is trouble.
    """
    facts, troubles = tree
    for name, row in rows:
        parts = name.split("/")
        parent = facts.get("/".join(parts[:-1])) if name else None
        odd = name and (any(part in {"", ".", ".."} for part in parts) or parent is None or parent.kind != "directory")
        if len(row) == 2:
            troubles[name] = row[1]
        elif odd or "\0" in name or name in facts:
            troubles[name] = "the host names what cannot be in a directory: not copied"
        else:
            facts[name] = fact_of(row)


class LocalEnd:
    """This machine's files."""

    digests = True
    flat = False
    shown = "here"

    def __init__(self) -> None:
        where = looks.where()
        self.store = store_of(where)
        self.umask = int(where["umask"])
        self.home = str(where["home"])

    def look(self, paths: Sequence[str], *, follow: bool = False) -> list[Look]:
        """See `End`."""
        return [_look_of(row) for row in looks.look(paths, follow)]

    def walk(self, path: str, *, follow: bool = False, within: Sequence[str] | None = None) -> Tree:
        """See `End`."""
        tree: Tree = {}, {}
        sort_tree(looks.walk(path, follow, within), tree)
        return tree

    def details(self, path: str, *, inside: bool) -> list[Detail]:
        """See `End`."""
        return [(name, fact_of(row), *rest) for name, row, *rest in looks.details(path, inside)]

    def clear(self, path: str) -> list[OSError]:
        """See `End`."""
        return [OSError(code, what, name) for name, code, what in looks.clear(path)]

    def glob(self, pattern: str) -> list[str]:
        """See `End`."""
        return looks.fitting(pattern)

    def each(self, act: str, rows: Sequence[Any]) -> list[tuple[int, OSError]]:
        """See `End`."""
        return [(number, OSError(code, what)) for number, code, what in looks.each(rows, looks.ACTS[act])]

    def send(self, paths: Sequence[str], *, follow: bool, troubles: list[list[Any]]) -> Iterator[bytes]:
        """See `End`."""
        return lots.lots(paths, follow, troubles)

    def take(self, pieces: Iterable[bytes], rows: Sequence[Any], wishes: Mapping[str, Any]) -> dict[str, Any]:
        """See `End`."""
        return lots.store(pieces, rows, wishes)

    def offer(self, path: str) -> tuple[int, str]:
        """See `End`."""
        return lots.offer(path)

    def prefix(self, path: str, size: int) -> str:
        """See `End`."""
        return lots.prefix(path, size)

    def prefixes(self, rows: Sequence[Any]) -> list[str]:
        """See `End`."""
        return lots.prefixes(rows)

    def abandon(self) -> None:
        """See `End`; nothing here waits for anybody."""

    def read(
        self, path: str, start: int, *, follow: bool, said: dict[str, Any], size: int | None = None
    ) -> Iterator[bytes | memoryview]:
        """See `End`."""
        return lots.read(path, start, follow, said)

    def land(
        self, path: str, start: int, pieces: Iterable[bytes | memoryview], *, size: int | None = None
    ) -> dict[str, Any]:
        """See `End`."""
        return lots.land(path, start, pieces)

    def commit(self, row: Sequence[Any], size: int, wishes: Mapping[str, Any]) -> None:
        """See `End`."""
        lots.commit(row, size, {**wishes, "umask": self.umask})


def store_of(where: Mapping[str, Any]) -> str:
    """The name of a host's file system, from what `looks.where` says there."""
    return " ".join(str(where[key]) for key in peers.SAME)


class Shuttle:
    """A session of a host for one large file; as a context, it gives its line.

    Args:
        target: the host.
        python: the interpreter there.
        alive: the set of those that are alive, which it is in.

    Raises:
        Trouble: there is none.
    """

    def __init__(self, target: Target, python: str, alive: set[Shuttle]) -> None:
        words = shared(target).argv(SHUTTLE.command(python))
        self._process, self._in, self._out = peers.start(words, SHUTTLE.packed(), START_S)
        self._alive = alive
        alive.add(self)

    def __enter__(self) -> Line:
        return Line(self._out, self._in)

    def __exit__(self, *_: object) -> None:
        peers.end(self._process)
        self._alive.discard(self)

    def end(self) -> None:
        """End it; whoever waits for it gets an error."""
        self._process.kill()
        self._process.wait()


class HostEnd:
    """The files of a host, through its porter.

    Args:
        target: the host.
        python: the interpreter there.

    Raises:
        AccessError: it cannot be reached, or has no fitting interpreter.
    """

    digests = True
    flat = False

    def __init__(self, target: Target, python: str | None = None) -> None:
        self.target = target
        self._python = python
        self._shuttles: set[Shuttle] = set()
        self._more_sessions = True
        self.shown = target.host
        self.where = self.porter.call("looks.where")[0]
        self.store = store_of(self.where)
        self.umask = int(self.where["umask"])
        self.home = str(self.where["home"])

    @property
    def porter(self) -> Porter:
        """What does the work there; another one when it was lost."""
        return shared_porter(self.target, "files", self._python)

    def look(self, paths: Sequence[str], *, follow: bool = False) -> list[Look]:
        """See `End`."""
        _, body = self.porter.call("looks.look", {"follow": follow}, _json(paths))
        return [_look_of(row) for row in json.loads(body)]

    def walk(self, path: str, *, follow: bool = False, within: Sequence[str] | None = None) -> Tree:
        """See `End`."""
        tree: Tree = {}, {}
        body = b"" if within is None else _json(within)
        call = self.porter.submit("looks.walk", {"path": path, "follow": follow}, body)
        rest = b""
        for piece in call.pieces(PATIENCE_S):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                sort_tree(json.loads(line), tree)
        call.result(PATIENCE_S)
        return tree

    def details(self, path: str, *, inside: bool) -> list[Detail]:
        """See `End`."""
        _, body = self.porter.call("looks.details", {"path": path, "inside": inside})
        return [(name, fact_of(row), *rest) for name, row, *rest in json.loads(body)]

    def clear(self, path: str) -> list[OSError]:
        """See `End`."""
        _, body = self.porter.call("looks.clear", {"path": path}, deadline_s=CLEAR_S)
        return [OSError(code, what, name) for name, code, what in json.loads(body)]

    def glob(self, pattern: str) -> list[str]:
        """See `End`."""
        found: list[str] = json.loads(self.porter.call("looks.glob", {"pattern": pattern})[1])
        return found

    def each(self, act: str, rows: Sequence[Any]) -> list[tuple[int, OSError]]:
        """See `End`."""
        if not rows:
            return []
        deadline_s = PATIENCE_S + len(rows) / 100
        _, body = self.porter.call("looks.each", {"act": act}, _json(rows), deadline_s=deadline_s)
        return [(number, OSError(code, what)) for number, code, what in json.loads(body)]

    def send(self, paths: Sequence[str], *, follow: bool, troubles: list[list[Any]]) -> Iterator[bytes]:
        """See `End`."""
        call = self.porter.submit("lots.send", {"follow": follow}, _json(paths))
        try:
            yield from call.pieces(PATIENCE_S)
            troubles += call.result(PATIENCE_S)[0]["troubles"]
        finally:
            call.cancel()

    def take(self, pieces: Iterable[bytes], rows: Sequence[Any], wishes: Mapping[str, Any]) -> dict[str, Any]:
        """See `End`."""
        call = self.porter.submit("lots.store", {"wishes": dict(wishes)}, _json(rows))
        return self._filled(call, pieces)

    def offer(self, path: str) -> tuple[int, str]:
        """See `End`."""
        head, _ = self.porter.call("large.offer", {"path": path}, deadline_s=24 * 3600.0)
        return head["have"], head["digest"]

    def prefix(self, path: str, size: int) -> str:
        """See `End`."""
        deadline_s = PATIENCE_S + size / SLOWEST_DIGEST
        head, _ = self.porter.call("large.prefix", {"path": path, "size": size}, deadline_s=deadline_s)
        digest: str = head["digest"]
        return digest

    def prefixes(self, rows: Sequence[Any]) -> list[str]:
        """See `End`."""
        deadline_s = PATIENCE_S + sum(size for _, size in rows) / SLOWEST_DIGEST
        _, body = self.porter.call("lots.prefixes", {}, _json(rows), deadline_s=deadline_s)
        found: list[str] = json.loads(body)
        return found

    def abandon(self) -> None:
        """See `End`."""
        self.porter.close()
        for shuttle in list(self._shuttles):
            shuttle.end()

    def read(
        self, path: str, start: int, *, follow: bool, said: dict[str, Any], size: int | None = None
    ) -> Iterator[bytes | memoryview]:
        """See `End`."""
        order = {"path": path, "start": start, "follow": follow}
        shuttle = self._shuttle(start, size)
        if shuttle is not None:
            with shuttle as line:
                yield from read_order(line, order, said)
            return
        call = self.porter.submit("large.read", order)
        try:
            yield from call.pieces(PATIENCE_S)
            said.update(call.result(PATIENCE_S)[0])
        finally:
            call.cancel()

    def land(
        self, path: str, start: int, pieces: Iterable[bytes | memoryview], *, size: int | None = None
    ) -> dict[str, Any]:
        """See `End`."""
        order = {"path": path, "start": start}
        shuttle = self._shuttle(start, size)
        if shuttle is not None:
            with shuttle as line:
                return land_order(line, order, pieces)
        return self._filled(self.porter.submit("large.land", order), pieces)

    def _shuttle(self, start: int, size: int | None) -> Shuttle | None:
        """A session of its own for a long file, if the host gives one more."""
        if size is None or size - start < ALONE_FROM or not self._more_sessions:
            return None
        try:
            return Shuttle(self.target, self._python or "python3", self._shuttles)
        except Trouble:
            self._more_sessions = False  # MaxSessions of its sshd; its porter does as well, if not as fast
            return None

    def commit(self, row: Sequence[Any], size: int, wishes: Mapping[str, Any]) -> None:
        """See `End`."""
        head = {"row": list(row), "size": size, "wishes": {**wishes, "umask": self.umask}}
        self.porter.call("large.commit", head)

    @staticmethod
    def _filled(call: Any, pieces: Iterable[bytes | memoryview]) -> dict[str, Any]:
        try:
            for piece in pieces:
                call.write(piece, PATIENCE_S)
            call.finish()
            head: dict[str, Any] = call.result(PATIENCE_S)[0]
        except BaseException:
            call.cancel()
            raise
        return head


def _json(rows: Any) -> bytes:
    return json.dumps(rows, separators=(",", ":")).encode("ascii")
