"""Names and numbers: which file of the source each number of the kernel's stands for, and what is known of it."""

from __future__ import annotations

import errno
import os
import threading
import time

from ..reading.contents import Content, Use
from ..reading.sources import Stat, unknown
from .protocol import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .drafts import Draft

FRESH_S = 5.0  # how long what is known of a file is believed
ABSENT_S = 1.0  # and that there is none
MOST_ABSENT = 10_000


class Node:
    """A file or a directory that the kernel knows, or that is being written.

    Attributes:
        number: the kernel's, for as long as this node lives.
        parent: the directory; None for the top, and for what was removed.
        name: in it.
        lookups: how often the kernel was told of it, and has not forgotten.
        stat: what is known, since `known_at`.
        content: of the version that is read.
        draft: what was written and is not at the source yet.
        opened: how many handles there are.
    """

    __slots__ = (
        "children", "content", "draft", "handles", "known_at", "lock", "lookups", "name", "number", "parent", "removed",
        "sent", "shown", "stat", "use",
    )  # fmt: skip

    def __init__(self, number: int, parent: Node | None, name: bytes) -> None:
        self.number, self.parent, self.name = number, parent, name
        self.lookups = self.handles = 0
        self.stat: Stat | None = None
        self.known_at = 0.0
        self.shown = ""  # the version whose pages the kernel may have
        self.content: Content | None = None
        self.draft: Draft | None = None
        self.use = Use()
        self.children: dict[bytes, Node] = {}
        self.lock = threading.RLock()  # held while its draft is changed or sent
        self.removed = False
        self.sent = 0  # how often it was written to the source

    def learn(self, found: Stat) -> None:
        """Note what is known of it now."""
        self.stat, self.known_at = found, time.monotonic()

    def fresh(self, within_s: float = FRESH_S) -> bool:
        """Whether what is known may be believed."""
        return self.stat is not None and time.monotonic() - self.known_at < within_s


class Tree:
    """The nodes that the kernel knows."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.root = Node(ROOT, None, b"")
        self._nodes = {ROOT: self.root}
        self._last = ROOT
        self._absent: dict[tuple[int, bytes], float] = {}

    def node(self, number: int) -> Node:
        """The node of a number."""
        with self.lock:
            found = self._nodes.get(number)
        if found is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return found

    def path(self, node: Node, name: bytes = b"") -> str:
        """The path of a node at the source, or of a name in it."""
        parts = [name] if name else []
        with self.lock:
            if node.removed:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            while node.parent is not None:
                parts.append(node.name)
                node = node.parent
        return "/" + os.fsdecode(b"/".join(reversed(parts)))

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node of a name, if there is one."""
        with self.lock:
            return parent.children.get(name)

    def adopt(self, parent: Node, name: bytes, found: Stat | None, *, lookup: bool) -> Node:
        """The node of a name that is there; made if need be."""
        with self.lock:
            self._absent.pop((parent.number, name), None)
            node = parent.children.get(name)
            if node is not None and found is not None and node.stat is not None and node.stat.kind != found.kind:
                self._cut(node)  # a directory became a file
                node = None
            if node is None:
                self._last += 1
                node = self._nodes[self._last] = Node(self._last, parent, name)
                parent.children[name] = node
            if found is not None and node.draft is None:
                node.learn(found)
            if lookup:
                node.lookups += 1
            return node

    def forget(self, number: int, times: int) -> None:
        """The kernel forgets a node."""
        with self.lock:
            node = self._nodes.get(number)
            if node is not None and node is not self.root:
                node.lookups -= times
                self.tidy(node)

    def tidy(self, node: Node) -> None:
        """Let go of a node that nobody needs, and of those above."""
        with self.lock:
            while node is not self.root and node.lookups <= 0 and not (node.handles or node.children or node.draft):
                above = node.parent
                self._cut(node)
                self._nodes.pop(node.number, None)
                if above is None:
                    return
                node = above

    def _cut(self, node: Node) -> None:
        if node.parent is not None and node.parent.children.get(node.name) is node:
            del node.parent.children[node.name]

    def gone(self, parent: Node, name: bytes) -> Node | None:
        """A name is no more; its node lives as long as it is used."""
        with self.lock:
            self.absent(parent, name)
            node = parent.children.get(name)
            if node is not None:
                self._cut(node)
                node.removed = True
            return node

    def moved(self, parent: Node, name: bytes, target: Node, new: bytes) -> None:
        """A name has become another."""
        with self.lock:
            self._absent.pop((target.number, new), None)
            former = target.children.get(new)
            node = parent.children.get(name)
            if former is not None and former is not node:
                self._cut(former)
                former.removed = True
            if node is not None:
                self._cut(node)
                node.parent, node.name = target, new
                node.content = None
                target.children[new] = node
            self.absent(parent, name)

    def absent(self, parent: Node, name: bytes) -> None:
        """Note that there is no such name."""
        with self.lock:
            if len(self._absent) >= MOST_ABSENT:
                self._absent.clear()
            self._absent[parent.number, name] = time.monotonic()

    def is_absent(self, parent: Node, name: bytes) -> bool:
        """Whether it was found a moment ago that there is no such name."""
        with self.lock:
            since = self._absent.get((parent.number, name))
        return since is not None and time.monotonic() - since < ABSENT_S

    def known(self) -> list[Node]:
        """All nodes."""
        with self.lock:
            return list(self._nodes.values())

    def need(self, node: Node, kind: str) -> Stat:
        """What is known of a node of a kind."""
        found = node.stat
        if found is None:
            raise unknown(errno.ENOENT, os.fsdecode(node.name))
        if kind == "directory" and found.kind != "directory":
            raise unknown(errno.ENOTDIR, os.fsdecode(node.name))
        if kind == "file" and found.kind == "directory":
            raise unknown(errno.EISDIR, os.fsdecode(node.name))
        return found
