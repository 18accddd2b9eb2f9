"""Which clauses of requirements reject which node, what they found there, and what would fit. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import classad2

from serai.describe.ads.expressions import clauses_of, period_of, targets_in, without_target, words
from serai.match.bilateral import REFERENCE, holds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONGEST = 60  # characters of a value that is shown
_MOST_VALUES = 4
_MEMBER = re.compile(r"\bmember\(\s*(.+?)\s*,\s*TARGET\.Software\s*\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A clause that does not hold for a task and a node.

    Attributes:
        clause: its text.
        of: whose requirements it belongs to: ``task`` or ``node``.
        undefined: the other ad lacks what it refers to; False when the clause is false, or in error.
        found: (attribute, value) pairs of the other ad that it refers to; the value is "" where the ad has none.
        period_s: the clock alone may change it, every so many seconds; 0 when it cannot.
        three_way: it refers to a store.
    """

    clause: str
    of: str
    undefined: bool
    found: tuple[tuple[str, str], ...]
    period_s: int
    three_way: bool


def refusals(task: classad2.ClassAd, node: classad2.ClassAd) -> list[Refusal]:
    """The clauses of both sides' requirements that do not hold; none when the two match."""
    return _of_one("task", task, node) + _of_one("node", node, task)


def why(found: Iterable[Refusal], awaited: str = "") -> str:
    """One sentence of why a node and a task do not come together.

    Args:
        found: clauses that do not hold.
        awaited: a store whose ad is not there yet.
    """
    parts = []
    for one in found:
        whose = "it requires" if one.of == "task" else "the node requires of its tasks"
        words_ = f"{whose} {as_written(one.clause)}"
        lacking = [name for name, value in one.found if not value]
        if awaited and one.three_way:
            words_ += f", and the ad of the node's store {awaited} is not there"
        elif one.undefined and lacking:
            words_ += f", and {'this node' if one.of == 'task' else 'the task'} says no {' and no '.join(lacking)}"
            text = next((name for name in lacking if re.search(rf"[=!]=\s*(?:TARGET\.)?'?{name}\b", one.clause)), "")
            if text:
                words_ += f' (a text stands in double quotes: "{text}")'
        elif one.found:
            words_ += ", and " + ", ".join(f"{name} is {value or 'not there'}" for name, value in one.found)
        parts.append(words_)
    return "; ".join(parts)


def as_written(clause: str) -> str:
    """A clause as people write it: with ``HasSoftware``, and without ``TARGET.``."""
    return without_target(_MEMBER.sub(r"HasSoftware(\1)", clause))


def _of_one(of: str, one: classad2.ClassAd, other: classad2.ClassAd) -> list[Refusal]:
    if "Requirements" not in one:
        return []
    found = []
    for text in clauses_of(one.lookup("Requirements")):
        expression = classad2.ExprTree(text)
        if not holds(expression, one, other):
            undefined = expression.eval(one, other) is classad2.Value.Undefined
            named = {word.lower() for word in words(text)}
            through = [
                str(ad.lookup(name)) for ad in (one, other) for name in named if name.isidentifier() and name in ad
            ]
            three_way = REFERENCE.lower() in named
            facts = facts_of(expression, one, other)
            found.append(Refusal(text, of, undefined, facts, period_of(text, *through), three_way))
    return found


def facts_of(
    expression: classad2.ExprTree, one: classad2.ClassAd, other: classad2.ClassAd
) -> tuple[tuple[str, str], ...]:
    """What an expression refers to in the other ad, with what is there."""
    found: dict[str, str] = {}
    for name in targets_in(str(expression)):
        if name.lower() == "software":
            continue  # the list of all there is would say less than the clause
        value: Any = classad2.ExprTree(f"TARGET.{name}").eval(one, other)
        first = name.partition(".")[0]
        if value is classad2.Value.Undefined and first != name:
            whole = classad2.ExprTree(f"TARGET.{first}").eval(one, other)
            if whole is classad2.Value.Undefined:
                found[first] = ""
                continue
        found[name] = "" if value is classad2.Value.Undefined else _shown(value)
    return tuple(sorted(found.items()))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = str(classad2.quote(value))
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list):
        text = "{" + ", ".join(map(_shown, value)) + "}"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def relaxations(found: Mapping[str, Sequence[Refusal]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What would fit if clauses were dropped: (clauses, nodes) pairs, those of fewest clauses only.

    Args:
        found: what refuses each node; nodes that refuse by requirements of their own are passed over.
    """
    by_clauses: dict[tuple[str, ...], list[str]] = {}
    for node, refused in found.items():
        if refused and all(one.of == "task" for one in refused):
            by_clauses.setdefault(tuple(dict.fromkeys(as_written(one.clause) for one in refused)), []).append(node)
    fewest = min(map(len, by_clauses), default=0)
    pairs = [(clauses, tuple(nodes)) for clauses, nodes in by_clauses.items() if len(clauses) == fewest]
    return sorted(pairs, key=lambda pair: -len(pair[1]))


_SIMPLE = re.compile(
    r"(?:TARGET\.)?(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*(?P<sign>>=|<=|==|=\?=|>|<)\s*[^&|?:]+", re.IGNORECASE
)


def nearest_value(clause: str, nodes: Iterable[classad2.ClassAd]) -> str:
    """What there is instead of what a plain comparison wants: ``the largest Memory here is 2048``; "" for others."""
    match = _SIMPLE.fullmatch(clause.strip())
    if match is None:
        return ""
    name, sign = match["name"], match["sign"]
    expression = classad2.ExprTree(name)
    values = [value for value in (expression.eval(node) for node in nodes) if not isinstance(value, classad2.Value)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if sign[0] in "<>" and len(set(numbers)) > 1:
        word, most = ("largest", max(numbers)) if sign[0] == ">" else ("smallest", min(numbers))
        return f"the {word} {name} here is {most}"
    some = sorted({_shown(value) for value in values})
    if some:
        more = f" and {len(some) - _MOST_VALUES} more" if len(some) > _MOST_VALUES else ""
        return f"{name} here is {', '.join(some[:_MOST_VALUES])}{more}"
    return "" if values else f"no node here says {name}"
