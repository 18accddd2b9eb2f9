"""Splits: every byte of every input once, in order, and enough of them for every worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serai.apps.mapreduce.plan import (
    MOST_SPLITS,
    SMALLEST_BYTES,
    TARGET_BYTES,
    Input,
    Kept,
    Split,
    compression_of,
    partitions_for,
    split_bytes,
    splits_of,
)

sizes = st.one_of(st.just(0), st.integers(1, 1000), st.integers(1, 1 << 40))


@given(st.lists(sizes, max_size=20), st.integers(1, 500))
def test_every_byte_is_in_one_split(each: list[int], workers: int) -> None:
    inputs = [Input(f"f{number}", size) for number, size in enumerate(each)]
    splits = splits_of(inputs, workers)
    for number, size in enumerate(each):
        of_it = [split for split in splits if split.input == number]
        assert [split.start for split in of_it[1:]] == [split.stop for split in of_it[:-1]]
        if size:
            assert of_it[0].start == 0
            assert of_it[-1].stop == size
            assert all(split.stop is not None and split.stop > split.start for split in of_it)
        else:
            assert not of_it
    assert [split.input for split in splits] == sorted(split.input for split in splits)
    assert len(splits) <= MOST_SPLITS + len(each)


@given(st.integers(0, 1 << 45), st.integers(1, 1000))
def test_splits_are_neither_too_small_nor_too_large(total: int, workers: int) -> None:
    size = split_bytes(total, workers)
    assert size >= SMALLEST_BYTES
    assert size <= TARGET_BYTES or -(-total // size) <= MOST_SPLITS


def test_each_worker_has_three_splits_where_there_is_enough() -> None:
    inputs = [Input("a", 100_000_000)]
    assert 30 <= len(splits_of(inputs, 10)) <= 31
    assert len(splits_of(inputs, 1)) == 3
    assert len(splits_of([Input("a", 10_000_000_000)], 2)) == 150


def test_what_is_compressed_or_of_unknown_size_is_one_split() -> None:
    inputs = [Input("a.gz", 1 << 30, compression="gzip"), Input("b", None), Input("c.gz", 0, compression="gzip")]
    assert [(split.input, split.start, split.stop) for split in splits_of(inputs, 4)] == [(0, 0, None), (1, 0, None)]


def test_names_tell_compression() -> None:
    names = ("a.gz", "a.GZ", "a.bz2", "a.xz", "a.zst", "a.txt", "gz")
    assert [compression_of(name) for name in names] == ["gzip", "gzip", "bz2", "xz", "zstd", None, None]


def test_as_many_partitions_as_workers_unless_asked() -> None:
    assert [partitions_for(None, 5), partitions_for(9, 5), partitions_for(None, 5000)] == [5, 9, 256]


def test_of_what_was_changed_just_now_nothing_is_remembered() -> None:
    """It may be changed again within the same second, to as many bytes: nobody would see that."""
    kept, split = Kept(), Split(0, 0, 10)
    fresh = Input("/texts/1", 10, mtime=1000, inode=7)
    kept.note(fresh, split, "d" * 64, "node", 1000.9)
    assert kept.find(fresh, split) is None
    kept.note(fresh, split, "d" * 64, "node", 1002.0)
    assert kept.find(fresh, split) == ("d" * 64, "node")
