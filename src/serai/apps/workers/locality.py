"""Which inputs a worker's host opens by a path of its own. Pure.

A host may go by several names, share a file system with the host of an input, or be the one that a storage appliance
runs on: `match.any_candidates` says which ways there may be, and the worker looks whether it is the same file before it
reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from serai.describe.host import HostFacts, Mount
from serai.match.any_candidates import Proof, candidates, mount_of
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.apps.mapreduce.plan import Input
    from serai.apps.workers.stewards import Place
    from serai.match.any_candidates import Appliance


@dataclass(frozen=True, slots=True)
class Local:
    """A path on a worker's host.

    Attributes:
        path: there.
        sure: it is the input's own host; otherwise it must be seen to be the same file.
        inode: its number must be the same too.
    """

    path: str
    sure: bool = True
    inode: bool = False


@dataclass(frozen=True, slots=True)
class _Way:
    """This part of paths on the input's host is replaced by that one."""

    there: str
    here: str
    inode: bool


def facts_of(said: Mapping[str, Any]) -> HostFacts | None:
    """What a steward says of its host; None where it says too little."""
    try:
        mounts = tuple(Mount(*(str(part) for part in one)) for one in said["mounts"])
        addresses = tuple(str(one) for one in said["addresses"])
        return HostFacts(
            str(said["host"]),
            str(said["boot"]),
            str(said["user"]),
            int(said["uid"]),
            str(said["home"]),
            mounts,
            addresses,
        )
    except (KeyError, TypeError, ValueError):
        return None


class Locality:
    """The ways from workers' hosts to inputs.

    Args:
        inputs: of the run.
        hosts: what the hosts of inputs say of themselves, by their keys; those that say nothing are left out.
    """

    def __init__(self, inputs: Sequence[Input], hosts: Mapping[str, HostFacts]) -> None:
        self._inputs = inputs
        self._hosts = hosts
        self._mounts = [self._mount(one) for one in inputs]
        self._ways: dict[tuple[Place, str, str], _Way | None] = {}

    def path(self, number: int, place: Place | None) -> Local | None:
        """Where a host has an input; None when it has to be sent there."""
        one = self._inputs[number]
        if place is None or one.host is None or one.path is None:
            return None
        if one.host == place.key:
            return Local(one.path)
        way = self._way(place, one.host, one.path, self._mounts[number])
        if way is None or not one.path.startswith(way.there):
            return None
        return Local(way.here + one.path[len(way.there) :], sure=False, inode=way.inode)

    def near(self, place: Place | None) -> frozenset[str]:
        """The hosts, as inputs name them, all of whose inputs a worker opens by paths of its own."""
        if place is None:
            return frozenset()
        far = {one.host for number, one in enumerate(self._inputs) if self.path(number, place) is None}
        return frozenset({place.key, *(one.host for one in self._inputs if one.host is not None)} - far)

    def _mount(self, one: Input) -> str:
        facts = None if one.host is None else self._hosts.get(one.host)
        mount = None if facts is None or one.path is None else mount_of(one.path, facts.mounts)
        return "" if mount is None else mount.point

    def _way(self, place: Place, key: str, path: str, mount: str) -> _Way | None:
        """How a mount of an input's host is opened on a worker's host."""
        asked = (place, key, mount)
        if asked not in self._ways:
            here, there = facts_of(place.who), self._hosts.get(key)
            self._ways[asked] = None if here is None or there is None else _nearest(path, here, there)
        return self._ways[asked]

    def forget(self, place: Place) -> None:
        """A host was reached anew, and may have other things mounted."""
        self._ways = {asked: way for asked, way in self._ways.items() if asked[0] is not place}


def _nearest(path: str, here: HostFacts, there: HostFacts) -> _Way | None:
    host = there.addresses[0] if there.addresses else there.host
    for one in candidates(Url("any", host=host, path=path), here, there):
        if one.url.startswith("local:"):  # that a name or an address is this machine's own is looked at as well
            return _Way(one.there, one.here, inode=one.proof is Proof.SAME_INODE)
    return None


def served(inputs: Sequence[Input], appliances: Sequence[Appliance]) -> tuple[list[Input], dict[str, HostFacts]]:
    """Inputs of storage appliances, which others on the appliance's host may open themselves.

    Returns:
        The inputs, these with a host and a path; and what is known of such hosts: their names.
    """
    found, hosts = [], {}
    for one in inputs:
        server = next((each for each in appliances if one.url.startswith(each.url.rstrip("/") + "/")), None)
        if one.host is None and server is not None:
            key = f"store:{server.host}"
            hosts[key] = HostFacts(server.host, "", "", -1, "/")
            rest = one.url[len(server.url.rstrip("/")) :]
            found.append(replace(one, host=key, path=server.root.rstrip("/") + rest))
        else:
            found.append(one)
    return found, hosts
