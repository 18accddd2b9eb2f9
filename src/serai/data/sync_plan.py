"""What makes one directory like another, decided before anything is done; pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from serai.data.copy_plan import CopyPlan, Fact, Job, Refusal, Source, is_small, quoted, shown_below

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
    planner = _Planner(source, there, None if changed is None else set(changed), delete=delete)
    for name, fact in source.tree.items():
        path = posixpath.join(destination, name) if name else destination
        origin = posixpath.join(source.path, name) if name else source.path
        planner.add(name, Job(0, origin, path, fact, over=name in there))
    return planner.plan()


class _Planner:
    """Takes one path of the source after another."""

    def __init__(self, source: Source, there: Mapping[str, Fact], different: set[str] | None, *, delete: bool) -> None:
        self._source = source
        self._there = there
        self._different = different
        self._delete = delete
        self._directories: list[Job] = []
        self._links: list[Job] = []
        self._files: list[Job] = []
        self._stamps: list[Job] = []
        self._in_the_way: list[str] = []
        self._same = 0
        self._refusals = [Refusal(f"{quoted(self._shown(name))}: {why}") for name, why in source.troubles.items()]

    def add(self, name: str, job: Job) -> None:
        """Take a path."""
        fact, other = job.fact, self._there.get(name)
        if fact.kind == "other":
            self._refusals.append(
                Refusal(f"{quoted(self._shown(name))} is neither a file nor a directory nor a link: not copied")
            )
            return
        if other is not None and (other.kind == "directory") != (fact.kind == "directory"):
            if other.kind == "directory" and not self._delete and self._holds_something(name):
                what = f"a directory that is not empty is in the place of {quoted(self._shown(name))}"
                self._refusals.append(Refusal(f"{what}: --delete removes it"))
                return
            self._in_the_way.append(name)
            job, other = replace(job, over=False), None
        if fact.kind == "directory":
            self._directory(job, other)
        elif fact.kind == "link":
            self._link(job, other)
        else:
            self._file(name, job, other)

    def _directory(self, job: Job, other: Fact | None) -> None:
        if other is None:
            self._directories.append(job)
        elif _stamped_otherwise(job.fact, other, times=False):
            self._stamps.append(job)

    def _link(self, job: Job, other: Fact | None) -> None:
        if other is None or other.kind != "link" or other.link != job.fact.link:
            self._links.append(job)
        else:
            self._same += 1

    def _file(self, name: str, job: Job, other: Fact | None) -> None:
        # What is no file is replaced, and not written through.
        if other is not None and other.kind != "file":
            self._in_the_way.append(name)
            self._files.append(replace(job, over=False))
        elif other is None or not _is_same(name, job.fact, other, self._different):
            self._files.append(job)
        else:
            self._same += 1
            if _stamped_otherwise(job.fact, other, times=self._different is not None):
                self._stamps.append(job)

    def plan(self) -> SyncPlan:
        """What came of it."""
        # Not when something could not be looked into: what is missing there may be there.
        all_gone = self._delete and not self._source.troubles
        gone = {name for name in self._there if name and name not in self._source.tree} if all_gone else set()
        gone.update(self._ways_to_clear())
        copies = CopyPlan(
            tuple(self._directories),
            tuple(self._links),
            tuple(job for job in self._files if is_small(job.fact)),
            tuple(job for job in self._files if not is_small(job.fact)),
            tuple(self._refusals),
        )
        deepest_first = sorted(gone, key=lambda name: (-name.count("/"), name))
        return SyncPlan(tuple(deepest_first), copies, tuple(self._stamps), self._same)

    def _ways_to_clear(self) -> list[str]:
        """What is of another kind than its counterpart, and everything in it."""
        tops = set(self._in_the_way)
        below = tuple(f"{name}/" for name in tops)
        return [name for name in self._there if name in tops or (below and name.startswith(below))]

    def _holds_something(self, name: str) -> bool:
        return any(one.startswith(f"{name}/") for one in self._there)

    def _shown(self, name: str) -> str:
        return shown_below(self._source.shown, name)


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
