"""ClassAd expressions as text: read by HTCondor's own library, with the place of a mistake, which that does not tell.

One thing is added to the language, by rewriting what was written: ``HasSoftware("openmpi")`` asks whether the list
``Software`` of the other ad (or of this, where there is one only) has a member.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from serai.describe.ads.functions import is_function, nearest
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LONGEST = 64 * 1024  # characters of an expression
# Strings, quoted names and everything else, so that a word is not looked for inside of a string.
_WORD = re.compile(
    r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_]\w*|[0-9]+(?:\.[0-9]+)?|&&|\|\||=\?=|=!=|[<>=!]=|.""", re.DOTALL
)
_OPENING, _CLOSING = "([{", ")]}"
_ENDS = ("", "0", "x", ":0", "0:0", "x=0", "=0", "]", "0]")  # what may make a whole of a part, before its brackets
_CLOCK_HOUR = frozenset({"clockhour", "clockday"})
_CLOCK_MINUTE = frozenset({"clockmin", "time", "currenttime", "formattime", "daytime"})
_KEYWORDS = frozenset(
    {"true", "false", "undefined", "error", "is", "isnt", "my", "target", "parent", "self", "toplevel"}
)
FUNCTIONS_HINT = "those of HTCondor's ClassAds: member, regexp, substr, toLower, isUndefined, ifThenElse and others"
EXAMPLE = 'for example: Memory > 4000 && HasSoftware("openmpi")'


def parse_expression(text: str, *, scope: str = "TARGET.", what: str = "", own: Collection[str] | None = None) -> Any:
    """Reads an expression; returns a `classad2.ExprTree`.

    Args:
        text: in the ClassAd language, with ``HasSoftware``.
        scope: whose software ``HasSoftware`` asks for: ``TARGET.`` between two ads, nothing where there is one.
        what: begins the sentence of an error: ``--requirements``.
        own: the ad's own attributes, in small letters; all others are looked for in the other ad. None: the library
            looks for names without a scope in the ad itself only.

    Raises:
        UsageError: it is none; it says where it ends to be one. Or it calls a function that the language has not, which
            the library would take, and call an error each time that it is evaluated.
    """
    classad2 = library()
    begin = f"{what}: " if what else ""
    if len(text) > _LONGEST:
        raise UsageError(f"{begin}an expression of {len(text)} characters is longer than {_LONGEST}")
    if not text.strip():
        raise UsageError(f"{begin}not a ClassAd expression: there is nothing", hint=EXAMPLE)
    try:
        tree = classad2.ExprTree(with_software(text, scope))
        if own is not None:
            tree = classad2.ExprTree(with_target(with_software(text, scope), own))
    except classad2.ClassAdException as error:
        place = _mistake(text)
        where = f"at character {place + 1}: {text[place:][:30]!r}" if place < len(text.rstrip()) else "at its end"
        raise UsageError(
            f"{begin}not a ClassAd expression {where}, in {text.strip()!r}", hint=_hint(text, place)
        ) from error
    unknown = next((name for name in _called(text) if not is_function(name)), "")
    if unknown:
        near = " or ".join(nearest(unknown))
        raise UsageError(
            f"{begin}there is no function {unknown}, in {text.strip()!r}",
            hint=f"did you mean {near}?" if near else FUNCTIONS_HINT,
        )
    return tree


@functools.cache
def library() -> Any:
    """The module ``classad2``, with all of its functions: those that HTCondor adds come with the first ad it reads."""
    import classad2  # noqa: PLC0415 - most runs have no expressions

    classad2.parseOne("[A = 1]", classad2.ParserType.New)  # an empty one does not do
    return classad2


def clauses_of(expression: Any) -> list[str]:
    """The parts of an expression that all must hold: those between its outermost ``&&``."""
    parts, depth, part = [], 0, ""
    for word in words(str(expression)):
        depth += (word in _OPENING) - (word in _CLOSING)
        if word in {"||", "?"} and depth == 0:
            return [str(expression).strip()]  # && binds closer than || and ?: then it is one clause
        if word == "&&" and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += word
    parts.append(part.strip())
    if len(parts) == 1 and _in_parentheses(parts[0]):
        return clauses_of(parts[0][1:-1])
    return [clause for part in parts for clause in (clauses_of(part) if _in_parentheses(part) else [part])]


def software_in(text: str) -> tuple[str, ...]:
    """The programs that an expression asks for by name: ``HasSoftware("openmpi")``."""
    if "software" not in text.lower():
        return ()
    found: dict[str, None] = {}
    before: list[str] = []
    for word in words(text):
        if word.isspace():
            continue
        if word.startswith('"') and before[-1:] == ["("] and before[-2:-1] == ["hassoftware"]:
            found[re.sub(r"\\(.)", r"\1", word[1:-1])] = None
        before = [*before[-1:], word.lower()]
    return tuple(found)


def period_of(*texts: str) -> int:
    """How often what expressions say may change by the clock alone: every so many seconds; 0 for never."""
    found = {word.lower() for text in texts if text for word in words(text)}
    return 60 if found & _CLOCK_MINUTE else 3600 if found & _CLOCK_HOUR else 0


def words(text: str) -> Iterator[str]:
    """The words of an expression, blanks among them: together they are the text again."""
    return (match[0] for match in _WORD.finditer(text))


def with_software(text: str, scope: str) -> str:
    """Rewrites ``HasSoftware(x)`` to ``member(x, TARGET.Software)``, where it is no part of a string."""
    made: list[str] = []
    inside: list[int] = []  # depths at which a rewritten call ends
    depth, before = 0, ""
    for word in words(text):
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


def with_target(text: str, own: Collection[str]) -> str:
    """Writes ``TARGET.`` before the names that are not an ad's own, as HTCondor does when it takes a job.

    Args:
        text: an expression.
        own: attributes that the ad has, in small letters.
    """
    made: list[str] = []
    all_words = list(words(text))
    records = 0  # how deep in records, whose names are their own
    brackets: list[bool] = []
    before = ""
    for n, word in enumerate(all_words):
        if word == "[":
            brackets.append(not (before and (before[-1].isalnum() or before[-1] in "_)]}'")))
            records += brackets[-1]
        elif word == "]" and brackets:
            records -= brackets.pop()
        elif (word[0].isalpha() or word[0] in "_'") and before != "." and not records:
            name = word.strip("'").lower()
            after = next((one for one in all_words[n + 1 :] if not one.isspace()), "")
            if after != "(" and name not in _KEYWORDS and name not in own:
                made.append("TARGET.")
        made.append(word)
        before = word if not word.isspace() else before
    return "".join(made)


def targets_in(text: str) -> tuple[str, ...]:
    """What an expression refers to in the other ad by ``TARGET.``: names, with dots where it goes on into them."""
    found: dict[str, None] = {}
    name = ""  # as far as it was read; a dot at its end wants more
    for word in [*words(text), ""]:
        if (name and word == ".") or (name.endswith(".") and (word[:1].isalpha() or word[:1] == "_")):
            name += word
        else:
            if name.partition(".")[2]:
                found[name.partition(".")[2].removesuffix(".")] = None
            name = "TARGET" if word.upper() == "TARGET" else ""
    return tuple(found)


def without_target(text: str) -> str:
    """An expression without ``TARGET.``: about one ad alone, or as people write it."""
    every = list(words(text))
    return "".join(
        word
        for before, word, after in zip(["", *every], every, [*every[1:], ""], strict=False)
        if (word.upper(), after) != ("TARGET", ".") and (before.upper(), word) != ("TARGET", ".")
    )


def _called(text: str) -> Iterator[str]:
    """The names of the functions that an expression calls."""
    every = [word for word in words(text) if not word.isspace()]
    for before, name, after in zip(["", *every], every, every[1:], strict=False):
        if after == "(" and before != "." and (name[0].isalpha() or name[0] == "_") and name.lower() not in _KEYWORDS:
            yield name


def _in_parentheses(text: str) -> bool:
    """Whether the first parenthesis closes at the very end."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth, end = 0, 0
    for word in words(text):
        depth += (word in _OPENING) - (word in _CLOSING)
        end += len(word)
        if depth == 0:
            return end == len(text)
    return False


def _mistake(text: str) -> int:
    """Where the first word is that no expression can have there; the length of the text where only its end is missing.

    What begins an expression can be ended by one of a few ends and the brackets that are open; a beginning of such a
    beginning can be, too: so the place is found by halving.
    """
    places = [0]
    for word in words(text):
        places.append(places[-1] + len(word))
    least, most = 0, len(places)  # the first `least` words can begin one, the first `most` cannot
    while most - least > 1:
        middle = (least + most) // 2
        if _begins(text[: places[middle]]):
            least = middle
        else:
            most = middle
    place = places[least]
    return place + len(text[place:]) - len(text[place:].lstrip())


def _begins(text: str) -> bool:
    import classad2  # noqa: PLC0415 - see parse_expression

    open_ones: list[str] = []
    for word in words(text):
        if len(word) == 1 and word in _OPENING:
            open_ones.append(_CLOSING[_OPENING.index(word)])
        elif len(word) == 1 and word in _CLOSING and (not open_ones or open_ones.pop() != word):
            return False
    closing = "".join(reversed(open_ones))
    for end in _ENDS:
        try:
            classad2.ExprTree(f"{text} {end}{closing}")
        except classad2.ClassAdException:
            continue
        return True
    return False


def _hint(text: str, place: int) -> str:
    if re.match(r"and\b|or\b|not\b", text[place:], re.IGNORECASE):
        return "write && for and, || for or, ! for not"
    if text[place : place + 1] == "=":
        return "write == to compare"
    if text[place : place + 1] == "'" or text.count('"') % 2:
        return 'texts stand in double quotes: Name == "lab1"'
    return EXAMPLE
