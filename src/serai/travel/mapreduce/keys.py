"""To which partition a key belongs: the same on every node, in every process, with every version of Python."""

from __future__ import annotations

import operator
import struct
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_DOUBLE = struct.Struct(">d")


class KeyRefused(TypeError):
    """A mapper gave a key that cannot be partitioned or sorted."""


def canonical(key: Any) -> bytes:
    """Encode a key so that equal keys have equal bytes: 1, 1.0 and True are one key, as they are in a dict.

    Raises:
        KeyRefused: it is neither text, bytes, a number, None, nor a tuple of these.
    """
    if isinstance(key, str):
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, bytes):
        return b"b" + key
    if isinstance(key, float):
        if key != key:  # noqa: PLR0124 - that is what NaN is
            raise KeyRefused("NaN cannot be a key: it is not equal to itself")
        if not key.is_integer():
            return b"f" + _DOUBLE.pack(key)
        key = int(key)
    if key is None:
        return b"n"
    if isinstance(key, tuple):
        parts = [canonical(one) for one in key]
        return b"t" + b"".join(b"%d:%s" % (len(part), part) for part in parts)
    try:
        return b"i%x" % operator.index(key)
    except TypeError:
        what = "a key of type %s: keys are text, bytes, numbers, None, or tuples of these" % type(key).__name__
        raise KeyRefused(what) from None


def partition_of(key: Any, partitions: int) -> int:
    """The number of the partition, from 0, that a key belongs to."""
    if type(key) is str:
        try:
            return crc32(key.encode()) % partitions
        except UnicodeEncodeError:  # lines that were no UTF-8
            return crc32(key.encode("utf-8", "surrogatepass")) % partitions
    return crc32(key if type(key) is bytes else canonical(key)) % partitions


def parted(keys: Iterable[Any], partitions: int) -> list[list[Any]]:
    """Deal keys out to partitions; the order within each is that of the keys."""
    if partitions == 1:
        keys = list(keys)
        for key in keys:
            if type(key) not in _PLAIN:
                canonical(key)  # refused with one partition as with many
        return [keys]
    dealt: list[list[Any]] = [[] for _ in range(partitions)]
    for key in keys:
        dealt[partition_of(key, partitions)].append(key)
    return dealt


def in_order(keys: Iterable[Any]) -> list[Any]:
    """Sort keys.

    Raises:
        KeyRefused: they cannot be compared with one another.
    """
    try:
        return sorted(keys)
    except TypeError as error:
        raise KeyRefused("the keys of a run are sorted, and these cannot be compared: %s" % error) from error


_PLAIN = frozenset((str, bytes, int, bool, type(None)))
