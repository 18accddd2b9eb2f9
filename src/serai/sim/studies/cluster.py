"""The cluster of the data diffusion study: nodes with caches, a shared file system, and how long a read takes.

Each resource serves one transfer after the other (a link, a disk, the shared file system as a whole), so that a busy
one makes others wait. What a node has read lately is still in its memory, and comes from there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Self

__all__ = ["MODERN", "Cluster", "Node", "SharedFiles"]

GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the nodes and their surroundings are like.

    The first block is as published; the second, and the window, are fitted: see docs/studies.md.

    Attributes:
        nodes: at most; they are asked for as tasks queue up.
        slots: tasks that a node runs at a time.
        cache_bytes: of each node.
        shared_bytes_s: what the shared file system gives to all nodes together.
        link_bytes_s: of each node, each way.
        window: waiting tasks that the scheduler looks at; those beyond wait outside.
        disk_bytes_s: of a node's disk.
        memory_bytes_s: of a file that was read lately.
        memory_bytes: of such files on a node.
        peer_s: to set up a transfer between two nodes.
        dispatch_s: from the scheduler to the node and back.
        boot_s: from asking for a node until it is there.
        ask_every_s: how long the provisioner waits before it asks for another.
    """

    nodes: int = 64
    slots: int = 2
    cache_bytes: int = 4 * GB
    link_bytes_s: float = 1e9 / 8
    window: int = 3200

    shared_bytes_s: float = 4.45e9 / 8
    disk_bytes_s: float = 44e6
    memory_bytes_s: float = 400e6
    memory_bytes: int = 1_600_000_000
    peer_s: float = 0.58
    dispatch_s: float = 0.005
    boot_s: float = 45.0
    ask_every_s: float = 4.0

    def scaled(self, scale: float) -> Self:
        """A smaller cluster for an equally smaller load."""
        return replace(
            self,
            nodes=max(1, round(self.nodes * scale)),
            shared_bytes_s=self.shared_bytes_s * scale,
            window=max(1, round(self.window * scale)),
            ask_every_s=self.ask_every_s / scale,
        )


MODERN = Cluster(
    shared_bytes_s=10e9 / 8, disk_bytes_s=1e9, memory_bytes_s=4e9, memory_bytes=8 * GB, peer_s=0.02, dispatch_s=0.002
)  # nodes of today, whose disks are faster than their links


class SharedFiles:
    """The shared file system, which all nodes read from."""

    def __init__(self, cluster: Cluster) -> None:
        self._bytes_s = cluster.shared_bytes_s
        self._link_bytes_s = cluster.link_bytes_s
        self._free_s = 0.0

    def would_take_s(self, node: Node, size: int, now: float) -> float:
        """When a read that begins now would be over."""
        begin = max(now, self._free_s)
        return max(begin + size / self._bytes_s, max(now, node.in_free_s) + size / self._link_bytes_s)

    def read(self, node: Node, size: int, now: float) -> float:
        """Read a file onto a node; returns when it is there."""
        end = self.would_take_s(node, size, now)
        self._free_s = max(now, self._free_s) + size / self._bytes_s
        node.in_free_s = max(now, node.in_free_s) + size / self._link_bytes_s
        return end


class Node:
    """One node: its cache, what of it is in memory, its link and its disk.

    Attributes:
        cache: files and when each is there in full; the one that was used longest ago first (LRU).
        in_free_s: when its link is free for what comes.
        out_free_s: when its link is free for what goes.
        free: slots.
    """

    __slots__ = ("_disk_free_s", "_memory", "_memory_used", "_of", "cache", "free", "in_free_s", "name", "out_free_s",
                 "used")  # fmt: skip

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name = name
        self.free = cluster.slots
        self.cache: OrderedDict[int, float] = OrderedDict()
        self.used = 0
        self.in_free_s = 0.0
        self.out_free_s = 0.0
        self._disk_free_s = 0.0
        self._memory: OrderedDict[int, int] = OrderedDict()
        self._memory_used = 0
        self._of = cluster

    def read(self, file: int, size: int, now: float) -> float:
        """Read what the cache has; returns when it is read."""
        self.cache.move_to_end(file)
        begin = max(now, self.cache[file])
        if self._in_memory(file, size):
            return begin + size / self._of.memory_bytes_s
        self._disk_free_s = max(begin, self._disk_free_s) + size / self._of.disk_bytes_s
        return self._disk_free_s

    def peer_would_take_s(self, holder: Node, size: int, now: float) -> float:
        """When a file that comes from another node would be there."""
        return max(now, holder.out_free_s, self.in_free_s) + size / self._of.link_bytes_s + self._of.peer_s

    def fetch(self, holder: Node, size: int, now: float) -> float:
        """Fetch a file from another node; returns when it is there."""
        sent = max(now, holder.out_free_s, self.in_free_s) + size / self._of.link_bytes_s
        holder.out_free_s = self.in_free_s = sent
        return sent + self._of.peer_s

    def keep(self, file: int, size: int, there_s: float, sizes: list[int]) -> list[int]:
        """Keep a file in the cache, which will be there at a time; returns what was given up for it."""
        gone = []
        while self.cache and self.used + size > self._of.cache_bytes:
            old, _ = self.cache.popitem(last=False)
            self.used -= sizes[old]
            gone.append(old)
            if old in self._memory:
                self._memory_used -= self._memory.pop(old)
        if self.used + size <= self._of.cache_bytes:
            self.cache[file] = there_s
            self.used += size
            self._in_memory(file, size)
        return gone

    def _in_memory(self, file: int, size: int) -> bool:
        memory = self._memory
        if file in memory:
            memory.move_to_end(file)
            return True
        memory[file] = size
        self._memory_used += size
        while self._memory_used > self._of.memory_bytes:
            self._memory_used -= memory.popitem(last=False)[1]
        return False
