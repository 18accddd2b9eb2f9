"""Requests that change something. A file is written here and goes to its source when it is closed or synchronised."""

from __future__ import annotations

import errno
import os
import time

from ..reading.patience import Patience
from ..reading.sources import Stat, unknown
from . import protocol
from .drafts import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .serving import Files
    from .session import Request
    from .tree import Node

LAST_S = 10.0  # for what was never closed, when the mount is gone


def drafted(node: Node) -> Stat | None:
    """What is known of a file that is being written; None where it is not."""
    draft, found = node.draft, node.stat
    if draft is None or found is None:
        return None
    return found._replace(size=draft.size, mtime_ns=draft.written_ns)


class Writing:
    """The changing half of `Files`.

    Args:
        files: the other half.
        scratch: a directory for drafts; None where nothing may be written.
    """

    def __init__(self, files: Files, scratch: str | None) -> None:
        self._files, self._tree, self._scratch = files, files.tree, scratch
        self.acts = {
            protocol.WRITE: self._write, protocol.CREATE: self._create, protocol.SETATTR: self._setattr,
            protocol.FLUSH: self._flush, protocol.FSYNC: self._flush, protocol.RENAME: self._rename,
            protocol.RENAME2: self._rename, protocol.UNLINK: self._unlink, protocol.RMDIR: self._unlink,
            protocol.MKDIR: self._mkdir,
        }  # fmt: skip

    def _need(self, path: str) -> None:
        if self._scratch is None or not self._files.origin.at(path)[0].source.writable:
            raise unknown(errno.EROFS, path)

    def names(self, parent: Node) -> dict[bytes, Stat]:
        """What is in a directory and not at the source yet."""
        with self._tree.lock:
            children = list(parent.children.items())
        found = {name: drafted(node) for name, node in children}
        return {name: facts for name, facts in found.items() if facts is not None}

    def begin(self, node: Node, patience: Patience, *, empty: bool) -> None:
        """A file is opened for writing; what it holds is fetched when a part of it is written."""
        self._need(self._tree.path(node))
        if empty:
            self._draft(node, patience, size=0)

    def _draft(self, node: Node, patience: Patience, size: int | None = None) -> Draft:
        """The draft of a file; it begins with what the source has, unless nothing of that will be left."""
        assert self._scratch is not None or node.removed  # noqa: S101 - whoever opened it was asked
        with node.lock:
            if node.draft is None:
                draft = Draft(self._scratch or "/tmp", None)  # noqa: S108 - it has no name
                if size != 0:
                    draft.fill(self._files.content(node), patience)
                node.draft = draft
            if size is not None and (node.draft.size != size or size == 0):
                node.draft.cut(size)
            return node.draft

    def _create(self, request: Request) -> bytes:
        parent = self._tree.node(request.node)
        _, mode, umask, _ = protocol.CREATE_IN.unpack_from(request.data)
        name = request.data[protocol.CREATE_IN.size :].rstrip(b"\0")
        self._need(self._tree.path(parent, name))
        found = Stat("file", 0, time.time_ns(), mode & ~umask & 0o777, "")
        draft = Draft(self._scratch or "", found.mode)
        with self._tree.lock:
            node = self._tree.adopt(parent, name, found, lookup=True)
            number = self._files.handle(node, writes=True)
        with node.lock:
            node.draft = draft
        return self._files.entry(node, found) + protocol.OPEN_OUT.pack(number, 0, 0)

    def _write(self, request: Request) -> bytes:
        _, offset, size, _, _, _, _ = protocol.READ_IN.unpack_from(request.data)
        node = self._tree.node(request.node)
        with node.lock:
            data = request.data[protocol.READ_IN.size : protocol.READ_IN.size + size]
            count = self._draft(node, request.patience).write(offset, data)
        return protocol.SIZE_OUT.pack(count, 0)

    # ---- sending

    def _flush(self, request: Request) -> bytes:
        self.send(self._tree.node(request.node), request.patience)
        return b""

    def send(self, node: Node, patience: Patience) -> None:
        """Put what was written in its place.

        Raises:
            OSError: the source says no, or nothing; or a part of what was written was lost here.
        """
        with node.lock:
            draft = node.draft
            if draft is None or not draft.dirty or node.removed:
                return
            if draft.spoiled is not None:
                raise OSError(*draft.spoiled)
            path = self._tree.path(node)
            careful, there = self._files.origin.at(path)
            size, mtime_ns = draft.size, draft.mtime_ns
            with draft.beginning() as content:  # all of it goes in one call, which may take as long as it goes on

                def put() -> Stat:
                    careful.source.write(there, content, size, draft.mode)
                    if mtime_ns is not None:
                        careful.source.stamp(there, mode=None, mtime_ns=mtime_ns)
                    return careful.source.stat(there)

                found = self._files.calls.ask(careful, patience, put, lambda: content.progress)
            draft.dirty = False
            node.sent += 1
            node.learn(found)
            node.content, node.shown = None, found.stamp
            if found.size == size:
                draft.keep(self._files.content(node))

    def released(self, node: Node, patience: Patience) -> None:
        """A handle that could write is closed."""
        with node.lock:
            try:
                self.send(node, patience)
            finally:
                if node.handles <= 1 and node.draft is not None:  # whoever opens it now is counted already
                    if node.draft.dirty:
                        node.known_at = 0.0  # the source has what it had before
                    node.draft = None

    def close(self) -> None:
        """The mount is gone."""
        for node in self._tree.known():
            if node.draft is not None:
                self.released(node, Patience(LAST_S))

    # ---- names

    def _setattr(self, request: Request) -> bytes:
        node = self._tree.node(request.node)
        given = protocol.SETATTR_IN.unpack_from(request.data)
        valid, size, mtime, mtime_nano, mode, uid, gid = (given[at] for at in (0, 3, 6, 9, 11, 13, 14))
        path = self._tree.path(node)
        if (valid & protocol.SET_UID and uid != os.geteuid()) or (valid & protocol.SET_GID and gid != os.getegid()):
            raise unknown(errno.EPERM, path)
        new_mode = mode & 0o777 if valid & protocol.SET_MODE else None
        mtime_ns: int | None = None
        if valid & protocol.SET_MTIME:
            mtime_ns = time.time_ns() if valid & protocol.SET_MTIME_NOW else mtime * 1_000_000_000 + mtime_nano
        if valid & protocol.SET_SIZE or new_mode is not None or mtime_ns is not None:
            self._need(path)
        with node.lock:
            found = self._files.known(node, request.patience)
            if valid & protocol.SET_SIZE:
                self._draft(node, request.patience, size=size)
                if not node.handles:  # truncate(2), of a file that nobody has open
                    node.handles += 1
                    try:
                        self.released(node, request.patience)
                    finally:
                        node.handles -= 1
            if new_mode is not None or mtime_ns is not None:
                self._stamp(node, new_mode, mtime_ns, request.patience)
            found = self._files.known(node, request.patience)
        return protocol.attr_out(self._files.facts(node, found), 0.0)

    def _stamp(self, node: Node, mode: int | None, mtime_ns: int | None, patience: Patience) -> None:
        found = node.stat
        if node.draft is not None and node.draft.dirty:
            if mode is not None:
                node.draft.mode = mode
            if mtime_ns is not None:
                node.draft.mtime_ns = mtime_ns
            if found is not None and mode is not None:
                node.learn(found._replace(mode=mode))
            return
        path = self._tree.path(node)
        self._files.ask(path, patience, "stamp", mode=mode, mtime_ns=mtime_ns)
        former = found.stamp if found is not None else ""
        now = self._files.ask(path, patience, "stat")
        node.learn(now)  # type: ignore[arg-type]
        if node.shown == former and node.stat is not None:
            node.shown = node.stat.stamp
        if node.draft is not None:
            node.draft.mtime_ns = mtime_ns

    def _mkdir(self, request: Request) -> bytes:
        parent = self._tree.node(request.node)
        mode, umask = protocol.MKDIR_IN.unpack_from(request.data)
        name = request.data[protocol.MKDIR_IN.size :].rstrip(b"\0")
        path = self._tree.path(parent, name)
        self._need(path)
        self._files.ask(path, request.patience, "make_directory", mode & ~umask)
        found = self._files.ask(path, request.patience, "stat")
        node = self._tree.adopt(parent, name, found, lookup=True)  # type: ignore[arg-type]
        return self._files.entry(node, found)  # type: ignore[arg-type]

    def _unlink(self, request: Request) -> bytes:
        parent, name = self._tree.node(request.node), request.data.rstrip(b"\0")
        path = self._tree.path(parent, name)
        self._need(path)
        node = self._tree.child(parent, name)
        try:
            self._files.ask(path, request.patience, "remove", directory=request.op == protocol.RMDIR)
        except FileNotFoundError:
            if node is None or node.draft is None:  # a file that was never sent is only here
                raise
        self._tree.gone(parent, name)
        return b""

    def _rename(self, request: Request) -> bytes:
        parent = self._tree.node(request.node)
        if request.op == protocol.RENAME2:
            number, flags, _ = protocol.RENAME2_IN.unpack_from(request.data)
            size = protocol.RENAME2_IN.size
        else:
            (number,), flags, size = protocol.RENAME_IN.unpack_from(request.data), 0, protocol.RENAME_IN.size
        name, new = protocol.names(request.data[size:])[:2]
        target = self._tree.node(number)
        path, there = self._tree.path(parent, name), self._tree.path(target, new)
        self._need(path)
        self._need(there)
        if flags & ~protocol.NOREPLACE:
            raise unknown(errno.EINVAL, path)
        node = self._tree.child(parent, name)
        if node is not None:
            self.send(node, request.patience)
        if flags & protocol.NOREPLACE and self._is_there(target, new, there, request.patience):
            raise unknown(errno.EEXIST, there)
        self._files.ask(path, request.patience, "rename", self._files.origin.at(there)[1])
        self._tree.moved(parent, name, target, new)
        if node is not None:
            node.known_at = 0.0
        return b""

    def _is_there(self, target: Node, new: bytes, path: str, patience: Patience) -> bool:
        node = self._tree.child(target, new)
        if node is not None and node.draft is not None:
            return True
        try:
            self._files.ask(path, patience, "stat")
        except FileNotFoundError:
            return False
        return True
