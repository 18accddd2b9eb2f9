"""Which nodes have which files: an index by digest, by host and by node, so that no event of a node costs by all files.

A file's digest is **known** when the front end read the file, or when nodes of two machines said the same of it that
came by it without each other. Until then, what a node says that it read is its own affair: it has that file, and gives
it to no other. What a node found in its cache counts for no second word: executors that share one find what another
read.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serai.dispatch.files.origins import File, Host

AGREE = 2  # machines whose nodes say the same of a file which nobody here has read
MOST_DIGESTS = 200_000  # of one node's cache that are remembered
_DIGEST = re.compile("[0-9a-f]{64}", re.ASCII)


def is_digest(text: str) -> bool:
    """Whether this is a digest in hex."""
    return _DIGEST.fullmatch(text) is not None


def raw(digest: str) -> bytes:
    """A digest as it is kept.

    Raises:
        ValueError: it is none.
    """
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is no digest in hex")
    return bytes.fromhex(digest)


@dataclass(slots=True)
class Peer:
    """A node as others find it.

    Attributes:
        ad: what it said when it checked in.
        digests: what its cache has.
        held: the files among these, by number.
        said: digests that it alone says files have.
        addresses, port: of its server; no port while it has none.
    """

    ad: Mapping[str, Any]
    digests: set[bytes] = field(default_factory=set)
    held: dict[int, File] = field(default_factory=dict)
    said: dict[bytes, dict[int, File]] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    port: int = 0


class Holders:
    """Nodes, and what they have. One thread at a time calls it.

    Args:
        on_replica: is told (digest, node, size in bytes) of what caches have of files whose digest is known, and None
            in place of the size when they have it no longer.
    """

    def __init__(self, on_replica: Callable[[str, str, int | None], object]) -> None:
        self._on_replica = on_replica
        self.peers: dict[str, Peer] = {}
        self.here: set[str] = set()  # nodes that are this machine
        self._local: dict[int, File] = {}  # that lie on this machine
        self._files: dict[bytes, dict[int, File]] = {}  # by their known digests
        self._caches: dict[bytes, set[str]] = {}  # nodes, by what their caches have
        self._on_host: dict[Host, dict[int, File]] = {}
        self._hosts: dict[Host, set[str]] = {}  # nodes that are one
        self._lying: dict[str, dict[int, File]] = {}  # files of its host, by node

    def peer(self, node: str) -> Peer:
        """A node; it is nobody in particular if it has not checked in."""
        return self.peers.setdefault(node, Peer({}))

    # ---- files

    def add(self, file: File) -> list[str]:
        """A file is new; returns the nodes that have it."""
        if os.path.isabs(file.origin):
            self._local[file.number] = file
            file.lies.update(dict.fromkeys(self.here, file.origin))
        if file.host is not None:
            for node in self._nodes_of(file.host):
                file.lies[node] = file.path
                self._lying.setdefault(node, {})[file.number] = file
            self._on_host[file.host][file.number] = file
        nodes = list(file.lies)
        if file.digest:
            key = raw(file.digest)
            self._files.setdefault(key, {})[file.number] = file
            for node in self._caches.get(key, ()):
                self._hold(node, file)
                nodes.append(node)
        return list(dict.fromkeys(nodes))

    def _nodes_of(self, host: Host) -> set[str]:
        if host not in self._hosts:
            self._hosts[host] = {node for node, peer in self.peers.items() if host.is_of(peer.ad)}
            self._on_host[host] = {}
        return self._hosts[host]

    def know(self, file: File, digest: str) -> tuple[list[str], list[str]]:
        """The digest of a file is known, for the first time or as another; returns the nodes that it came to and left.

        Raises:
            ValueError: it is none.
        """
        key, before = raw(digest), set(file.holders)
        if file.digest:
            del self._files[raw(file.digest)][file.number]
        for node, said in file.said.items():
            self.peers[node].said[raw(said)].pop(file.number, None)
        file.said.clear()
        file.read_by.clear()
        file.digest = digest
        self._files.setdefault(key, {})[file.number] = file
        now = self._caches.get(key, set())
        for node in before - now:
            self._let_go(node, file)
        for node in now:
            self._hold(node, file)
        return sorted(now - before), sorted(node for node in before - now if node not in file.lies)

    def say(self, node: str, file: File, digest: str, *, read: bool) -> bool:
        """A node says that this is the digest of a file; returns whether enough machines do, and it is not known yet.

        Args:
            node: which.
            file: which.
            digest: in hex.
            read: it has read the file now; else this is what its cache has it for, whoever read that.

        Raises:
            ValueError: it is none.
        """
        key = raw(digest)
        if file.digest:
            return False
        before = file.said.get(node, digest)
        if before != digest:
            self.peers[node].said[raw(before)].pop(file.number, None)
            self._let_go(node, file)
            file.read_by.discard(node)
        file.said[node] = digest
        self.peer(node).said.setdefault(key, {})[file.number] = file
        if read:
            file.read_by.add(node)
        return len({self._machine(one) for one in file.read_by if file.said[one] == digest}) >= AGREE

    def _machine(self, node: str) -> tuple[str, str]:
        """What a node runs on: two executors there, whose memory or network is at fault, say the same wrong thing."""
        ad = self.peers[node].ad
        return str(ad.get("boot") or ""), str(ad.get("host") or f"node {node}")

    # ---- nodes

    def is_here(self, node: str) -> list[int]:
        """A node is this machine; returns the files that lie there."""
        self.here.add(node)
        for file in self._local.values():
            file.lies[node] = file.origin
        return list(self._local)

    def came(self, node: str, ad: Mapping[str, Any], has: Iterable[str]) -> list[int]:
        """A node has checked in; returns the files that are there.

        Raises:
            ValueError: one of these is no digest.
        """
        self.lost(node)
        peer = self.peers[node] = Peer(ad)
        for digest in itertools.islice(has, MOST_DIGESTS):
            key = raw(digest)
            peer.digests.add(key)
            self._caches.setdefault(key, set()).add(node)
            for file in self._files.get(key, {}).values():
                self._hold(node, file)
        lying: dict[int, File] = {}
        for host, nodes in self._hosts.items():
            if host.is_of(ad):
                nodes.add(node)
                lying |= self._on_host[host]
        for file in lying.values():
            file.lies[node] = file.path
        if lying:
            self._lying[node] = lying
        return sorted({*peer.held, *lying, *(self._local if node in self.here else ())})

    def lost(self, node: str) -> None:
        """A node is gone, if it was there."""
        peer = self.peers.pop(node, None)
        for nodes in self._hosts.values():
            nodes.discard(node)
        for file in self._lying.pop(node, {}).values():
            file.lies.pop(node, None)  # it may come back as another host, or never
        if peer is None:
            return
        for key in peer.digests:
            self._drop(node, key)
        for file in peer.held.values():
            file.holders.discard(node)
        for files in peer.said.values():
            for file in files.values():
                file.said.pop(node, None)
                file.read_by.discard(node)

    def _drop(self, node: str, key: bytes) -> None:
        nodes = self._caches.get(key, set())
        nodes.discard(node)
        if not nodes:
            self._caches.pop(key, None)

    # ---- their caches

    def has(self, node: str, digest: str) -> list[int]:
        """A node's cache has an object; returns the files that it did not have before.

        Raises:
            ValueError: it is no digest.
        """
        key, peer = raw(digest), self.peer(node)
        if len(peer.digests) < MOST_DIGESTS:
            peer.digests.add(key)
            self._caches.setdefault(key, set()).add(node)
        fresh = [file for file in self._files.get(key, {}).values() if node not in file.holders]
        for file in fresh:
            self._hold(node, file)
        return [file.number for file in fresh]

    def keeps(self, node: str, file: File, digest: str) -> list[int]:
        """A node's cache has a file, whose digest is this as far as that node is concerned; returns what else it is.

        Raises:
            ValueError: it is no digest.
        """
        fresh = self.has(node, digest)
        self._hold(node, file)
        return [number for number in fresh if number != file.number]

    def gone(self, node: str, digest: str) -> list[int]:
        """A node's cache has an object no longer; returns the files that it has not any more.

        Raises:
            ValueError: it is no digest.
        """
        key, peer = raw(digest), self.peer(node)
        peer.digests.discard(key)
        self._drop(node, key)
        said = peer.said.pop(key, {}).values()
        for file in said:
            del file.said[node]
            file.read_by.discard(node)
        files = [file for file in (*self._files.get(key, {}).values(), *said) if node in file.holders]
        for file in files:
            self._let_go(node, file)
            if file.digest:
                self._on_replica(digest, node, None)
        return [file.number for file in files if node not in file.lies]

    def _hold(self, node: str, file: File) -> None:
        file.holders.add(node)
        self.peer(node).held[file.number] = file
        if file.digest:
            self._on_replica(file.digest, node, file.size)

    def _let_go(self, node: str, file: File) -> None:
        file.holders.discard(node)
        self.peers[node].held.pop(file.number, None)


__all__ = ["AGREE", "MOST_DIGESTS", "Holders", "Peer", "is_digest", "raw"]
