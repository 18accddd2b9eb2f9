"""Moves: a rename where that is possible, else a copy and then the removal of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.data.copy_plan import Source, plan_copies, quoted, target_of_source
from serai.data.copying.carrying import Outcome, carry
from serai.errors import SeraiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.data.copy_plan import CopyPlan, Destination, Wishes
    from serai.data.copying.opening import Place
    from serai.data.copying.tally import Tally

__all__ = ["move_found"]


def move_found(
    found: Sequence[tuple[Place, Source]], target: tuple[Place, Destination], wishes: Wishes, tally: Tally
) -> Outcome:
    """Move what was found at the sources; see `transfer.move`."""
    place, known = target
    total = Outcome()
    # What is wrong with all of them together (several sources and no directory) is said once, of all.
    together = plan_copies([source for _, source in found], known, wishes)
    if together.refusals and not (together.files or together.directories):
        total.complaints += [_as_move(refusal.what) for refusal in together.refusals]
        return total
    top = known.known.get(known.path)
    inside = top is not None and top.followed == "directory" and not wishes.as_file
    made: set[str] = set()
    for one, source in found:
        goal = target_of_source(source.path, known.path, inside=inside)
        if goal in made:
            total.complaints.append(f"will not overwrite just-created {quoted(goal)} with {quoted(source.shown)}")
            continue
        made.add(goal)
        there = known.known.get(goal)
        plan = plan_copies([source], known, wishes)
        if plan.refusals or (plan.kept and not plan.files):
            total.complaints += [_as_move(refusal.what) for refusal in plan.refusals]
            total.kept += plan.kept
            continue
        if there is not None and there.kind == "directory" and not _is_empty(known, goal):
            total.complaints.append(f"cannot move {quoted(source.shown)} to {quoted(goal)}: Directory not empty")
            continue
        if source.store == place.end.store and _renamed(place, source.path, goal):
            total.files += 1
            if wishes.verbose:
                total.made.append((source.shown, goal))
            continue
        _copied(one, source, plan, target, wishes, tally, total)
    return total


def _as_move(what: str) -> str:
    if not what.startswith("cannot copy a directory, "):
        return what
    return what.replace("copy a directory,", "move", 1).replace(", into itself,", " to a subdirectory of itself,", 1)


def _is_empty(known: Destination, goal: str) -> bool:
    return not any(path.startswith(f"{goal}/") for path in known.known)


def _renamed(place: Place, origin: str, goal: str) -> bool:
    """Whether a rename did it; not from one of the host's file systems to another, nor in stores that know none."""
    try:
        return not place.end.each("rename", [[origin, goal]])
    except SeraiError:
        return False


def _copied(
    one: Place,
    source: Source,
    plan: CopyPlan,
    target: tuple[Place, Destination],
    wishes: Wishes,
    tally: Tally,
    total: Outcome,
) -> None:
    place, known = target
    done = carry(plan, [(one.end, source)], (place.end, known), wishes, tally)
    total.files += done.files
    total.size += done.size
    total.made += done.made
    total.complaints += done.complaints
    if done.complaints or done.kept:
        return
    # What came to the source meanwhile is in none of these, and keeps its directory from going.
    rows = [f"{source.path}/{name}" if name else source.path for name in reversed(list(source.tree))]
    total.complaints += [
        f"cannot remove {quoted(rows[number])}: {error.strerror}" for number, error in one.end.each("remove", rows)
    ]
