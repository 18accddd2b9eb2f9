"""When a host's signs of life have stopped."""

from __future__ import annotations

from serai.apps.workers.stewards import Pulse


def after(*times: float) -> Pulse:
    it = Pulse()
    for at in times:
        it.beat(at)
    return it


def test_nothing_has_stopped_that_has_not_begun() -> None:
    assert not Pulse().stopped(1000.0)


def test_on_a_good_way_five_seconds_are_enough() -> None:
    it = after(*(float(second) for second in range(10)))
    assert not it.stopped(13.9)
    assert it.stopped(14.1)


def test_where_signs_come_late_more_time_is_given_and_no_more_than_a_minute() -> None:
    it = after(0.0, 1.0, 6.0)
    assert not it.stopped(22.9)
    assert it.stopped(23.1), "it was 4 s late"
    assert not after(0.0, 100.0).stopped(159.9)
    assert after(0.0, 100.0).stopped(160.1)


def test_what_was_late_once_is_forgotten() -> None:
    it = after(0.0, 6.0, *(6.0 + second for second in range(1, 150)))
    assert it.stopped(155.0 + 5.1)
