"""What decides how much is fetched and kept: pure, or on one directory."""

from __future__ import annotations

import json
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.reading.ahead import FIRST, MOST, Habits
from serai.travel.reading.blocks import BLOCK, SEGMENT, Blocks, key_of, victims
from serai.travel.reading.careful import Careful
from serai.travel.reading.contents import Content, Fetcher, Spans, Use
from serai.travel.reading.patience import Patience
from serai.travel.reading.record import MOST_RANGES, Record, joined
from serai.travel.reading.sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = 300_000_000
PAGE = 1 << 17


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40))))
def test_spans_are_a_union(parts: list[tuple[int, int]]) -> None:
    spans, truth = Spans(), set()
    for start, length in parts:
        spans.add(start, start + length)
        truth |= set(range(start, start + length))
    assert {at for start, stop in spans.spans for at in range(start, stop)} == truth
    assert spans.total() == len(truth)
    assert all(one[1] < two[0] for one, two in zip(spans.spans, spans.spans[1:], strict=False))


@given(st.lists(st.integers(1, 50), max_size=3000, min_size=1))
def test_a_record_has_no_end_of_ranges_and_loses_none(gaps: list[int]) -> None:
    spans, at = [], 0
    for gap in gaps:
        spans.append((at + gap, at + gap + 2))
        at += gap + 2
    found = joined(spans)
    assert len(found) <= MOST_RANGES
    assert (found[0][0], found[-1][1]) == (spans[0][0], spans[-1][1])
    assert all(any(a <= start and stop <= b for a, b in found) for start, stop in spans[:: max(1, len(spans) // 50)])


def moved_by(starts: list[int], length: int, whole: int = WHOLE) -> int:
    """The bytes that a program's reads and the reading ahead for them ask for."""
    habits, asked = Habits(), Spans()
    for start in starts:
        for at in range(start, min(start + length, whole), PAGE):
            stop = min(at + PAGE, start + length, whole)
            asked.add(at, stop)
            asked.add(*habits.ahead(at, stop - at, whole))
    return asked.total()


@pytest.mark.parametrize("length", [1, 4096, 1_000_000, 5_000_000])
def test_parts_are_read_ahead_hardly_at_all(length: int) -> None:
    source = random.Random(length)  # noqa: S311 - the same each time
    starts = [source.randrange(WHOLE - length) for _ in range(40)]
    read = sum(min(length, PAGE) if length < PAGE else length for _ in starts)
    assert moved_by(starts, length) <= 1.1 * read + 3 * FIRST


def test_a_whole_file_is_asked_for_in_large_steps_and_never_twice() -> None:
    habits, asked, steps = Habits(), 0, 0
    for at in range(0, WHOLE, PAGE):
        start, stop = habits.ahead(at, PAGE, WHOLE)
        assert start >= asked or start == stop
        assert stop - at <= MOST + 2 * PAGE
        if start < stop:
            asked, steps = stop, steps + 1
    assert asked == WHOLE
    assert steps < 500


def test_victims_are_those_used_longest_ago() -> None:
    found = [(float(at + 1), 10, str(at)) for at in range(10)]
    assert victims(found, 100, 1000, 50) == []
    assert [path for _, _, path in victims(found, 80, 1000, 50)] == ["0", "1", "2"]
    assert [path for _, _, path in victims(found, 100, 30, 50)] == ["0", "1"]
    assert [path for _, _, path in victims([(0.0, 5, "old"), *found[1:]], 100, 1000, 50)] == ["old"]


def test_two_programs_share_their_blocks(tmp_path: Path) -> None:
    one, two = Blocks(str(tmp_path / "b"), 1 << 30), Blocks(str(tmp_path / "b"), 1 << 30)
    key = key_of("s", "v", 3 * SEGMENT)
    source = random.Random(5)  # noqa: S311 - the same each time
    truth = [source.randbytes(BLOCK) for _ in range(300)]

    def put(who: Blocks, order: list[int]) -> None:
        for at in order:
            who.put(key, at, truth[at])

    threads = [threading.Thread(target=put, args=(who, source.sample(range(300), 300))) for who in (one, two, one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = Blocks(str(tmp_path / "b"), 1 << 30)
    for at in range(300):
        assert bytes(third.get(key, at, BLOCK) or b"") == truth[at]
    assert third.get(key_of("s", "w", 3 * SEGMENT), 0, BLOCK) is None
    for who in (one, two, third):
        who.close()


def test_blocks_of_before_a_restart_of_the_machine_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b/another-boot/ab").mkdir(parents=True)
    (tmp_path / "b/another-boot/ab/old.0").write_bytes(b"x" * 100)
    Blocks(str(tmp_path / "b"), 1 << 30).close()
    assert not (tmp_path / "b/another-boot/ab/old.0").exists()


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b").chmod(0o777)
    with pytest.raises(PermissionError):
        Blocks(str(tmp_path / "b"), 1 << 30)
    (tmp_path / "l").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        Blocks(str(tmp_path / "l"), 1 << 30)


class _Source(Source):
    """A source that counts what it is asked for."""

    identity = "test"

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, Spans()

    def read(self, path: str, stamp: str, start: int, length: int) -> Iterator[bytes]:
        self.asked.add(start, start + length)
        yield self.data[start : start + length]


class _Overtaken(Content):
    """A file of which every block comes, for another reader, right after it was missed for the first time."""

    missed: set[int]

    def _find(self, found: dict[int, bytes | memoryview], block: int) -> bool:
        there = super()._find(found, block)
        if not there and block not in self.missed:
            self.missed.add(block)
            self.keep(block, self._careful.source.data[block * BLOCK : (block + 1) * BLOCK])  # type: ignore[attr-defined]
        return there


def test_a_block_that_comes_right_after_it_was_missed_is_not_asked_for(tmp_path: Path) -> None:
    source = _Source(random.Random(9).randbytes(10 * BLOCK))  # noqa: S311 - the same each time
    blocks = Blocks(str(tmp_path / "b"), 1 << 30)
    fetcher = Fetcher(blocks, 20.0)
    content = _Overtaken(fetcher, Careful(source), "/a", ("1", len(source.data)), Use())
    content.missed = set()
    assert content.read(0, len(source.data), Patience(20.0), None) == source.data
    assert source.asked.total() == 0
    content.missed = set(range(10))  # nobody brings what is taken away now
    content.key += "x"
    assert content.read(0, len(source.data), Patience(20.0), None) == source.data
    assert source.asked.total() == len(source.data)
    fetcher.close()
    blocks.close()


def test_a_record_is_a_line_for_a_file(tmp_path: Path) -> None:
    record, use = Record(str(tmp_path / "r")), Use()
    record.add("ssh://far/nothing", use)
    use.read.add(0, 10)
    use.moved, use.size = 32, 100
    record.add("ssh://far/ü", use)
    record.close()
    (line,) = (tmp_path / "r").read_text().splitlines()
    assert json.loads(line) == {
        "url": "ssh://far/ü", "size": 100, "read_bytes": 10, "ranges": [[0, 10]], "moved_bytes": 32, "took_s": 0.0,
        "from": "", "missed": {},
    }  # fmt: skip
    assert os.stat(tmp_path / "r").st_mode & 0o077 == 0
