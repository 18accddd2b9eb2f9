"""Which entries are meant: ``os=linux``, ``host=lab*``, ``cores>4``; all of several must hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.adverts.attributes import Scalar, Value

_FORM = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*([=<>])(.*)", re.DOTALL)
_WORDS: dict[object, str] = {True: "true", False: "false", None: "null"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One attribute compared with one value; an entry without the attribute is not meant.

    Attributes:
        name: the attribute; where it is a list, one of its elements is enough.
        sign: ``=``, ``<`` or ``>``.
        text: what it is compared with: a number for ``<`` and ``>``; ``*``, ``?`` and ``[…]`` in text stand for others.
        number: the text as a number, if it is one.
    """

    name: str
    sign: str
    text: str
    number: float | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition.

        Raises:
            UsageError: it is none.
        """
        match = _FORM.fullmatch(text)
        if not match:
            raise UsageError(f"{text!r} is no condition", hint="write NAME=VALUE, NAME>NUMBER or NAME<NUMBER")
        try:
            number = float(match[3])
        except ValueError:
            number = None
        if match[2] != "=" and number is None:
            raise UsageError(f"{text!r} compares with what is no number", hint="write NAME>NUMBER, or NAME=VALUE")
        return cls(match[1], match[2], match[3].strip(), number)

    def holds(self, attributes: Mapping[str, Value]) -> bool:
        """Whether it holds of an entry's attributes."""
        if self.name not in attributes:
            return False
        value = attributes[self.name]
        return any(self._holds_of(one) for one in (value if isinstance(value, list) else [value]))

    def _holds_of(self, value: Scalar) -> bool:
        if isinstance(value, bool) or value is None:
            return self.sign == "=" and self.text.lower() == _WORDS[value]
        if isinstance(value, str):
            return self.sign == "=" and fnmatchcase(value, self.text)
        if self.number is None:
            return False
        return {"=": value == self.number, "<": value < self.number, ">": value > self.number}[self.sign]


def conditions(where: str | Sequence[str] | None) -> tuple[Condition, ...]:
    """Read conditions; none at all mean every entry.

    Raises:
        UsageError: one is none.
    """
    texts = () if where is None else (where,) if isinstance(where, str) else where
    return tuple(Condition.parse(text) for text in texts)
