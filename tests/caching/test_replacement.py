"""Which files leave a full cache."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.caching.replacement import FIFO, KINDS, LFU, LRU, RANDOM, Entry, Replacement

ORDERS = {
    LRU: lambda one: (one.used, one.came, one.key),
    LFU: lambda one: (one.uses, one.used, one.came, one.key),
    FIFO: lambda one: (one.came, one.key),
}


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a choice that can be repeated


def victims(kind: str, entries: list[Entry], need: int, seed: int = 0, pinned: frozenset[Any] = frozenset()) -> Any:
    rule = Replacement(kind, seeded(seed))
    for one in entries:
        rule.note(one)
    return rule.victims(need, pinned.__contains__)


THREE = [
    Entry("a", 10, came=1.0, used=9.0, uses=2),
    Entry("b", 10, came=2.0, used=5.0, uses=7),
    Entry("c", 10, came=3.0, used=7.0, uses=1),
]


@pytest.mark.parametrize(("kind", "first"), [(LRU, "b"), (LFU, "c"), (FIFO, "a")])
def test_each_rule_has_its_first(kind: str, first: str) -> None:
    assert victims(kind, THREE, 1) == [first]


def test_of_files_used_as_often_the_one_not_used_for_longest_leaves() -> None:
    assert victims(LFU, [Entry("a", 1, 1.0, 4.0, 3), Entry("b", 1, 2.0, 3.0, 3)], 1) == ["b"]


def test_random_is_the_seeds() -> None:
    choices = [victims(RANDOM, THREE, 15, seed) for seed in range(20)]
    assert choices == [victims(RANDOM, THREE, 15, seed) for seed in range(20)]
    assert {tuple(choice) for choice in choices} > {("a", "b")}


def test_random_spares_nobody_for_having_been_spared_before() -> None:
    """What stayed when others left is as likely to be next as what came since."""
    rule = Replacement(RANDOM, seeded(7))
    ages = []
    for now in range(4000):
        rule.note(Entry(now, 1, float(now), float(now)))
        if now >= 20:
            for gone in rule.victims(1, lambda _key: False) or ():
                rule.forget(gone)
                ages.append(now - gone)
    assert 17 < sum(ages) / len(ages) < 23
    assert rule.held_bytes == 20


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="'mru' is no rule of replacement"):
        Replacement("mru", seeded(0))


happenings = st.lists(
    st.one_of(
        st.builds(
            Entry,
            key=st.integers(0, 30),
            size=st.integers(0, 50),
            came=st.integers(0, 9).map(float),
            used=st.integers(0, 9).map(float),
            uses=st.integers(1, 4),
        ),
        st.integers(0, 30),  # a key that is forgotten
        st.tuples(st.integers(-5, 300), st.frozensets(st.integers(0, 30))),  # need, and what is in use
    ),
    max_size=120,
)


@given(happenings, st.sampled_from(KINDS), st.integers(0, 99))
def test_what_leaves_is_what_sorting_all_that_is_there_gives(happenings: list[Any], kind: str, seed: int) -> None:
    rule = Replacement(kind, seeded(seed))
    there: dict[int, Entry] = {}
    for one in happenings:
        if isinstance(one, Entry):
            there[one.key] = one
            rule.note(one)
        elif isinstance(one, int):
            there.pop(one, None)
            rule.forget(one)
        else:
            need, pinned = one
            leave = rule.victims(need, pinned.__contains__)
            free = {key: entry.size for key, entry in there.items() if key not in pinned}
            if leave is None:
                assert sum(free.values()) < need
                continue
            assert len(set(leave)) == len(leave)
            assert sum(free[key] for key in leave) >= need
            assert not leave or sum(free[key] for key in leave[:-1]) < need
            if kind != RANDOM:
                order = sorted((there[key] for key in free), key=ORDERS[kind])
                assert leave == [entry.key for entry in order[: len(leave)]]
            for key in leave[::2]:
                rule.forget(there.pop(key).key)
    assert rule.held_bytes == sum(entry.size for entry in there.values())


def test_a_choice_costs_by_what_leaves_and_not_by_what_is_there() -> None:
    for kind in KINDS:
        rule = Replacement(kind, seeded(0))
        asked: list[int] = []

        def is_pinned(key: int, asked: list[int] = asked) -> bool:
            asked.append(key)
            return False

        for now in range(20_000):
            rule.note(Entry(now, 1, float(now), float(now)))
        for _ in range(50):
            for gone in rule.victims(2, is_pinned) or ():
                rule.forget(gone)
        assert len(asked) == 100
