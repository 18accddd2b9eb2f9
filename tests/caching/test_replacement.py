"""Which files leave a full cache."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.caching.replacement import FIFO, KINDS, LFU, LRU, RANDOM, Entry, Replacement


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a choice that can be repeated


THREE = [
    Entry("a", 10, came=1.0, used=9.0, uses=2),
    Entry("b", 10, came=2.0, used=5.0, uses=7),
    Entry("c", 10, came=3.0, used=7.0, uses=1),
]


@pytest.mark.parametrize(("kind", "first"), [(LRU, "b"), (LFU, "c"), (FIFO, "a")])
def test_each_rule_has_its_first(kind: str, first: str) -> None:
    assert Replacement(kind).victims(THREE, 1, seeded(0)) == [first]


def test_of_files_used_as_often_the_one_not_used_for_longest_leaves() -> None:
    entries = [Entry("a", 1, 1.0, 4.0, 3), Entry("b", 1, 2.0, 3.0, 3)]
    assert Replacement(LFU).victims(entries, 1, seeded(0)) == ["b"]


def test_random_is_the_seeds() -> None:
    rule = Replacement(RANDOM)
    choices = [rule.victims(THREE, 15, seeded(seed)) for seed in range(20)]
    assert choices == [rule.victims(reversed(THREE), 15, seeded(seed)) for seed in range(20)]
    assert {tuple(choice or ()) for choice in choices} > {("a", "b")}


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="'mru' is no rule of replacement"):
        Replacement("mru")


entries_of = st.lists(
    st.builds(
        Entry,
        key=st.integers(0, 1000),
        size=st.integers(0, 50),
        came=st.floats(0, 100),
        used=st.floats(0, 100),
        uses=st.integers(1, 9),
        pinned=st.booleans(),
    ),
    unique_by=lambda entry: entry.key,
)


@given(entries_of, st.integers(-5, 500), st.sampled_from(KINDS), st.integers(0, 99))
def test_no_more_leaves_than_must_and_nothing_in_use(entries: list[Entry], need: int, kind: str, seed: int) -> None:
    leave = Replacement(kind).victims(entries, need, seeded(seed))
    free = {entry.key: entry.size for entry in entries if not entry.pinned}
    if leave is None:
        assert sum(free.values()) < need
        return
    assert len(set(leave)) == len(leave)
    assert sum(free[key] for key in leave) >= need
    assert not leave or sum(free[key] for key in leave[:-1]) < need
