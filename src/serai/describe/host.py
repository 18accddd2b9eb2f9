"""What is known of a host: who it is, as whom one is there, and what is mounted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system, as the kernel says.

    Attributes:
        point: where.
        kind: its type: ``ext4``, ``nfs4``, ``fuse.sshfs`` …
        source: what is mounted: ``server:/export``, ``/dev/sda1`` …
        root: which directory of it.
    """

    point: str
    kind: str
    source: str
    root: str = "/"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Whose files these are.

    Attributes:
        host: the name that the host gives itself.
        boot: differs from machine to machine and from start to start; empty where the system does not say.
        user: the login's name.
        uid: its number.
        home: its home directory.
        mounts: what is mounted there; empty where the system does not say.
        addresses: the host's own, without loopback.
    """

    host: str
    boot: str
    user: str
    uid: int
    home: str
    mounts: tuple[Mount, ...] = ()
    addresses: tuple[str, ...] = ()
