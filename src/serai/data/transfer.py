"""Copies between any two places: files and trees, verified, resumed where they were interrupted.

::

    copy(["ssh://lab1/data"], "ssh://lab2/data", Wishes(recursive=True))
    sync("results", "ssh://lab1/results", delete=True)

What `cp` does is decided by `copy_plan`, what makes two trees alike by `sync_plan`; both are done by `carrying`.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serai.data.copy_plan import Destination, Fact, Job, Source, Wishes, plan_copies, quoted
from serai.data.copying.carrying import Outcome, carry
from serai.data.copying.finding import find_destination, find_sources
from serai.data.copying.opening import Place, open_place, open_places
from serai.data.copying.tally import Tally
from serai.data.sync_plan import SyncPlan, in_doubt, plan_sync
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serai.data.copying.ends import End, Tree

__all__ = ["Outcome", "SyncOutcome", "Tally", "Wishes", "copy", "move", "store_stream", "sync"]

Links = Literal["keep", "follow"]
PIECE = 200  # files whose digests are asked for in one call


@dataclass(slots=True)
class SyncOutcome:
    """What a `sync` did, or would do.

    Attributes:
        plan: what.
        outcome: what became of it; empty when it was not to be done.
        deleted: how many paths were removed.
    """

    plan: SyncPlan
    outcome: Outcome = field(default_factory=Outcome)
    deleted: int = 0


def copy(
    sources: Sequence[str],
    destination: str,
    wishes: Wishes | None = None,
    *,
    links: Links | None = None,
    tally: Tally | None = None,
    ssh_config: str | None = None,
) -> Outcome:
    """Copy as ``cp`` does.

    Args:
        sources: paths, URLs, or patterns of a shell where nothing has their very name.
        destination: a path or URL.
        wishes: how; by default as ``cp`` without options.
        links: whether symbolic links are copied as links; by default they are when directories are copied.
        tally: counts, and can stop it.
        ssh_config: the file that ssh is given instead of the user's own.

    Returns:
        What was copied, and complaints about what was not: of missing sources, of hosts that cannot be reached.

    Raises:
        AccessError, UsageError: the destination cannot be had.
    """
    wishes, tally = wishes or Wishes(), tally or Tally()
    outcome, found, target = _planned(sources, destination, wishes, links, ssh_config)
    if target is None:
        return outcome
    place, known = target
    several = len(sources) > 1 or len(found) > 1
    plan = plan_copies([source for _, source in found], known, wishes, several=several)
    done = carry(plan, [(one.end, source) for one, source in found], (place.end, known), wishes, tally)
    done.complaints[:0] = outcome.complaints
    return done


def _planned(
    sources: Sequence[str], destination: str, wishes: Wishes, links: Links | None, ssh_config: str | None
) -> tuple[Outcome, list[tuple[Place, Source]], tuple[Place, Destination] | None]:
    """What is there, on both sides."""
    outcome = Outcome()
    *opened, target = open_places([*sources, destination], ssh_config)
    if isinstance(target, Exception):
        raise target
    places: list[Place] = []
    for one in opened:
        if isinstance(one, UsageError):
            raise one
        if isinstance(one, Exception):
            outcome.complaints.append(str(one))
            continue
        try:
            places += one.expanded()
        except OSError as error:  # the directory of a pattern cannot be read
            outcome.complaints.append(f"cannot stat {quoted(one.shown)}: {error.strerror or error}")
    follow = links == "follow" or (links is None and not wishes.recursive)
    found, complaints = find_sources(places, recursive=wishes.recursive, follow=follow)
    outcome.complaints += complaints
    if not found:
        return outcome, [], None
    try:
        known = find_destination(target, [source for _, source in found], wishes)
    except OSError as error:
        outcome.complaints.append(f"failed to access {quoted(destination)}: {error.strerror or error}")
        return outcome, [], None
    return outcome, found, (target, known)


def move(
    sources: Sequence[str],
    destination: str,
    wishes: Wishes | None = None,
    *,
    tally: Tally | None = None,
    ssh_config: str | None = None,
) -> Outcome:
    """Move as ``mv`` does: renamed where source and destination are of one host, else copied and then removed.

    See `copy` for the arguments; directories are moved whole, permissions and times with them. A source of which
    anything could not be copied stays.
    """
    from serai.data.copying.moving import move_found  # noqa: PLC0415 - a copy does without

    given, tally = wishes or Wishes(), tally or Tally()
    whole = Wishes(
        recursive=True,
        as_file=given.as_file,
        into=given.into,
        keep=given.keep,
        update=given.update,
        times=True,
        force=given.force,
        verbose=given.verbose,
    )
    outcome, found, target = _planned(sources, destination, whole, "keep", ssh_config)
    if target is None:
        return outcome
    done = move_found(found, target, whole, tally)
    done.complaints[:0] = outcome.complaints
    return done


def sync(
    source: str,
    destination: str,
    *,
    delete: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    tally: Tally | None = None,
    ssh_config: str | None = None,
) -> SyncOutcome:
    """Make a directory hold what another one holds; only what differs moves.

    Args:
        source: a directory.
        destination: another; made if there is none.
        delete: remove what the source has not.
        checksum: compare contents and not times.
        dry_run: only plan.
        tally: counts, and can stop it.
        ssh_config: the file that ssh is given instead of the user's own.

    Raises:
        OSError: the source cannot be read, or the destination is no directory.
        AccessError, UsageError: one of them cannot be had.
    """
    tally = tally or Tally()
    opened = open_places([source, destination], ssh_config)
    for one in opened:
        if isinstance(one, Exception):
            raise one
    here, there = (one for one in opened if isinstance(one, Place))
    tree, troubles = _walked(here)
    if not tree:
        raise FileNotFoundError(2, "No such file or directory", source)
    known, _ = _walked(there)
    found = Source(source, here.path, here.end.store, tree, troubles)
    changed = None
    if checksum:
        doubtful = in_doubt(tree, known)
        changed = _different(here, there, doubtful, tree)
    plan = plan_sync(found, there.path, known, delete=delete, changed=changed)
    result = SyncOutcome(plan)
    if dry_run:
        result.outcome.complaints += [refusal.what for refusal in plan.copies.refusals]
        return result
    wishes = Wishes(recursive=True, times=True, force=True, verbose=True)
    destined = Destination(destination, there.path, there.end.store, {})
    rows = [f"{there.path.rstrip('/')}/{name}" for name in plan.deletions]
    failed = there.end.each("remove", rows) if rows else []
    result.deleted = len(rows) - len(failed)
    result.outcome = carry(plan.copies, [(here.end, found)], (there.end, destined), wishes, tally)
    result.outcome.complaints += [f"cannot remove {quoted(rows[n])}: {error.strerror}" for n, error in failed]
    _stamp(there.end, plan.stamps, result.outcome)
    return result


def store_stream(pieces: Iterable[bytes], url: str, *, ssh_config: str | None = None) -> int:
    """Write bytes into a file that gets its name when it is whole; returns how many.

    Args:
        pieces: the bytes.
        url: the file.
        ssh_config: the file that ssh is given instead of the user's own.

    Raises:
        OSError: it cannot be written, or is a directory.
        AccessError: the host cannot be reached.
    """
    place = open_place(url, ssh_config)
    end = place.end
    there, parent = end.look([place.path, posixpath.dirname(place.path) or "."], follow=True)
    if (isinstance(there, Fact) and there.kind == "directory") or (there is None and place.slash):
        raise IsADirectoryError(21, "Is a directory", url)
    if parent is None and end.digests:
        raise FileNotFoundError(2, "No such file or directory", url)
    landed = end.land(place.path, 0, pieces)
    size: int = landed["size"]
    end.commit([place.path, None, there is not None, None], size, {})
    return size


def _walked(place: Place) -> Tree:
    look = place.end.look([place.path], follow=True)[0]
    if look is None:
        return {}, {}
    if isinstance(look, OSError):
        raise type(look)(look.errno, look.strerror, place.shown)
    if look.kind != "directory":
        raise NotADirectoryError(20, "Not a directory", place.shown)
    return place.end.walk(place.path)


def _stamp(end: End, jobs: Sequence[Job], outcome: Outcome) -> None:
    rows = [[job.target, job.fact.mode, job.fact.mtime_ns] for job in reversed(jobs)]
    for number, error in end.each("stamp", rows) if rows else []:
        outcome.complaints.append(f"preserving times of {quoted(rows[number][0])}: {error.strerror}")  # type: ignore[arg-type] # the first is text


def _different(here: Place, there: Place, names: Sequence[str], tree: dict[str, Fact]) -> list[str]:
    """The names of files whose digests differ; each side reads its own, both at once."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only this needs it

    def digests(place: Place) -> list[str]:
        rows = [[f"{place.path.rstrip('/')}/{name}", tree[name].size or 0] for name in names]
        return [one for start in range(0, len(rows), PIECE) for one in place.end.prefixes(rows[start : start + PIECE])]

    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(digests, (here, there))
    return [name for name, one, other in zip(names, ours, theirs, strict=True) if one != other]
