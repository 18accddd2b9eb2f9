"""The same file from several sources, one after the other."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from serai.travel.reading.sources import FirstOf, Source, Stat

if TYPE_CHECKING:
    from collections.abc import Iterator


class Breaking(Source):
    """Gives some bytes of a file, and then an error."""

    def __init__(self, data: bytes, gives: int, number: int) -> None:
        self._data, self._gives, self._number = data, gives, number

    def stat(self, path: str) -> Stat:
        return Stat("file", len(self._data), 0, 0o444, "1")

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        end = min(start + length, self._gives)
        if start < end:
            yield self._data[start:end]
        if end < start + length:
            raise OSError(self._number, "it breaks off")


def first(number: int, gives: int = 3, digest: str = "") -> FirstOf:
    found = FirstOf([(Breaking(b"old old", gives, number), "/"), (Breaking(b"new new", 7, 0), "/")], digest)
    found.identity = "somewhere"
    return found


def test_the_next_source_goes_on_where_one_breaks_off() -> None:
    assert b"".join(first(errno.EIO).read("/", "1", 0, 7)) == b"old new"


def test_two_versions_are_never_mixed() -> None:
    source = first(errno.ESTALE)
    assert b"".join(source.read("/", "1", 0, 2)) == b"ol"
    with pytest.raises(OSError, match="breaks off") as caught:
        b"".join(source.read("/", "1", 2, 5))
    assert caught.value.errno == errno.ESTALE


def test_what_has_changed_before_anything_was_read_is_read_elsewhere() -> None:
    assert b"".join(first(errno.ESTALE, gives=0).read("/", "1", 0, 7)) == b"new new"


def test_by_its_digest_a_file_is_the_same_everywhere() -> None:
    assert b"".join(first(errno.ESTALE, digest="ab" * 32).read("/", "1", 0, 7)) == b"old new"
