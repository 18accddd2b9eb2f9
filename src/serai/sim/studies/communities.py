"""The experiment of the communities: what is there, what is to be done, and the policies of the source.

Thain, Bent, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Gathering at the Well: Creating Communities for Grid I/O"
(2001): two communities, each around a store of its own; 300 jobs that each read 20 MB of a database of 300 MB, which
lies at the store in Bologna. A policy says by ClassAds where a job may run and where it would rather, and what is done
where its data is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serai.match.movement import Way

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUTO", "MIXED_RULES", "RULES", "UW", "Community", "Kind", "Rule", "Scene", "mixed", "published"]

MB = 1_000_000
WAN_BYTES_S = 10e6 / 8  # not in the source; at this rate the stage of the database takes four minutes
LAN_BYTES_S = 100e6 / 8
AT_INFN = 'TARGET.NearestStorage.Name == "nestore.bologna"'
AT_UW = 'TARGET.NearestStorage.Name == "nestore.madison"'
PREFER_LOCAL = "TARGET.NearestStorage.HasCMSData ? 10 : 0"


@dataclass(frozen=True, slots=True)
class Community:
    """Machines around a store.

    Attributes:
        name: of the community.
        store: of its store.
        machines: that are free for us.
        mips: of each.
        store_bytes_s: what the store gives to all its machines together.
    """

    name: str
    store: str
    machines: int
    mips: int
    store_bytes_s: float = LAN_BYTES_S


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike.

    Attributes:
        dataset: what they read; a store that has it says ``Has<dataset>`` in its ad.
        jobs: how many.
        file_bytes: of the file that a job reads from.
        read_bytes: that it reads of it.
        write_bytes: that it writes.
        million_instructions: that it computes.
        own: whether each job has a file of its own; else all read from one.
        store: that has the dataset at first.
    """

    dataset: str
    jobs: int
    file_bytes: int
    read_bytes: int
    write_bytes: int
    million_instructions: float
    own: bool = False
    store: str = "nestore.bologna"


@dataclass(frozen=True, slots=True)
class Rule:
    """A named policy.

    Attributes:
        name: as in the source.
        requirements: where a job may run: a ClassAd expression; ``TARGET`` is the machine.
        rank: where it would rather: the highest number.
        way: what is done where the data is not in the machine's store: `Way.READ`, or `Way.STAGE`.
        before: stores that have all data before the first job.
    """

    name: str
    requirements: str = "true"
    rank: str = "0"
    way: Way = Way.READ
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What is there, and what is to be done.

    Attributes:
        communities: by the name of their store.
        kinds: of jobs; they are submitted together, in turn.
        wan_bytes_s: between the communities.
        wan_latency_s: of a request between them.
        chunks: of reading and computing, which take turns in each job.
    """

    communities: Mapping[str, Community]
    kinds: tuple[Kind, ...]
    wan_bytes_s: float = WAN_BYTES_S
    wan_latency_s: float = 0.1
    chunks: int = 20

    def scaled(self, scale: float) -> Scene:
        """A smaller scene of the same shape: fewer machines and jobs, and as much less of what they share."""
        communities = {
            name: replace(one, machines=max(1, round(one.machines * scale)), store_bytes_s=one.store_bytes_s * scale)
            for name, one in self.communities.items()
        }
        kinds = tuple(
            replace(
                kind,
                jobs=max(1, round(kind.jobs * scale)),
                file_bytes=kind.file_bytes if kind.own else round(kind.file_bytes * scale),
            )
            for kind in self.kinds
        )
        return replace(self, communities=communities, kinds=kinds, wan_bytes_s=self.wan_bytes_s * scale)


INFN = Community("INFN", "nestore.bologna", machines=30, mips=750)
UW = Community("UW", "nestore.madison", machines=100, mips=600)
HAS = "TARGET.NearestStorage.HasCMSData"

RULES = (
    Rule("INFN local", f"{AT_INFN} && {HAS}"),
    Rule("UW remote", AT_UW, way=Way.READ),
    Rule("UW stage first", f"{AT_UW} && {HAS}", way=Way.STAGE),
    Rule("UW local", f"{AT_UW} && {HAS}", before=(UW.store,)),
    Rule("INFN local, UW remote", rank=PREFER_LOCAL, way=Way.READ),
    Rule("INFN local, UW stage", HAS, way=Way.STAGE),
    Rule("INFN local, UW local", HAS, before=(UW.store,)),
)
AUTO = Rule("auto")

# Where several datasets lie at several stores, the same rules over the dataset of each job.
_HAS_ITS = "TARGET.NearestStorage.Has{dataset}"
MIXED_RULES = (
    Rule("only with locality", _HAS_ITS),
    Rule("INFN only, rest remote", AT_INFN, way=Way.READ),
    Rule("UW only, rest remote", AT_UW, way=Way.READ),
    Rule("UW only, rest staged", f"{AT_UW} && {_HAS_ITS}", way=Way.STAGE),
    Rule("both, prefer local, rest remote", rank=f"{_HAS_ITS} ? 10 : 0", way=Way.READ),
    Rule("both, rest staged", _HAS_ITS, way=Way.STAGE),
)


def published(scale: float = 1.0) -> Scene:
    """The experiment of the source: 300 jobs, 30 machines of INFN and 100 of UW."""
    cms = Kind("CMSData", 300, 300 * MB, 20 * MB, 1 * MB, 160.0 * UW.mips)
    return Scene({INFN.store: INFN, UW.store: UW}, (cms,)).scaled(scale)


def mixed(scale: float = 1.0) -> Scene:
    """Jobs of which each kind wants another rule.

    A database that many read (stage it), large files of which little is read (read from afar), whole files and little
    to compute (go there), and data that lies at the other store.
    """
    kinds = (
        Kind("CMSData", 200, 300 * MB, 20 * MB, 1 * MB, 160.0 * UW.mips),
        Kind("Sky", 60, 2000 * MB, 2 * MB, 1 * MB, 320.0 * UW.mips, own=True),
        Kind("Scans", 60, 100 * MB, 100 * MB, 1 * MB, 20.0 * UW.mips, own=True),
        Kind("Runs", 100, 1000 * MB, 50 * MB, 1 * MB, 160.0 * UW.mips, store=UW.store),
    )
    return Scene({INFN.store: INFN, UW.store: UW}, kinds).scaled(scale)
