"""What a copy does, decided before anything is done: the rules of ``cp``, pure.

The rules are those of GNU cp, compared with it in the tests: into a directory that exists, several sources need one,
``-T`` forbids it, a symbolic link is copied as a link within ``-r`` and followed otherwise, what was just made is not
overwritten by another source, a directory is not copied into itself. What `cp` would find out halfway is refused first.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from serai.describe.places import split_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CopyPlan", "Destination", "Fact", "Job", "Refusal", "Source", "Wishes", "plan_copies", "target_of_source"]

Kind = Literal["file", "directory", "link", "other"]

SMALL_BYTES = 1 << 20  # a longer file has a stream of its own, which can be resumed


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one path, itself and not what it leads to.

    Attributes:
        kind: of the path itself.
        size: in bytes; None where it is not known.
        mode: permissions, None where there are none.
        mtime_ns: of the last change, None where it is not known.
        link: where a symbolic link leads, as it is written.
        behind: the kind of what a link leads to, through all of them; None when it leads nowhere.
        identity: device and inode, where there are such.
    """

    kind: Kind
    size: int | None = 0
    mode: int | None = None
    mtime_ns: int | None = None
    link: str | None = None
    behind: Kind | None = None
    identity: tuple[int, int] | None = None

    @property
    def followed(self) -> Kind | None:
        """The kind of what is there when links are followed; None when a link leads nowhere."""
        return self.behind if self.kind == "link" else self.kind


@dataclass(frozen=True, slots=True)
class Source:
    """One source, and what was found there.

    Attributes:
        shown: as the user wrote it.
        path: in its file system.
        store: what its file system is called; two of the same name are one.
        tree: what was found, by name relative to the path; the path itself is ``""``. Parents come before what is in
            them. Of a directory that is not to be copied, itself alone. With links followed, no fact is a link.
        troubles: by such names, what could not be looked into, and why.
        follow: whether links were followed.
    """

    shown: str
    path: str
    store: str
    tree: Mapping[str, Fact]
    troubles: Mapping[str, str] = field(default_factory=dict)
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination, and what was found there.

    Attributes:
        shown: as the user wrote it.
        path: in its file system, without a slash at its end.
        store: see `Source`.
        known: facts by path; of every path that is not there, none. The destination itself, its parent, and what is in
            those directories that a source would be merged with.
        slash: whether it was written with a slash at its end.
        within: the identities, links followed, of the destination if it is a directory, and of the one it is in.
    """

    shown: str
    path: str
    store: str
    known: Mapping[str, Fact]
    slash: bool = False
    within: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say.

    Attributes:
        recursive: directories, too (``-r``).
        as_file: the destination is never a directory to copy into (``-T``).
        into: it is always one (``-t``).
        keep: what exists stays (``-n``).
        update: what is not older stays (``-u``).
        times: times of change and permissions are preserved (``-p``).
        force: what may not be written to is replaced (``-f``).
        verbose: every file that was copied is told (``-v``).
    """

    recursive: bool = False
    as_file: bool = False
    into: bool = False
    keep: bool = False
    update: bool = False
    times: bool = False
    force: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One path to be made.

    Attributes:
        source: the number of its source.
        origin: the path there.
        target: the path at the destination.
        fact: of the origin.
        over: whether something is at the target, that is replaced.
        follow: whether the origin may be a link, whose fact is that of what it leads to.
    """

    source: int
    origin: str
    target: str
    fact: Fact
    over: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is not copied, while the others are.

    Attributes:
        what: a sentence as cp would say it, naming the path.
    """

    what: str


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What is to be done.

    Attributes:
        directories: to be made, parents first; with ``over``, they exist.
        links: symbolic links to be made.
        small: files that travel bundled.
        large: files that travel alone.
        refusals: what is not copied and why.
        kept: files that stay as they are, because of ``-n`` or ``-u``.
    """

    directories: tuple[Job, ...] = ()
    links: tuple[Job, ...] = ()
    small: tuple[Job, ...] = ()
    large: tuple[Job, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    kept: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files, as far as known."""
        return sum(job.fact.size or 0 for jobs in (self.small, self.large) for job in jobs)

    @property
    def files(self) -> int:
        """How many files and links there are to be made."""
        return len(self.small) + len(self.large) + len(self.links)


def target_of_source(path: str, destination: str, *, inside: bool) -> str:
    """Where a source goes.

    Args:
        path: the source, as written.
        destination: without a slash at its end, unless it is the root.
        inside: whether the destination is a directory that the source goes into.
    """
    if not inside:
        return destination
    name = posixpath.basename(path.rstrip("/"))
    # As cp does: what . and .. hold goes into the destination itself, and / has no name at all.
    return destination if name in {"", ".", ".."} else posixpath.join(destination, name)


def shown_below(shown: str, name: str) -> str:
    """How a path below one that the user wrote is shown: what its file system is told stays at the end."""
    if not name:
        return shown
    head, options = split_options(shown)
    return f"{head.rstrip('/')}/{name}{options}"


def plan_copies(
    sources: Sequence[Source], destination: Destination, wishes: Wishes, *, several: bool | None = None
) -> CopyPlan:
    """Decide what is copied where, and what is not.

    Args:
        sources: at least one, in the order in which they were written.
        destination: where to.
        wishes: how.
        several: whether more than one was named, also when only one of them is there.
    """
    planner = _Planner(destination, wishes)
    found = destination.known.get(destination.path)
    if destination.slash and found is not None and found.followed != "directory":
        return CopyPlan(refusals=(Refusal(f"failed to access {quoted(destination.shown)}: Not a directory"),))
    inside = found is not None and found.followed == "directory" and not wishes.as_file
    if not inside and ((len(sources) > 1 if several is None else several) or wishes.into):
        if wishes.as_file:
            return CopyPlan(refusals=(Refusal(f"extra operand {quoted(sources[-1].shown)}"),))
        why = "No such file or directory" if found is None else "Not a directory"
        return CopyPlan(refusals=(Refusal(f"target {quoted(destination.shown)}: {why}"),))
    for number, source in enumerate(sources):
        planner.add(number, source, inside)
    return planner.plan()


class _Planner:
    """Takes sources one after another."""

    def __init__(self, destination: Destination, wishes: Wishes) -> None:
        self._destination = destination
        self._wishes = wishes
        self._made: dict[str, Job] = {}  # by target
        self._named: dict[str, tuple[str, str]] = {}  # store and path of sources, by the target of each
        self._refusals: list[Refusal] = []
        self._kept = 0
        self._same_store = False  # whether the present source lies where the destination does

    def plan(self) -> CopyPlan:
        def of(kind: Kind, *, small: bool | None = None) -> tuple[Job, ...]:
            jobs = (job for job in self._made.values() if job.fact.kind == kind)
            return tuple(job for job in jobs if small is None or is_small(job.fact) == small)

        files = of("file", small=True), of("file", small=False)
        return CopyPlan(of("directory"), of("link"), *files, tuple(self._refusals), self._kept)

    def _refuse(self, what: str) -> None:
        self._refusals.append(Refusal(what))

    def add(self, number: int, source: Source, inside: bool) -> None:
        """Take one source."""
        self._same_store = source.store == self._destination.store
        for name, why in source.troubles.items():
            self._refuse(f"{quoted(shown_below(source.shown, name))}: {why}")
        top = source.tree.get("")
        if top is None:
            return
        if top.kind == "directory" and not self._wishes.recursive:
            self._refuse(f"-r not specified; omitting directory {quoted(source.shown)}")
            return
        target = target_of_source(source.path, self._destination.path, inside=inside)
        if self._named.get(target) == (source.store, source.path) or self._is_wrong(source, top, target):
            return  # named twice: copied once
        self._named.setdefault(target, (source.store, source.path))
        lost: list[str] = []  # directories that are not made, with a slash
        for name, fact in source.tree.items():
            if lost and name.startswith(tuple(lost)):
                continue
            origin = posixpath.join(source.path, name) if name else source.path
            to = posixpath.join(target, name) if name else target
            if not self._take(Job(number, origin, to, fact, follow=source.follow), shown_below(source.shown, name)):
                lost.append(f"{name}/" if name else "")

    def _is_wrong(self, source: Source, top: Fact, target: str) -> bool:
        """Whether the source as a whole cannot go there."""
        shown = self._shown(target)
        if top.kind == "directory":
            if self._same_store and (_is_below(target, source.path) or self._is_inside(source)):
                self._refuse(f"cannot copy a directory, {quoted(source.shown)}, into itself, {quoted(shown)}")
                return True
        elif self._destination.slash and self._destination.path not in self._destination.known:
            self._refuse(f"cannot create regular file {quoted(self._destination.shown)}: Not a directory")
            return True
        parent = posixpath.dirname(target)
        known = self._destination.known.get(parent)
        if parent and target not in self._destination.known and (known is None or known.followed != "directory"):
            what = "directory" if top.kind == "directory" else "regular file"
            why = "No such file or directory" if known is None or known.followed is None else "Not a directory"
            self._refuse(f"cannot create {what} {quoted(shown)}: {why}")
            return True
        return False

    def _take(self, job: Job, shown: str) -> bool:
        """Take one path; False when it is a directory that cannot be made."""
        kind = job.fact.kind
        before = self._made.get(job.target)
        there = self._destination.known.get(job.target)
        if before is not None:
            return self._take_again(job, before, shown)
        if kind == "other":
            self._refuse(f"{quoted(shown)} is neither a file nor a directory nor a link: not copied")
            return True
        if kind == "directory":
            return self._take_directory(job, there, shown)
        if there is None:
            self._put(job)
        else:
            self._take_over(job, there, shown)
        return True

    def _take_over(self, job: Job, there: Fact, shown: str) -> None:
        """Take what would replace something."""
        kind = job.fact.kind
        if kind == "file" and there.kind == "link" and there.behind is None:
            self._refuse(f"not writing through dangling symlink {quoted(self._shown(job.target))}")
        elif self._wishes.keep:
            self._kept += 1
        elif self._is_same(job, there):
            self._refuse(f"{quoted(shown)} and {quoted(self._shown(job.target))} are the same file")
        elif self._wishes.update and _is_not_older(there, job.fact):
            self._kept += 1
        elif there.kind == "directory" or (kind == "file" and there.followed == "directory"):
            self._refuse(f"cannot overwrite directory {quoted(self._shown(job.target))} with non-directory")
        else:
            self._put(replace(job, over=True))

    def _take_directory(self, job: Job, there: Fact | None, shown: str) -> bool:
        # A link to a directory counts as one only where the user named it as the destination.
        named = job.target == self._destination.path and (self._destination.slash or not self._wishes.as_file)
        if there is not None and (there.followed if named else there.kind) != "directory":
            self._refuse(
                f"cannot overwrite non-directory {quoted(self._shown(job.target))} with directory {quoted(shown)}"
            )
            return False
        self._made[job.target] = replace(job, over=there is not None)
        return True

    def _take_again(self, job: Job, before: Job, shown: str) -> bool:
        """Take a path whose target another source makes, too."""
        target = quoted(self._shown(job.target))
        if job.fact.kind == "directory":
            if before.fact.kind == "directory":
                return True  # they are merged
            self._refuse(f"cannot overwrite non-directory {target} with directory {quoted(shown)}")
            return False
        if self._wishes.keep or (
            self._wishes.update and (not self._wishes.times or _is_not_older(before.fact, job.fact))
        ):
            self._kept += 1
        elif before.fact.kind == "directory":
            self._refuse(f"cannot overwrite directory {target} with non-directory")
        elif job.target in self._named and "/./" not in shown:  # cp compares names, and those with a dot are others
            self._refuse(f"will not overwrite just-created {target} with {quoted(shown)}")
        else:
            self._put(replace(job, over=before.over))  # of directories that are merged, the last one's file is there
        return True

    def _put(self, job: Job) -> None:
        self._made[job.target] = job

    def _is_inside(self, source: Source) -> bool:
        """Whether the destination is in the source, by whatever links."""
        within = self._destination.within
        return any(fact.identity in within for fact in source.tree.values() if fact.kind == "directory")

    def _is_same(self, job: Job, there: Fact) -> bool:
        if not self._same_store:
            return False
        if job.fact.identity is not None and there.identity is not None:
            return job.fact.identity == there.identity
        return posixpath.normpath(job.origin) == posixpath.normpath(job.target)

    def _shown(self, target: str) -> str:
        base = self._destination.path
        below = posixpath.relpath(target, base) if target != base else ""
        return shown_below(self._destination.shown, below)


def is_small(fact: Fact) -> bool:
    """Whether a file travels bundled with others."""
    return fact.size is not None and fact.size <= SMALL_BYTES


def _is_below(path: str, directory: str) -> bool:
    path, directory = posixpath.normpath(path), posixpath.normpath(directory)
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _is_not_older(there: Fact, here: Fact) -> bool:
    return there.mtime_ns is not None and here.mtime_ns is not None and there.mtime_ns >= here.mtime_ns


def quoted(name: str) -> str:
    """A name in a message: between quotes, what cannot be printed as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
    return f"'{shown}'"
