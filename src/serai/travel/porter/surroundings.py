"""What is mounted on this machine, and which addresses it has, from what Linux says; elsewhere nothing is known."""

from __future__ import annotations

import re

_OCTAL = re.compile(r"\\([0-7]{3})")


def mounts() -> list[list[str]]:
    """What is mounted, as [point, kind, source, root of it]; what is mounted later over the same point comes later."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return parse_mounts(file.read())
    except OSError:
        return []


def parse_mounts(text: str) -> list[list[str]]:
    """Read the lines of ``/proc/self/mountinfo`` (proc(5))."""
    found = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if dash and len(fields) >= 6 and len(more) >= 2:
            found.append([_plain(fields[4]), more[0], _plain(more[1]), _plain(fields[3])])
    return found


def _plain(word: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)


def addresses() -> list[str]:
    """The machine's own addresses, without those that every machine has."""
    found = set()
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line, following in zip(lines, lines[1:]):  # noqa: B905, RUF007 - Python 3.8
        if "/32 host LOCAL" in following:
            found.add(line.rpartition(" ")[2])
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            six = [line.split() for line in file]
    except OSError:
        six = []
    for fields in six:
        if fields[3] == "00":  # of global scope: those of a link are the same on many
            found.add(":".join(fields[0][at : at + 4] for at in range(0, 32, 4)))
    return sorted(one for one in found if not one.startswith("127."))
