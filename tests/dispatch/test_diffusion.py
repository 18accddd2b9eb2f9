"""Which waiting task a free node is given, by what nodes have in their caches."""

from __future__ import annotations

import pytest

from serai.dispatch.schedule.files.diffusion import Queue
from serai.dispatch.schedule.files.groups import Prices
from serai.match.movement import Policy


def queue(policy: Policy, *, slots: int = 2, prices: Prices | None = None) -> Queue:
    one = Queue(policy, slots=slots, prices=prices)
    one.add_node("a")
    one.add_node("b", [7])
    return one


def taken(one: Queue, node: str) -> tuple[int, bool] | None:
    placed = one.take(node)
    return None if placed is None else (placed.task, placed.held)


def test_the_oldest_task_first() -> None:
    one = queue(Policy.FIRST_AVAILABLE)
    one.add(1, 7)
    one.add(2, 8)
    assert [taken(one, "a"), taken(one, "b"), taken(one, "b")] == [(1, False), (2, False), None]


def test_waiting_for_the_holder() -> None:
    one = queue(Policy.MAX_CACHE_HIT)
    one.add(1, 7)
    assert taken(one, "a") is None
    assert taken(one, "b") == (1, True)
    one.add(2, 7)
    one.drop_node("b")
    assert taken(one, "a") == (2, False)


@pytest.mark.parametrize(("fetch_s", "expected"), [(100.0, None), (0.001, (1, False))])
def test_a_copy_is_fetched_where_that_is_cheaper_than_to_wait(
    fetch_s: float, expected: tuple[int, bool] | None
) -> None:
    one = queue(Policy.AUTO, slots=0, prices=Prices(fetch_s=fetch_s, task_s=1.0))
    one.add(1, 7)
    assert taken(one, "a") == expected


def test_an_evicted_file_is_held_no_longer() -> None:
    one = queue(Policy.MAX_CACHE_HIT)
    one.add(1, 7)
    one.evicted("b", 7)
    assert one.holders(7) == frozenset()
    assert taken(one, "a") == (1, False)
    one.cached("a", 7)
    one.add(2, 7)
    assert one.wants(7) == ["a"]
