"""Who may do what: pure decisions over tokens, access lists and the time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serai.data.appliance.paths import Parts

__all__ = ["ALL", "ANYBODY", "Grant", "Identity", "letters", "parse_rights", "rights_at", "rights_below"]

ANYBODY = "*"
READ, WRITE, LIST, ADMIN = "read", "write", "list", "admin"
ALL = frozenset({READ, WRITE, LIST, ADMIN})
NONE: frozenset[str] = frozenset()
_LETTERS = {
    "r": frozenset({READ, LIST}),
    "w": frozenset({WRITE}),
    "l": frozenset({LIST}),
    "a": ALL,
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A line of the access list.

    Attributes:
        user: whose; ``*`` for everybody, also those without a token where the appliance listens on loopback only.
        prefix: the path that it is for, with all below.
        rights: of ``read``, ``write``, ``list``, ``admin``.
    """

    user: str
    prefix: Parts
    rights: frozenset[str]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and the most that may be granted.

    Attributes:
        user: the name.
        prefix: that of the token.
        rights: those of the token.
        paths: for a token that was narrowed: the only files that it is for, to be read and no more.
        token: the token's name, which is no secret; empty for nobody's.
    """

    user: str
    prefix: Parts = ()
    rights: frozenset[str] = ALL
    paths: frozenset[Parts] | None = None
    token: str = field(default="", compare=False)


def parse_rights(text: str) -> frozenset[str]:
    """Reads rights: letters (``r`` read and list, ``w`` write, ``l`` list, ``a`` all of it) or words with commas.

    Raises:
        UsageError: one is unknown.
    """
    if not text:
        return NONE
    words = text.lower().split(",")
    if all(word in ALL for word in words):
        return ALL if ADMIN in words else frozenset(words)
    if set(text) <= set(_LETTERS):
        return frozenset().union(*(_LETTERS[letter] for letter in text))
    raise UsageError(f"{text!r} are no rights", hint="r (read and list), w (write), l (list), a (all): --rights rw")


def letters(rights: frozenset[str]) -> str:
    """Rights as `parse_rights` reads them, the shortest way."""
    if ADMIN in rights:
        return "a"
    return ("r" if READ in rights else "l" if LIST in rights else "") + ("w" if WRITE in rights else "")


def rights_at(who: Identity, grants: Iterable[Grant], path: Parts) -> frozenset[str]:
    """What somebody may do at a path.

    A token's rights hold below its own path. Where lines of the access list are about the user, the one for the longest
    path that leads to this one decides what is left of them, and nothing is where none does; lines for everybody add.
    Who has no line of their own has what the token says. A token that was narrowed lets its own files be read, and
    nothing else, whatever everybody may.
    """
    if who.paths is not None:
        return _rights_at(who, grants, path) & {READ} if path in who.paths else NONE
    return _rights_at(who, grants, path)


def _rights_at(who: Identity, grants: Iterable[Grant], path: Parts) -> frozenset[str]:
    if path[: len(who.prefix)] != who.prefix:
        return _best(grants, ANYBODY, path) or NONE
    own = _best(grants, who.user, path)
    listed = own is not None or any(grant.user == who.user for grant in grants)
    mine = who.rights & (own or NONE) if listed else who.rights
    return mine | (_best(grants, ANYBODY, path) or NONE)


def _best(grants: Iterable[Grant], user: str, path: Parts) -> frozenset[str] | None:
    """What the line for the longest prefix says; None where there is no line."""
    found: Grant | None = None
    for grant in grants:
        leads = grant.user == user and path[: len(grant.prefix)] == grant.prefix
        if leads and (found is None or len(grant.prefix) >= len(found.prefix)):
            found = grant
    return None if found is None else found.rights


def rights_below(who: Identity, grants: Iterable[Grant], path: Parts) -> frozenset[str]:
    """What somebody may do at a path and everywhere below it."""
    lines = list(grants)
    found = rights_at(who, lines, path)
    for prefix in {grant.prefix for grant in lines}:
        if len(prefix) > len(path) and prefix[: len(path)] == path:
            found &= rights_at(who, lines, prefix)
    return found
