"""On which line of a TOML file a key stands, which ``tomllib`` does not tell.

Only for messages: the text was accepted by ``tomllib`` before. Where this scan should nevertheless not follow it, it
ends, and later keys have no line.
"""

from __future__ import annotations

import re
import tomllib

Key = tuple[str | int, ...]  # as in ("site", 1, "slots"): the key of the second [[site]]

_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
# What a value is made of, longest first: multi-line texts, texts, comments, brackets, newlines, anything else.
_VALUE = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[][{}\n]"
    r"""|[^]["'\#{}\n]+""",
    re.DOTALL,
)


def places_of(text: str) -> dict[Key, int]:
    """Gives the line, from 1, of every key and header of a valid TOML text; not of keys inside inline tables."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}  # how many tables each [[header]] has so far
    header: Key = ()
    position = counted = 0
    line = 1
    while position < len(text):
        if text[position] in " \t\r\n":
            position += 1
            continue
        if text[position] == "#":
            position = _line_end(text, position)
            continue
        line += text.count("\n", counted, position)
        counted = position
        brackets = 2 if text.startswith("[[", position) else 1 if text[position] == "[" else 0
        names, position = _names(text, position + brackets)
        if not names:
            return lines
        if brackets:
            header = _resolved(names[:-1], counts)
            header = (*header, names[-1])
            if brackets == 2:
                counts[header] = counts.get(header, 0) + 1
            header = _indexed(header, counts)
            _note(lines, header, line)
            position = _line_end(text, position)
        else:
            _note(lines, (*header, *names), line)
            position = _value_end(text, position + 1)  # after the =
    return lines


def _note(lines: dict[Key, int], key: Key, line: int) -> None:
    """Notes the line of a key, and of each table it opens on its way."""
    for depth in range(1, len(key) + 1):
        lines.setdefault(key[:depth], line)


def _resolved(names: list[str], counts: dict[Key, int]) -> Key:
    """Gives the place of a table: a list of tables on the way means its last one."""
    key: Key = ()
    for name in names:
        key = _indexed((*key, name), counts)
    return key


def _indexed(key: Key, counts: dict[Key, int]) -> Key:
    return (*key, counts[key] - 1) if key in counts else key


def _names(text: str, position: int) -> tuple[list[str], int]:
    """Reads a dotted key, and gives the position after it and the blanks that follow; no names where there is none."""
    names: list[str] = []
    while True:
        position = _skip_blanks(text, position)
        match = _KEY.match(text, position)
        if match is None:
            return [], position
        raw = match[0]
        names.append(tomllib.loads(f"k = {raw}")["k"] if raw[0] in "\"'" else raw)
        position = _skip_blanks(text, match.end())
        if not text.startswith(".", position):
            return names, position
        position += 1


def _skip_blanks(text: str, position: int) -> int:
    while text.startswith((" ", "\t"), position):
        position += 1
    return position


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _value_end(text: str, position: int) -> int:
    """Gives the position of the newline that ends a value."""
    depth = 0
    while position < len(text):
        match = _VALUE.match(text, position)
        if match is None:
            return len(text)
        if match[0] in {"[", "{"}:
            depth += 1
        elif match[0] in {"]", "}"}:
            depth -= 1
        elif match[0] == "\n" and depth == 0:
            return position
        position = match.end()
    return position
