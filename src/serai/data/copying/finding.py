"""What lies at the sources and the destination of a copy: asked in few calls, before anything is decided."""

from __future__ import annotations

import posixpath
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from serai.data.copy_plan import Destination, Fact, Source, quoted, target_of_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.data.copy_plan import Wishes
    from serai.data.copying.ends import Look
    from serai.data.copying.opening import Place

__all__ = ["find_destination", "find_sources", "looks_at"]

AT_ONCE = 8  # trees that are walked at a time


def looks_at(places: Sequence[Place], *, follow: bool) -> list[Look]:
    """What is at each place; one call per file system and kind of look."""
    found: list[Look] = [None] * len(places)
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, place in enumerate(places):
        groups.setdefault((place.end.store, follow or place.slash), []).append(number)
    for (_, through), numbers in groups.items():
        end = places[numbers[0]].end
        for number, look in zip(numbers, end.look([places[n].path for n in numbers], follow=through), strict=True):
            found[number] = look
    return found


def find_sources(
    places: Sequence[Place], *, recursive: bool, follow: bool
) -> tuple[list[tuple[Place, Source]], list[str]]:
    """The sources that are there, with what is in them; and complaints about the others.

    Args:
        places: in order.
        recursive: whether directories are looked into.
        follow: whether links are followed.
    """
    complaints: list[str] = []
    there: list[tuple[Place, Fact]] = []
    for place, look in zip(places, looks_at(places, follow=follow), strict=True):
        if isinstance(look, Fact) and (look.kind == "directory" or not place.slash):
            there.append((place, look))
        else:
            why = "Not a directory" if isinstance(look, Fact) else "No such file or directory"
            why = look.strerror or str(look) if isinstance(look, OSError) else why
            complaints.append(f"cannot stat {quoted(place.shown)}: {why}")

    def source(found: tuple[Place, Fact]) -> Source:
        place, fact = found
        if fact.kind != "directory" or not recursive:
            return Source(place.shown, place.path, place.end.store, {"": fact}, follow=follow)
        try:
            tree, troubles = place.end.walk(place.path, follow=follow)
        except OSError as error:
            tree, troubles = {}, {"": error.strerror or str(error)}
        return Source(place.shown, place.path, place.end.store, tree, troubles, follow)

    if len(there) > 1 and recursive:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sources = list(pool.map(source, there))
    else:
        sources = [source(one) for one in there]
    return [(place, one) for (place, _), one in zip(there, sources, strict=True)], complaints


def find_destination(place: Place, sources: Sequence[Source], wishes: Wishes) -> Destination:
    """The destination, and what is in those of its directories that a source would be merged with.

    Raises:
        OSError: it cannot be looked at.
    """
    known: dict[str, Fact] = {}

    def look(paths: list[str]) -> None:
        for path, found in zip(paths, place.end.look(paths), strict=True):
            if isinstance(found, OSError):
                raise type(found)(found.errno, found.strerror, path)
            if found is not None:
                known[path] = found

    parent = posixpath.dirname(place.path) or "."
    look([place.path, parent])
    if place.end.flat:
        made = [parent, place.path] if place.slash else [parent]
        known = dict.fromkeys(made, Fact("directory")) | known
    if not posixpath.dirname(place.path) and parent in known:
        known[""] = known[parent]
    top = known.get(place.path)
    inside = top is not None and top.followed == "directory" and not wishes.as_file
    targets = [target_of_source(source.path, place.path, inside=inside) for source in sources]
    look(sorted(set(targets) - known.keys()))
    for source, target in zip(sources, targets, strict=True):
        there = known.get(target)
        if there is None or there.followed != "directory" or not source.tree:
            continue
        if source.tree.get("", there).kind != "directory":
            continue
        names = [name for name, fact in source.tree.items() if name and fact.kind == "directory"]
        tree, _ = place.end.walk(target, within=names)
        known.update({posixpath.join(target, name): fact for name, fact in tree.items() if name})
    followed = place.end.look([place.path, parent], follow=True)
    within = {one.identity for one in followed if isinstance(one, Fact) and one.kind == "directory" and one.identity}
    return Destination(place.shown, place.path, place.end.store, known, place.slash, frozenset(within))
