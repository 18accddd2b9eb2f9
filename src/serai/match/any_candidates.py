"""``any://user@host/path``: by which ways may these files be reached from here, and which comes first? Pure.

The nearest way comes first: the same machine, a file system that both have mounted, an appliance that serves the files
near by, and the host itself. Whether a way holds what it promises is found out where it is tried.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.describe.host import HostFacts, Mount
    from serai.session.url import Url

__all__ = ["Appliance", "Candidate", "Decision", "Proof", "candidates", "mount_of"]

LOOPBACK = frozenset({"", "localhost", "127.0.0.1", "::1"})
NFS = frozenset({"nfs", "nfs4"})
# File systems that several machines have mounted at once, and whether a file has the same inode number on each.
SHARED = {"nfs": True, "nfs4": True, "lustre": True, "gpfs": True, "beegfs": True, "ceph": True,
          "cifs": False, "9p": False, "virtiofs": False, "fuse.sshfs": False, "glusterfs": False,
          "fuse.glusterfs": False}  # fmt: skip


class Proof(Enum):
    """What must be looked at before a candidate is used.

    ANSWER: that it answers. SAME_FILE: that size and time of a file are the same there and here. SAME_INODE: its inode
    too. NAMED: as SAME_FILE; but when the host does not answer, that the file is here is enough, because the mount says
    itself that it is of that host.
    """

    ANSWER = "answer"
    SAME_FILE = "same file"
    SAME_INODE = "same inode"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to the files.

    Attributes:
        url: by it.
        reason: why it may be one.
        outcome: what came of it; empty while it was not tried.
        proof: what is looked at.
        there: this part of paths on the host …
        here: … is replaced by this one.
    """

    url: str
    reason: str
    outcome: str = ""
    proof: Proof = Proof.ANSWER
    there: str = ""
    here: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which way is taken, and what became of the others.

    Attributes:
        url: that was asked for.
        candidates: in their order.
        chosen: one of them; None when none can be used.
    """

    url: str
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None


@dataclass(frozen=True, slots=True)
class Appliance:
    """A storage server that a user has started, as the adverts tell of it.

    Attributes:
        host: whose files it serves.
        root: which of them: this directory and what is below.
        url: under which URL that directory is.
        name: its own, by which it may be asked for in place of a host.
    """

    host: str
    root: str
    url: str
    name: str = ""

    def is_meant(self, asked: Url) -> bool:
        """Whether a URL names it itself, and paths in it."""
        place = asked.host if asked.port is None else f"{asked.host}:{asked.port}"
        return bool(self.name) and place == self.name != self.host and asked.user is None


def candidates(
    asked: Url,
    here: HostFacts,
    there: HostFacts | None,
    appliances: Sequence[Appliance] = (),
    schemes: Sequence[str] = ("ssh",),
) -> tuple[Candidate, ...]:
    """The ways to a file, nearest first.

    Args:
        asked: whose and which, with an absolute path.
        here: what this side knows of itself.
        there: what the host says of itself; None when it was not asked, or does not answer.
        appliances: that are known.
        schemes: by which a host can be reached.
    """
    found: list[Candidate] = []
    host = asked.host or ""
    path = asked.path or "/"
    if _is_this_machine(asked, here):
        found.append(Candidate(f"local:{path}", "the URL names this machine"))
    elif there is not None and there.boot and (there.boot, there.host, there.uid) == (here.boot, here.host, here.uid):
        # Containers have the boot of their machine, so the file is looked at too.
        reason = f"it is this machine, as the same user: {there.host}, started as this one"
        found.append(Candidate(f"local:{path}", reason, proof=Proof.SAME_INODE))
    found += _shared(path, here, there)
    found += _named(host, path, here, there)
    found += _served(asked, there, appliances)
    if any(one.is_meant(asked) for one in appliances):
        schemes = ()  # no host has that name
    if host:
        user = "" if asked.user is None else f"{asked.user}@"
        place = f"[{host}]" if ":" in host else host
        port = "" if asked.port is None else f":{asked.port}"
        found += [Candidate(f"{scheme}://{user}{place}{port}{path}", "the host itself") for scheme in schemes]
    once: dict[str, Candidate] = {}
    for one in found:
        once.setdefault(one.url, one)
    return tuple(once.values())


def _served(asked: Url, there: HostFacts | None, appliances: Sequence[Appliance]) -> list[Candidate]:
    """Appliances that serve the path, whether the URL names one of them or the host that they are on."""
    path = asked.path or "/"
    names = {(asked.host or "").lower(), "" if there is None else there.host.lower()} - {""}
    found = []
    for one in appliances:
        url = one.url.rstrip("/")
        if one.is_meant(asked):
            found.append(Candidate(url + path, f"it is the appliance of that name, on {one.host}"))
        elif one.host.lower() in names and _is_below(path, one.root):
            root = one.root.rstrip("/")
            name = f"the appliance {one.name}" if one.name else "an appliance near by"
            found.append(Candidate(url + path[len(root) :], f"{name} serves {one.root}", there=root))
    return found


def _is_this_machine(asked: Url, here: HostFacts) -> bool:
    """A port may be a tunnel's, and another user sees other files."""
    if asked.port is not None or asked.user not in {None, here.user}:
        return False
    host = asked.host or ""
    if host in LOOPBACK or host.lower() in {here.host.lower(), here.host.partition(".")[0].lower()}:
        return True
    return _address(host) is not None and _address(host) in {_address(one) for one in here.addresses}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _shared(path: str, here: HostFacts, there: HostFacts | None) -> list[Candidate]:
    """File systems that both sides have mounted from the same source."""
    theirs = None if there is None else mount_of(path, there.mounts)
    if theirs is None or theirs.kind not in SHARED:
        return []
    inside = _below(theirs.root, path[len(theirs.point.rstrip("/")) :])
    found = []
    for ours in here.mounts:
        same_kind = ours.kind == theirs.kind or {ours.kind, theirs.kind} <= NFS
        if same_kind and ours.source == theirs.source and _is_below(inside, ours.root):
            local = _below(ours.point, inside[len(ours.root.rstrip("/")) :])
            if mount_of(local, here.mounts) == ours:
                proof = Proof.SAME_INODE if SHARED[ours.kind] else Proof.SAME_FILE
                reason = f"both have {ours.source} ({ours.kind}) mounted: there on {theirs.point}, here on {ours.point}"
                found.append(_moved(path, local, theirs.point, reason, proof))
    return found


def _named(host: str, path: str, here: HostFacts, there: HostFacts | None) -> list[Candidate]:
    """Directories of the host itself that are mounted here: ``host:/export``."""
    names = {host, *(() if there is None else (there.host, *there.addresses))} - {""}
    found = []
    for ours in here.mounts:
        server, colon, directory = ours.source.rpartition(":")
        if not colon or ours.kind not in NFS | {"fuse.sshfs"} or not directory.startswith("/"):
            continue
        directory = _below(directory, ours.root)
        if server.rpartition("@")[2].strip("[]") in names and _is_below(path, directory):
            local = _below(ours.point, path[len(directory.rstrip("/")) :])
            if mount_of(local, here.mounts) == ours:
                reason = f"{ours.source} ({ours.kind}) is mounted here on {ours.point}"
                found.append(_moved(path, local, directory, reason, Proof.NAMED))
    return found


def _moved(path: str, local: str, there: str, reason: str, proof: Proof) -> Candidate:
    there = there.rstrip("/")
    here = local[: len(local) - len(path[len(there) :])]
    return Candidate(f"local:{local}", reason, proof=proof, there=there, here=here.rstrip("/"))


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that a path is in: the deepest, and of several over one point the last."""
    best: Mount | None = None
    for one in mounts:
        if _is_below(path, one.point) and (best is None or len(one.point) >= len(best.point)):
            best = one
    return best


def _is_below(path: str, directory: str) -> bool:
    return directory in {"/", path} or path.startswith(f"{directory.rstrip('/')}/")


def _below(directory: str, rest: str) -> str:
    return (directory.rstrip("/") + "/" + rest.strip("/")).rstrip("/") or "/"
