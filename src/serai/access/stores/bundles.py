"""Many small files in one message: an index in JSON behind its length, then their bytes, one after another."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MOST_BYTES", "MOST_FILES", "bundle", "unbundle"]

MOST_FILES = 250
MOST_BYTES = 16 << 20  # of a bundle; a file that alone has more goes alone
MOST_INDEX = 2 << 20  # bytes of text, which become many times as many in memory
_LENGTH = struct.Struct(">I")


def bundle(index: Sequence[Any], contents: Iterable[bytes | memoryview]) -> bytes:
    """A message: an index, whose rows say each size, and contents."""
    head = json.dumps(index, separators=(",", ":")).encode("ascii")
    return b"".join((_LENGTH.pack(len(head)), head, *contents))


def unbundle(message: bytes | bytearray | memoryview) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """The rows of a message, and the bytes of each; empty for a row without a size.

    Raises:
        ValueError: it is no such message.
    """
    whole = memoryview(message)
    if len(whole) < _LENGTH.size:
        raise ValueError("a bundle begins with the length of its index")
    length = _LENGTH.unpack_from(whole)[0]
    if length > MOST_INDEX:
        raise ValueError("the index of a bundle is too long")
    at = _LENGTH.size + length
    index = json.loads(bytes(whole[_LENGTH.size : at]))
    if not isinstance(index, list) or not all(isinstance(row, dict) for row in index):
        raise ValueError("the index of a bundle has an object for each file")
    contents = []
    for row in index:
        size = row.get("size", 0)
        if not isinstance(size, int) or size < 0 or at + size > len(whole):
            raise ValueError("a bundle has not the sizes that its index says")
        contents.append(whole[at : at + size])
        at += size
    if at != len(whole):
        raise ValueError("a bundle has more than its index says")
    return index, contents
