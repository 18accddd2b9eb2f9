"""The attributes of an entry: names and JSON's scalars, or lists of these. They never hold secrets.

Whoever may look at the directory sees all of it, and so does who reads its file or its database. A name or a value that
looks like a secret is refused: it is a mistake more often than not, and renaming an attribute is easy.
"""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Scalar = str | int | float | bool | None
Value = Scalar | list[Scalar]

MOST = 256  # of one entry
LARGEST = 64 * 1024  # bytes of all of them, as JSON
_LARGEST_INTEGER = 1 << 63  # what every reader of JSON takes

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = frozenset({
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "credential", "credentials",
    "privatekey", "secretkey", "accesskey", "apikey", "sshkey",
})  # fmt: skip
_SECRET_KEYS = frozenset({"private", "access", "api", "ssh", "signing", "session"})  # such as "private_key"
_SECRET_VALUE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\A[a-z][a-z0-9+.-]*://[^/?#@\s]*:[^/?#@\s]+@")


def packed(attributes: Mapping[str, Value]) -> str:
    """Check attributes and write them as JSON, with their names in order.

    Raises:
        UsageError: a name or a value cannot be one, looks like a secret, or there is too much.
    """
    if len(attributes) > MOST:
        raise UsageError(f"{len(attributes)} attributes are more than {MOST}")
    for name, value in attributes.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of an attribute", hint="letters, digits, _ . and -")
        if _names_a_secret(name):
            raise UsageError(f"the attribute {name!r} looks like a secret: adverts hold none", hint="rename or drop it")
        for one in value if isinstance(value, list | tuple) else (value,):
            _check(name, one)
    text = json.dumps(attributes, sort_keys=True, separators=(",", ":"))
    if len(text) > LARGEST:
        raise UsageError(f"attributes of {len(text)} bytes are more than {LARGEST}", hint="keep data in files")
    return text


def _check(name: str, value: object) -> None:
    good = value is None or isinstance(value, str | bool | int)
    if isinstance(value, float):
        good = math.isfinite(value)
    elif isinstance(value, int):
        good = -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        raise UsageError(f"the value of {name!r} looks like a secret: adverts hold none")
    if not good:
        raise UsageError(
            f"the value of {name!r} is {type(value).__name__}: a text, a number, true, false, null, or a list of these"
        )


def _names_a_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    named = any(word in _SECRET for word in words)
    return named or any(after == "key" and before in _SECRET_KEYS for before, after in pairwise(words))
