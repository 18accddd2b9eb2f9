"""The size of a bundle."""

from __future__ import annotations

import pytest

from serai.dispatch.schedule.bundles import Estimate, bundle_size


def size(estimate: Estimate, queued: int = 100_000, lanes: int = 2) -> int:
    return bundle_size(estimate, queued, lanes, target_s=0.1, most=1000)


def test_one_task_while_nothing_is_known() -> None:
    assert size(Estimate()) == 1


@pytest.mark.parametrize(("mean_s", "expected"), [(0.0, 1000), (0.001, 100), (0.03, 3), (0.2, 1), (3600.0, 1)])
def test_long_enough_to_hide_a_message(mean_s: float, expected: int) -> None:
    assert size(Estimate(mean_s, seen=10_000)) == expected


def test_trust_doubles_with_what_was_seen() -> None:
    assert [size(Estimate(0.0001, seen), lanes=1) for seen in (1, 2, 10, 400, 10_000)] == [2, 4, 20, 800, 1000]


def test_every_lane_has_its_share() -> None:
    estimate = Estimate(0.0001, seen=10_000)
    assert size(estimate, queued=100, lanes=10) == 5
    assert size(estimate, queued=1, lanes=10) == 1
    assert size(estimate, queued=0, lanes=0) == 1


def test_late_tasks_weigh_more() -> None:
    estimate = Estimate()
    estimate.learn(1.0, 10)
    assert estimate.mean_s == pytest.approx(0.1)
    for _ in range(200):
        estimate.learn(10.0, 10)
    assert estimate.mean_s == pytest.approx(1.0, rel=0.2)
    estimate.learn(0.0, 0)
    assert estimate.seen == 2010
