"""How bytes get from one end to another: through here, or from host to host.

Two hosts that reach each other are tried once per pair and process, with a deadline; what was found is remembered. The
bytes then go from the one to the other through the first one's own ssh, with what the user has set up there: its keys,
its ssh_config, its known hosts, its agent if the user's ssh_config forwards one. Nothing is sent along that would open
a door.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from serai.access.ssh_options import read_settings
from serai.data.copying.ends import PATIENCE_S, HostEnd
from serai.errors import SeraiError
from serai.travel.boot import PORTER, SHUTTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from serai.access.openssh import Target
    from serai.data.copying.ends import End
    from serai.data.copying.tally import Tally

__all__ = ["Direct", "SourceFailed", "Through", "Way", "way_between"]

Piece = TypeVar("Piece", bytes, bytes | memoryview)

DIRECT_FROM = 32 << 20  # bytes; for fewer, a login from host to host takes longer than it saves
DEADLINE_S = 8.0  # for one host to reach the other
# Nobody is there to be asked, and an unknown host is not trusted.
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=4",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    "LogLevel=ERROR",
)
_SSH = ("ssh", "-T", *(word for option in _OPTIONS for word in ("-o", option)))


class SourceFailed(Exception):
    """The source, not the destination, could not do its part.

    Args:
        error: what it said.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Way(Protocol):
    """Carries bytes. Methods may be called from several threads."""

    def lots(
        self, paths: Sequence[str], rows: Sequence[Any], *, follow: bool, wishes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Carry small files; see `lots.store`; "lost" are those that could not be read.

        Raises:
            SourceFailed, OSError, SeraiError: all of it failed.
        """
        ...

    def large(
        self, path: str, to: str, start: int, size: int | None, *, follow: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Carry a file of so many bytes, as far as known, from an offset on.

        Gives the digest and number of these bytes on either side.

        Raises:
            SourceFailed, OSError, SeraiError: it failed.
        """
        ...


def _watched(pieces: Iterable[Piece]) -> Iterator[Piece]:
    try:
        yield from pieces
    except OSError as error:
        if isinstance(error, SeraiError):
            raise
        raise SourceFailed(error) from error


@dataclass(frozen=True, slots=True)
class Through:
    """Through this process; nothing is stored on the way."""

    source: End
    target: End
    tally: Tally

    def lots(
        self, paths: Sequence[str], rows: Sequence[Any], *, follow: bool, wishes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `Way`."""
        lost: list[list[Any]] = []
        pieces = _watched(self.source.send(paths, follow=follow, troubles=lost))
        return {**self.target.take(self.tally.count(pieces), rows, wishes), "lost": lost}

    def large(
        self, path: str, to: str, start: int, size: int | None, *, follow: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Way`."""
        said: dict[str, Any] = {}
        pieces = _watched(self.source.read(path, start, follow=follow, said=said, size=size))
        landed = self.target.land(to, start, self.tally.count(pieces), size=size)
        return said, landed


@dataclass(frozen=True, slots=True)
class Direct:
    """From the source's host, to itself or to a peer that it has reached.

    Attributes:
        source: the host.
        peer: what it calls the other one; None for itself.
        tally: where bytes are counted.
    """

    source: HostEnd
    peer: str | None
    tally: Tally

    def lots(
        self, paths: Sequence[str], rows: Sequence[Any], *, follow: bool, wishes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `Way`."""
        head = {"peer": self.peer, "follow": follow, "wishes": dict(wishes)}
        body = json.dumps({"paths": list(paths), "rows": list(rows)}).encode("ascii")
        return self._told("peer.lots", head, body)

    def large(
        self, path: str, to: str, start: int, size: int | None, *, follow: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Way`."""
        head = {"peer": self.peer, "path": path, "start": start, "follow": follow, "to": to}
        done = self._told("peer.large", head, b"")
        return done["sent"], done["landed"]

    def _told(self, do: str, head: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        call = self.source.porter.submit(do, head, body)
        rest = b""
        try:
            for piece in call.pieces(PATIENCE_S):
                *lines, rest = (rest + piece).split(b"\n")
                self.tally.add(sum(map(int, lines)))
            done: dict[str, Any] = call.result(PATIENCE_S)[0]
        finally:
            call.cancel()
        if "failed" in done:
            side, code, what = done["failed"]
            error = OSError(code, what)
            raise SourceFailed(error) if side == "source" else error
        return done


@dataclass(slots=True)
class _Found:
    """What is known of a pair of hosts."""

    lock: threading.Lock
    tried: bool = False
    peer: str | None = None
    why: str = ""


_lock = threading.Lock()
_pairs: dict[tuple[str, str], _Found] = {}
os.register_at_fork(after_in_child=_pairs.clear)


def is_to_be_tried(source: End, target: End, size: int) -> bool:
    """Whether `way_between` would first try whether one host reaches the other, which takes a while."""
    if not (isinstance(source, HostEnd) and isinstance(target, HostEnd)) or source.store == target.store:
        return False
    with _lock:
        found = _pairs.get((source.store, target.store))
    return size >= DIRECT_FROM and (found is None or not found.tried)


def way_between(source: End, target: End, size: int, tally: Tally) -> Way:
    """Choose the way for so many bytes, and tell the tally why."""
    if not (isinstance(source, HostEnd) and isinstance(target, HostEnd)):
        return Through(source, target, tally)
    pair = f"{source.shown} to {target.shown}"
    if source.store == target.store:
        tally.note(f"{pair}: copied on the host itself")
        return Direct(source, None, tally)
    with _lock:
        found = _pairs.setdefault((source.store, target.store), _Found(threading.Lock()))
    if not found.tried and size < DIRECT_FROM:
        tally.note(f"{pair}: through here, because it is little")
        return Through(source, target, tally)
    with found.lock:
        if not found.tried:
            found.peer, found.why = _reach(source, target)
            found.tried = True
    if found.peer is None:
        tally.note(f"{pair}: through here, because {source.shown} does not reach {target.shown}: {found.why}")
        return Through(source, target, tally)
    tally.note(f"{pair}: directly, from host to host")
    return Direct(source, found.peer, tally)


def forget(source: End, target: End, why: str) -> None:
    """Remember that one host does not reach the other any more."""
    with _lock:
        found = _pairs.get((source.store, target.store))
    if found is not None:
        found.peer, found.why = None, why


def _reach(source: HostEnd, target: HostEnd) -> tuple[str | None, str]:
    name = hashlib.sha256(target.store.encode()).hexdigest()[:16]
    program = PORTER.packed()
    head = {"name": name, "ways": ways_to(target.target), "deadline_s": DEADLINE_S, "where": target.where}
    head |= {"shuttle": SHUTTLE.command("python3"), "size": len(program)}
    try:
        source.porter.call("peer.open", head, program + SHUTTLE.packed(), deadline_s=DEADLINE_S + 2.0)
    except (SeraiError, OSError) as error:
        return None, error.what if isinstance(error, SeraiError) else str(error)
    return name, ""


def ways_to(target: Target) -> list[list[str]]:
    """The ssh commands that may lead from another host to a target: by the name used here, then by its address."""
    command = PORTER.command("python3")
    words = (["-l", target.user] if target.user else []) + (["-p", str(target.port)] if target.port else [])
    ways = [[*_SSH, *words, target.host, command]]
    done = subprocess.run(
        ["ssh", *target.words(), "-G", target.host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    settings = read_settings(done.stdout.decode(errors="replace"))
    host, user, port = (settings.get(key) for key in ("hostname", "user", "port"))
    # Not through a jump host: this one's is not the other's.
    if host and user and port and settings.get("proxyjump", "none") == "none" and not host.startswith("-"):
        way = [*_SSH, "-l", user, "-p", port, host, command]
        if way not in ways:
            ways.append(way)
    return ways
