"""What makes one directory like another, decided before anything is done; pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.data.copy_plan import SMALL_BYTES, CopyPlan, Fact, Job, Refusal, Source, quoted, shown_below

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SyncPlan", "differs", "in_doubt", "plan_sync"]


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What is to be done, in this order.

    Attributes:
        deletions: what goes, by name below the destination: directories after what is in them.
        copies: what is made or replaced.
        stamps: directories and files whose contents are right and whose permissions or times are not.
        same: how many files stay as they are.
    """

    deletions: tuple[str, ...] = ()
    copies: CopyPlan = field(default_factory=CopyPlan)
    stamps: tuple[Job, ...] = ()
    same: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        copies = self.copies
        return not (self.deletions or copies.directories or copies.files or self.stamps)


def differs(here: Fact, there: Fact) -> bool:
    """Whether a file has to be copied, by size and time of change.

    Where the destination cannot keep a time (stores of objects), a copy that is younger than its source is held to be
    one of it.
    """
    if here.size != there.size:
        return True
    if here.mtime_ns is None or there.mtime_ns is None:
        return False
    return there.mtime_ns < here.mtime_ns if there.mode is None else not _same_time(here.mtime_ns, there.mtime_ns)


def _same_time(one_ns: int, other_ns: int) -> bool:
    # Whoever cuts times does it to whole seconds, or to microseconds and less.
    if one_ns % 1_000_000_000 == 0 or other_ns % 1_000_000_000 == 0:
        return one_ns // 1_000_000_000 == other_ns // 1_000_000_000
    return abs(one_ns - other_ns) < 1_000_000  # the kernels of some file systems keep less than they are told


def in_doubt(here: Mapping[str, Fact], there: Mapping[str, Fact]) -> list[str]:
    """The names of files whose digests decide, where contents are compared: of one size on both sides."""
    return [
        name
        for name, fact in here.items()
        if fact.kind == "file" and (other := there.get(name)) and other.kind == "file" and other.size == fact.size
    ]


def plan_sync(
    source: Source,
    destination: str,
    there: Mapping[str, Fact],
    *,
    delete: bool = False,
    changed: Sequence[str] | None = None,
) -> SyncPlan:
    """Decide what makes the destination like the source.

    Args:
        source: a directory with all that is in it.
        destination: the path of the other directory, without a slash at its end.
        there: what is in it, by name relative to it, itself ``""``; empty when there is none.
        delete: whether what the source has not goes.
        changed: the names of those `in_doubt` whose contents differ; None when sizes and times decide.
    """
    different = None if changed is None else set(changed)
    directories, links, small, large, stamps = [], [], [], [], []
    refusals = [Refusal(f"{quoted(shown_below(source.shown, name))}: {why}") for name, why in source.troubles.items()]
    in_the_way: list[str] = []
    same = 0
    for name, fact in source.tree.items():
        other = there.get(name)
        path = posixpath.join(destination, name) if name else destination
        job = Job(0, posixpath.join(source.path, name) if name else source.path, path, fact, over=other is not None)
        if fact.kind == "other":
            refusals.append(Refusal(f"{quoted(shown_below(source.shown, name))}: not copied: no file"))
            continue
        if other is not None and (other.kind == "directory") != (fact.kind == "directory"):
            in_the_way.append(name)
            job = Job(0, job.origin, path, fact)
            other = None
        if fact.kind == "directory":
            if other is None:
                directories.append(job)
            elif _stamped_otherwise(fact, other, times=False):
                stamps.append(job)
        elif fact.kind == "link":
            if other is None or other.kind != "link" or other.link != fact.link:
                links.append(job)
            else:
                same += 1
        elif other is not None and other.kind == "file" and _is_same(name, fact, other, different):
            same += 1
            if _stamped_otherwise(fact, other, times=different is not None):
                stamps.append(job)
        else:
            (small if fact.size is not None and fact.size <= SMALL_BYTES else large).append(job)
    # Not what could not be looked into: what is missing there may be there.
    gone = _gone(source, there, in_the_way) if delete and not source.troubles else _ways_to_clear(there, in_the_way)
    copies = CopyPlan(tuple(directories), tuple(links), tuple(small), tuple(large), tuple(refusals))
    return SyncPlan(tuple(gone), copies, tuple(stamps), same)


def _is_same(name: str, here: Fact, there: Fact, different: set[str] | None) -> bool:
    if different is None:
        return not differs(here, there)
    return here.size == there.size and name not in different


def _stamped_otherwise(here: Fact, there: Fact, *, times: bool) -> bool:
    if here.mode is not None and there.mode is not None and here.mode & 0o777 != there.mode & 0o777:
        return True
    if not times or here.mtime_ns is None or there.mtime_ns is None or there.mode is None:
        return False
    return not _same_time(here.mtime_ns, there.mtime_ns)


def _ways_to_clear(there: Mapping[str, Fact], in_the_way: Sequence[str]) -> list[str]:
    """What is of another kind than its counterpart, and everything in it."""
    tops = set(in_the_way)
    below = tuple(f"{name}/" for name in in_the_way)
    found = [name for name in there if name in tops or (below and name.startswith(below))]
    return sorted(found, key=lambda name: (-name.count("/"), name))


def _gone(source: Source, there: Mapping[str, Fact], in_the_way: Sequence[str]) -> list[str]:
    found = {name for name in there if name and name not in source.tree}
    found.update(_ways_to_clear(there, in_the_way))
    return sorted(found, key=lambda name: (-name.count("/"), name))
