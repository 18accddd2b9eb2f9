"""How `ls`, `stat` and `du` say what they found."""

from __future__ import annotations

import posixpath
import shutil
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

from serai.cli.filing.operands import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.data.copy_plan import Fact
    from serai.data.copying.ends import Detail
    from serai.data.copying.opening import Place

_LETTERS = {"directory": stat.S_IFDIR, "link": stat.S_IFLNK, "file": stat.S_IFREG, "other": 0}
_KINDS = {"directory": "directory", "link": "symbolic link", "file": "regular file", "other": "special file"}
HALF_A_YEAR_S = 182 * 86400
DEEPEST = 1000


class Listing:
    """One `ls`.

    Args:
        options: its options, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._now = time.time()  # a time is shown with its year when it is long ago
        self._width = shutil.get_terminal_size((80, 24)).columns
        self._columns = sys.stdout.isatty() and not options["one"] and not options["long"]

    def look(self, place: Place) -> tuple[Detail | None, list[tuple[str, list[Detail], str]]]:
        """What there is to be shown of an operand: itself, or directories with what is in them and what went wrong."""
        look = place.end.look([place.path + ("/" if place.slash and place.path != "/" else "")])[0]
        if isinstance(look, OSError):
            raise look
        if look is None:
            raise FileNotFoundError(2, "No such file or directory")
        # As ls does: a link that is named is followed to a directory, unless it is shown itself.
        kind = look.kind if self._options["long"] and not place.slash else look.followed
        if kind != "directory" or self._options["directory"]:
            _, fact, links, owner, group = place.end.details(place.path, inside=False)[0]
            return (place.shown, fact, links, owner, group), []
        return None, list(self._inside(place, place.path, place.shown, 0))

    def _inside(self, place: Place, path: str, name: str, depth: int) -> list[tuple[str, list[Detail], str]]:
        try:
            entries = place.end.details(path, inside=True)
        except OSError as error:
            if not depth:
                raise
            return [(name, [], error.strerror or str(error))]
        if not self._options["every"]:
            entries = [entry for entry in entries if not entry[0].startswith(".")]
        entries = self._sorted(entries)
        found = [(name, entries, "")]
        if self._options["recursive"] and depth < DEEPEST:
            for entry in entries:
                if entry[1].kind == "directory":
                    below = name.rstrip("/") + "/" + entry[0]
                    found += self._inside(place, posixpath.join(path, entry[0]), below, depth + 1)
        return found

    def _sorted(self, entries: Sequence[Detail]) -> list[Detail]:
        found = sorted(entries, key=lambda entry: entry[0])
        if self._options["by_size"]:
            found.sort(key=lambda entry: -(entry[1].size or 0))
        if self._options["by_time"]:
            found.sort(key=lambda entry: -(entry[1].mtime_ns or 0))
        return found[::-1] if self._options["reverse"] else found

    def lines(self, found: Sequence[tuple[Place, Any]]) -> tuple[list[str], list[tuple[str, str]]]:
        """The lines to be printed, and what could not be looked into."""
        alone = [entry for _, (entry, _) in found if entry is not None]
        named = [several for _, (_, several) in found if several]
        if not (self._options["by_time"] or self._options["by_size"]):
            named.sort(key=lambda several: several[0][0], reverse=self._options["reverse"])
        directories = [one for several in named for one in several]
        troubles = [(name, why) for name, _, why in directories if why]
        lines = self._entries(self._sorted(alone)) if alone else []
        headed = len(found) > 1 or self._options["recursive"]
        for name, entries, why in directories:
            if why:
                continue
            if headed:
                lines += ([""] if lines else []) + [f"{shown(name)}:"]
            lines += self._entries(entries)
        return lines, troubles

    def _entries(self, entries: Sequence[Detail]) -> list[str]:
        if self._options["long"]:
            return self._long(entries)
        names = [shown(entry[0]) for entry in entries]
        return _in_columns(names, self._width) if self._columns else names

    def _long(self, entries: Sequence[Detail]) -> list[str]:
        rows = [
            (
                mode_text(fact),
                "-" if links is None else str(links),
                owner,
                group,
                size_text(fact.size, human=self._options["human"]),
                self._time(fact.mtime_ns),
                shown(name) + (f" -> {shown(fact.link)}" if fact.link is not None else ""),
            )
            for name, fact, links, owner, group in entries
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
        return [
            f"{row[0]} {row[1]:>{widths[1]}} {row[2]:{widths[2]}} {row[3]:{widths[3]}} {row[4]:>{widths[4]}} "
            f"{row[5]:>{widths[5]}} {row[6]}"
            for row in rows
        ]

    def _time(self, mtime_ns: int | None) -> str:
        if mtime_ns is None:
            return "-"
        when = mtime_ns / 1e9
        recent = 0 <= self._now - when < HALF_A_YEAR_S
        return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(when))


def mode_text(fact: Fact) -> str:
    """As ``drwxr-xr-x``; where there are no permissions, dashes."""
    text = stat.filemode(_LETTERS[fact.kind] | (fact.mode or 0))
    return text[0] + "---------" if fact.mode is None else text


def size_text(size: int | None, *, human: bool) -> str:
    """A number of bytes, or as 1.2M."""
    if size is None:
        return "-"
    if not human or size < 1000:
        return str(size)
    value = float(size)
    letters = iter("KMGTPE")
    letter = ""
    while value >= 1000:
        value /= 1024
        letter = next(letters)
    return f"{value:.1f}{letter}" if value < 9.95 else f"{value:.0f}{letter}"


def _in_columns(names: Sequence[str], width: int) -> list[str]:
    """Names below one another, in as many columns as fit."""
    for count in range(min(len(names), max(1, width // 3)), 0, -1):
        rows = -(-len(names) // count)
        columns = [names[start : start + rows] for start in range(0, len(names), rows)]
        widths = [max(map(len, column)) for column in columns]
        if sum(widths) + 2 * (len(widths) - 1) <= width or count == 1:
            return [
                "  ".join(
                    f"{column[row]:{size}}" for column, size in zip(columns, widths, strict=True) if row < len(column)
                ).rstrip()
                for row in range(rows)
            ]
    return []


def described(name: str, detail: Detail, pattern: str | None) -> str:
    """What `stat` prints of a file."""
    _, fact, links, owner, group = detail
    when = (fact.mtime_ns or 0) / 1e9
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    stamp += f".{(fact.mtime_ns or 0) % 10**9:09d} {time.strftime('%z', time.localtime(when))}"
    words = {
        "n": name,
        "s": "-" if fact.size is None else str(fact.size),
        "a": "-" if fact.mode is None else f"{fact.mode:o}",
        "A": mode_text(fact),
        "F": "regular empty file" if fact.kind == "file" and fact.size == 0 else _KINDS[fact.kind],
        "U": owner,
        "G": group,
        "h": "-" if links is None else str(links),
        "Y": "-" if fact.mtime_ns is None else str(int(when)),
        "y": "-" if fact.mtime_ns is None else stamp,
        "N": name if fact.link is None else f"{name} -> {fact.link}",
        "%": "%",
    }
    if pattern is not None:
        parts = pattern.replace("%%", "%\0").split("%")
        return parts[0] + "".join(
            "%" + part[1:] if part[:1] == "\0" else words.get(part[:1], "?") + part[1:] for part in parts[1:]
        )
    return (
        f"  File: {shown(words['N'])}\n  Size: {words['s']}\tLinks: {words['h']}\t{words['F']}\n"
        f"Access: ({words['a']}/{words['A']})\tUid: {owner}\tGid: {group}\nModify: {words['y']}"
    )


def sums(place: Place, *, summarize: bool, human: bool) -> tuple[list[str], dict[str, str]]:
    """What `du` prints of an operand, and what could not be looked into."""
    look = place.end.look([place.path], follow=place.slash)[0]
    if isinstance(look, OSError):
        raise look
    if look is None:
        raise FileNotFoundError(2, "No such file or directory")
    if look.kind != "directory":
        return [f"{size_text(look.size, human=human)}\t{shown(place.shown)}"], {}
    tree, troubles = place.end.walk(place.path)
    total = {name: 0 for name, fact in tree.items() if fact.kind == "directory"}
    for name, fact in tree.items():
        if fact.kind != "directory":
            parts = name.split("/")
            for count in range(len(parts)):
                total["/".join(parts[:count])] += fact.size or 0
    names = (
        [""]
        if summarize
        else sorted(total, key=lambda name: [*name.split("/"), "\U0010ffff"] if name else ["\U0010ffff" * 2])
    )
    top = place.shown.rstrip("/") or place.shown
    return [
        f"{size_text(total[name], human=human)}\t{shown(f'{top}/{name}' if name else place.shown)}" for name in names
    ], troubles
