"""What is answered to each request of the kernel's: looking, listing and reading; `writing` has the rest."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading

from ..reading.ahead import Habits
from ..reading.careful import LOST, Calls
from ..reading.contents import Content
from ..reading.sources import Stat, unknown
from . import protocol
from .tree import ABSENT_S, FRESH_S, Tree
from .writing import Writing, drafted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..reading.careful import Origin
    from ..reading.contents import Fetcher
    from ..reading.patience import Patience
    from ..reading.record import Record
    from .session import Request
    from .tree import Node

MOST_COMPLAINTS = 3
TROUBLES = LOST | {errno.EIO, errno.ESTALE}
REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT})
READS = frozenset({protocol.LOOKUP, protocol.GETATTR, protocol.OPEN, protocol.READ})

LONGEST_NAME = 1024  # bytes, for FUSE
SEEN_S = 1.0  # what was found so recently needs no second look when a file is opened


class Handle:
    """A file or directory that a program has open."""

    __slots__ = ("content", "habits", "node", "rows", "sent", "writes")

    def __init__(self, node: Node, habits: Habits, *, writes: bool = False) -> None:
        self.node, self.habits, self.writes = node, habits, writes
        self.content: Content | None = None  # the version that was opened, unless we have written another since
        self.sent = node.sent
        self.rows: list[tuple[bytes, Stat | None]] | None = None


class Files:
    """Answers the kernel.

    Args:
        origin: the sources.
        fetcher: brings blocks.
        record: of what was read.
        names: the URL of a path, for the record.
        scratch: a directory for what is being written; None where nothing may be.

    Attributes:
        tell: takes notices to the kernel, once there is a session.
        promised: names of files that a task was told are there: of these, refusals and absence are troubles too.
        trouble: which file could not be read first, and why; empty while all that was asked for was given.
    """

    def __init__(
        self, origin: Origin, fetcher: Fetcher, record: Record, names: Callable[[str], str], scratch: str | None
    ) -> None:
        self.origin, self.fetcher, self._record, self._names = origin, fetcher, record, names
        self.tree, self.calls = Tree(), Calls()
        self.tell: Callable[[bytes], None] = _to_nobody
        self._owner = (os.geteuid(), os.getegid())
        self._habits = Habits()
        self._complaints = 0
        self.promised: frozenset[bytes] = frozenset()
        self.trouble = ""
        self._lock = threading.Lock()
        self._handles: dict[int, Handle] = {}
        self._last = 0
        self.writing = Writing(self, scratch)
        self._acts = {
            protocol.LOOKUP: self._lookup, protocol.GETATTR: self._getattr, protocol.OPEN: self._open,
            protocol.READ: self._read, protocol.RELEASE: self._release, protocol.OPENDIR: self._opendir,
            protocol.READDIR: self._readdir, protocol.READDIRPLUS: self._readdir, protocol.RELEASEDIR: self._releasedir,
            protocol.STATFS: self._statfs, protocol.FORGET: self._forget, protocol.BATCH_FORGET: self._forget,
            protocol.FSYNCDIR: _nothing,
            **self.writing.acts,
        }  # fmt: skip

    def __call__(self, request: Request) -> bytes | None:
        """Answer one request."""
        act = self._acts.get(request.op)
        if act is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        try:
            return act(request)
        except OSError as error:
            if error.errno in TROUBLES or (self.promised and error.errno in REFUSALS and request.op in READS):
                self._complain(self._name(request), error)
            raise

    def _name(self, request: Request) -> str:
        """Which file a request is about: its URL, or its name where the front end alone knows that."""
        with contextlib.suppress(OSError):
            node = self.tree.node(request.node)
            name = request.data.rstrip(b"\0") if request.op == protocol.LOOKUP else None
            path = self.tree.path(node) if name is None else self.tree.path(node, name)
            url = self._names(path)
            return url if "://" in url else os.path.basename(path)
        return "it"

    def _complain(self, name: str, error: OSError) -> None:
        """Say why, on standard error: a program is told an errno and does not know more; a few times at most."""
        if self._complaints < MOST_COMPLAINTS:
            self._complaints += 1
            words = "%s cannot be read: %s" % (name, error.strerror)
            self.trouble = self.trouble or words
            with contextlib.suppress(OSError):
                sys.stderr.write("mount: %s\n" % words)

    # ---- knowing

    def ask(self, path: str, patience: Patience, do: str, *args: object, **named: object) -> object:
        """Let the source of a path do something, with its own path first."""
        careful, there = self.origin.at(path)
        return self.calls.ask(careful, patience, lambda: getattr(careful.source, do)(there, *args, **named))

    def known(self, node: Node, patience: Patience, within_s: float = FRESH_S) -> Stat:
        """What is known of a node; asked for if that is long ago."""
        if node.draft is None and not node.fresh(within_s) and not (node.removed and node.stat is not None):
            found = self.ask(self.tree.path(node), patience, "stat")
            if node.draft is None:
                node.learn(found)  # type: ignore[arg-type]
        found = node.stat
        if found is None:
            raise unknown(errno.ENOENT, os.fsdecode(node.name))
        return drafted(node) or found

    def facts(self, node: Node, found: Stat) -> bytes:
        """A node's facts as the kernel wants them."""
        return protocol.attributes(node.number, found, self._owner)

    def entry(self, node: Node, found: Stat) -> bytes:
        """A node and its facts."""
        return protocol.entry(node.number, self.facts(node, found), FRESH_S if node.draft is None else 0.0)

    def content(self, node: Node) -> Content:
        """The bytes of the version of a file that is known now."""
        found = self.tree.need(node, "file")
        with self.tree.lock:
            content = node.content
            if content is None or (content.stamp, content.size) != (found.stamp, found.size):
                careful, there = self.origin.at(self.tree.path(node))
                node.use.size = found.size
                version = (found.stamp, found.size)
                content = node.content = Content(self.fetcher, careful, there, version, node.use)
            return content

    def _lookup(self, request: Request) -> bytes:
        parent, name = self.tree.node(request.node), request.data.rstrip(b"\0")
        node = self.tree.child(parent, name)
        if node is not None and (node.draft is not None or node.fresh()):
            found = self.known(node, request.patience)
        else:
            if self.tree.is_absent(parent, name):
                return protocol.entry(0, b"", ABSENT_S)
            try:
                found = self.ask(self.tree.path(parent, name), request.patience, "stat")  # type: ignore[assignment]
            except FileNotFoundError as error:
                if name in self.promised:
                    self._complain(self._name(request), error)
                self.tree.absent(parent, name)
                return protocol.entry(0, b"", ABSENT_S)
        node = self.tree.adopt(parent, name, found, lookup=True)
        return self.entry(node, found)

    def _getattr(self, request: Request) -> bytes:
        node = self.tree.node(request.node)
        facts = self.facts(node, self.known(node, request.patience))
        return protocol.attr_out(facts, FRESH_S if node.draft is None else 0.0)

    def _forget(self, request: Request) -> None:
        if request.op == protocol.FORGET:
            self.tree.forget(request.node, protocol.NUMBER.unpack_from(request.data)[0])
            return
        count, _ = protocol.COUNT.unpack_from(request.data)
        for at in range(count):
            number, times = protocol.FORGET_ONE.unpack_from(request.data, 8 + at * protocol.FORGET_ONE.size)
            self.tree.forget(number, times)

    def _statfs(self, request: Request) -> bytes:
        try:
            total, free = self.calls.ask(self.origin.at("/")[0], request.patience, self.origin.source.space)
        except OSError:
            total = free = 0
        if not total:
            total = free = 1 << 50  # nobody knows: no program should think that it is full
        return protocol.statfs_out(total, free)

    # ---- reading

    def handle(self, node: Node, *, writes: bool = False) -> int:
        """A new handle of a node."""
        with self._lock:
            self._last += 1
            self._handles[self._last] = Handle(node, self._habits, writes=writes)
            node.handles += 1
            return self._last

    def _handle(self, number: int) -> Handle:
        with self._lock:
            found = self._handles.get(number)
        if found is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found

    def _open(self, request: Request) -> bytes:
        node = self.tree.node(request.node)
        flags, _ = protocol.OPEN_IN.unpack_from(request.data)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        found = self.known(node, request.patience, SEEN_S)
        self.tree.need(node, "file")
        number, how = self.handle(node, writes=writes), 0
        try:
            if writes:
                self.writing.begin(node, request.patience, empty=bool(flags & os.O_TRUNC))
            if node.draft is None:
                self._handle(number).content = self.content(node)
                how = protocol.KEEP_CACHE if node.shown == found.stamp else 0
                if not how and node.shown:
                    self.tell(protocol.changed(node.number))
                node.shown = found.stamp
        except BaseException:
            self._drop(number)
            raise
        return protocol.OPEN_OUT.pack(number, how, 0)

    def _read(self, request: Request) -> bytes:
        number, offset, size, _, _, _, _ = protocol.READ_IN.unpack_from(request.data)
        handle = self._handle(number)
        node = handle.node
        draft = node.draft
        if draft is not None:
            return draft.read(offset, size)
        content = handle.content
        if content is None or handle.sent != node.sent:
            content, handle.sent = self.content(node), node.sent
            handle.content = content
        return content.read(offset, size, request.patience, handle.habits)

    def _release(self, request: Request) -> bytes:
        (number,) = protocol.HANDLE.unpack_from(request.data)
        with self._lock:
            handle = self._handles.get(number)
        if handle is None:
            return b""
        node = handle.node
        with node.lock:  # of several handles one is the last
            try:
                if handle.writes:
                    self.writing.released(node, request.patience)
            except OSError as error:  # whoever closed it has been told, or wrote by a map and did not ask
                sys.stderr.write("mount: %s was not written: %s\n" % (os.fsdecode(node.name), error))
            others = self._drop(number)
        if not others:
            self._note(node)
            self.tree.tidy(node)
        return b""

    def _drop(self, number: int) -> int:
        """End a handle; how many others its node has."""
        with self._lock:
            node = self._handles.pop(number).node
            node.handles -= 1
            return node.handles

    def _note(self, node: Node) -> None:
        try:
            self._record.add(self._names(self.tree.path(node)), node.use)
        except OSError:  # it was removed
            return

    # ---- listing

    def _opendir(self, request: Request) -> bytes:
        node = self.tree.node(request.node)
        self.known(node, request.patience)
        self.tree.need(node, "directory")
        return protocol.OPEN_OUT.pack(self.handle(node), 0, 0)

    def _releasedir(self, request: Request) -> bytes:
        (number,) = protocol.HANDLE.unpack_from(request.data)
        with self._lock:
            handle = self._handles.pop(number, None)
            if handle is not None:
                handle.node.handles -= 1
        if handle is not None:
            self.tree.tidy(handle.node)
        return b""

    def _rows(self, handle: Handle, patience: Patience) -> list[tuple[bytes, Stat | None]]:
        node = handle.node
        path = self.tree.path(node)
        careful, there = self.origin.at(path)
        found = self.calls.ask(careful, patience, lambda: list(careful.source.listed(there)))
        rows = {os.fsencode(name): facts for name, facts in found}
        rows.update(self.writing.names(node))
        plain = [(name, facts) for name, facts in rows.items() if _can_be(name)]
        own = Stat("directory", 0, 0, 0, "")
        return [(b".", own), (b"..", own), *plain]

    def _readdir(self, request: Request) -> bytes:
        number, offset, size, _, _, _, _ = protocol.READ_IN.unpack_from(request.data)
        handle = self._handle(number)
        if handle.rows is None or not offset:
            handle.rows = self._rows(handle, request.patience)
        out, room = [], size
        for at in range(offset, len(handle.rows)):
            name, found = handle.rows[at]
            kind = found.kind if found is not None else "file"
            data = protocol.dirent(at + 2, at + 1, kind, name)
            plus = request.op == protocol.READDIRPLUS
            if len(data) + (protocol.ENTRY_BYTES if plus else 0) > room:
                break
            if plus:
                data = self._entry_of(handle.node, name, found) + data
            out.append(data)
            room -= len(data)
        return b"".join(out)

    def _entry_of(self, parent: Node, name: bytes, found: Stat | None) -> bytes:
        if found is None or name in (b".", b".."):
            return protocol.entry(0, b"", 0.0)
        node = self.tree.adopt(parent, name, found, lookup=True)
        return self.entry(node, drafted(node) or found)

    def close(self) -> None:
        """The mount is gone: send what was written and not closed, and end the record."""
        self.writing.close()
        for node in self.tree.known():
            if node.handles:
                self._note(node)
        self._record.close()


def _can_be(name: bytes) -> bool:
    """Whether a directory can have a name; the kernel takes no listing with one that it cannot."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= LONGEST_NAME


def _to_nobody(_notice: bytes) -> None:
    return


def _nothing(_request: Request) -> bytes:
    return b""
