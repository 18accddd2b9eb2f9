"""ClassAds: HTCondor's own, read from text and made from facts.

An ad is a `classad2.ClassAd`. Attribute names are HTCondor's where it has them: ``Memory`` and ``RequestMemory`` in
MiB, ``Cpus``, ``Disk`` in KiB, ``Arch``, ``OpSys``, ``Name``. Two things are added to the language, both by rewriting
what was written, so that the library evaluates all of it:

* ``HasSoftware("openmpi")`` asks whether the list ``Software`` of the other ad (or of this, where there is one only)
  has a member.
* ``ClockHour``, ``ClockMin`` and ``ClockDay`` of a node are of the moment of the match (`at`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import classad2

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = ["at", "clauses_of", "node_ad", "parse_ad", "parse_expression", "task_ad"]

MIB = 1 << 20
_LONGEST = 64 * 1024  # characters of an expression
# Strings, quoted names and everything else, so that a word is not looked for inside of a string.
_WORD = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_]\w*|&&|\|\||.""", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"


def parse_expression(text: str, *, scope: str = "TARGET.") -> classad2.ExprTree:
    """Reads an expression.

    Args:
        text: in the ClassAd language, with ``HasSoftware``.
        scope: whose software ``HasSoftware`` asks for: ``TARGET.`` between two ads, nothing where there is one.

    Raises:
        UsageError: it is none.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"an expression of {len(text)} characters is longer than {_LONGEST}")
    try:
        return classad2.ExprTree(_with_software(text, scope))
    except classad2.ClassAdException as error:
        raise UsageError(
            f"not a ClassAd expression: {text.strip()!r}", hint='for example: Memory > 4000 && HasSoftware("openmpi")'
        ) from error


def parse_ad(text: str) -> classad2.ClassAd:
    """Reads an ad, in the new form (``[A = 1; B = 2]``) or the old one (a line for each attribute).

    Raises:
        UsageError: it is none.
    """
    kind = classad2.ParserType.New if text.lstrip().startswith("[") else classad2.ParserType.Old
    try:
        found = classad2.parseOne(_with_software(text, "TARGET."), kind)
        if len(found) or not text.strip(" \t\r\n[]"):
            return found
        error: Exception | None = None  # the parser passes over lines that it cannot read
    except classad2.ClassAdException as caught:
        error = caught
    raise UsageError(
        f"not a ClassAd: {text.strip()[:60]!r}", hint='for example: [Name = "n1"; Memory = 4000]'
    ) from error


def node_ad(name: str, facts: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> classad2.ClassAd:
    """The ad of a node.

    Args:
        name: its name.
        facts: what it said at check-in (`serai.travel.executor.facts`).
        extra: further attributes; text that begins with ``=`` is an expression, such as ``NearestStorage``.
    """
    software = facts.get("software", {})
    ad = classad2.ClassAd(
        {
            "MyType": "Machine",
            "Name": name,
            "Machine": str(facts.get("host", name)),
            "Cpus": int(facts.get("cores", 0)),
            "Memory": int(facts.get("memory_bytes", 0)) // MIB,
            "Disk": int(facts.get("disk_free_bytes", 0)) // 1024,
            "Arch": str(facts.get("machine", "")).upper(),
            "OpSys": str(facts.get("system", "")).upper(),
            "Python": ".".join(str(part) for part in facts.get("python", ())[:2]),
            "Software": sorted(one for one, there in software.items() if there),
        }
    )
    return _extended(ad, extra or {})


def task_ad(
    needs: Any, *, requirements: str | None = None, rank: str | None = None, extra: Mapping[str, Any] | None = None
) -> classad2.ClassAd:
    """The ad of a task.

    Args:
        needs: see `serai.describe.task.Needs`; becomes clauses of ``Requirements`` before the user's own.
        requirements: which nodes (and their stores) will do.
        rank: which of them is best: the highest number.
        extra: further attributes, as for `node_ad`.
    """
    clauses = [f"TARGET.Cpus >= {needs.cores}"]
    if needs.memory_bytes:
        clauses.append(f"TARGET.Memory >= {-(-needs.memory_bytes // MIB)}")
    clauses += [f"member({classad2.quote(name)}, TARGET.Software)" for name in needs.software]
    if needs.python:
        clauses.append(f'TARGET.Python == "{".".join(map(str, needs.python))}"')
    if requirements:
        parse_expression(requirements)
        clauses.append(f"({requirements})")
    ad = classad2.ClassAd(
        {
            "MyType": "Job",
            "RequestCpus": needs.cores,
            "RequestMemory": -(-needs.memory_bytes // MIB),
            "Requirements": parse_expression(" && ".join(clauses)),
        }
    )
    if rank:
        ad["Rank"] = parse_expression(rank)
    return _extended(ad, extra or {})


def at(ad: classad2.ClassAd, now: datetime) -> classad2.ClassAd:
    """A copy of a node's ad with the moment in it: policies by the hour refer to ``ClockHour`` and the like."""
    copy = classad2.ClassAd()
    copy.update(ad)
    copy["ClockHour"], copy["ClockMin"], copy["ClockDay"] = (
        now.hour,
        now.hour * 60 + now.minute,
        (now.weekday() + 1) % 7,
    )
    return copy


def clauses_of(expression: classad2.ExprTree | str) -> list[str]:
    """The parts of an expression that all must hold: those between its outermost ``&&``."""
    parts, depth, part = [], 0, ""
    for word in _words(str(expression)):
        depth += (word in _OPENING) - (word in _CLOSING)
        if word in {"||", "?"} and depth == 0:
            return [str(expression)]  # && binds closer than || and ?: then it is one clause
        if word == "&&" and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += word
    parts.append(part.strip())
    if len(parts) == 1 and _in_parentheses(parts[0]):
        return clauses_of(parts[0][1:-1])
    return [clause for part in parts for clause in (clauses_of(part) if _in_parentheses(part) else [part])]


def _in_parentheses(text: str) -> bool:
    """Whether the first parenthesis closes at the very end."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth, end = 0, 0
    for word in _words(text):
        depth += (word in _OPENING) - (word in _CLOSING)
        end += len(word)
        if depth == 0:
            return end == len(text)
    return False


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in _WORD.finditer(text))


def _with_software(text: str, scope: str) -> str:
    """Rewrites ``HasSoftware(x)`` to ``member(x, TARGET.Software)``, where it is no part of a string."""
    made: list[str] = []
    inside: list[int] = []  # depths at which a rewritten call ends
    depth, before = 0, ""
    for word in _words(text):
        if word.lower() == "hassoftware" and before != ".":
            made.append("member")
            inside.append(depth)
        elif word == ")" and inside and depth - 1 == inside[-1]:
            inside.pop()
            made.append(f", {scope}Software)")
        else:
            made.append(word)
        depth += (word in _OPENING) - (word in _CLOSING)
        before = word if not word.isspace() else before
    return "".join(made)


def _extended(ad: classad2.ClassAd, extra: Mapping[str, Any]) -> classad2.ClassAd:
    for key, value in extra.items():
        ad[key] = parse_expression(value[1:]) if isinstance(value, str) and value.startswith("=") else value
    return ad
