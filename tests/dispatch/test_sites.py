"""The score of a site."""

from __future__ import annotations

from serai.dispatch.schedule.sites import HIGH, LOW, Score


def test_trust_grows_with_success_and_shrinks_with_faults() -> None:
    score = Score()
    assert score.allowed() == 6
    score.success(10)
    assert score.allowed() == 10
    score.fault(0.0)
    assert score.allowed() == 8


def test_it_stays_within_its_bounds() -> None:
    score = Score()
    score.success(10**6)
    assert (score.value, score.allowed()) == (HIGH, 402)
    for _ in range(5000):
        score.fault(0.0)
    assert (score.value, score.allowed()) == (LOW, 2)


def test_a_site_that_fails_again_and_again_waits_longer_and_longer() -> None:
    score, waits = Score(), []
    for _ in range(8):
        score.closed_until = 0.0
        score.fault(0.0)
        waits.append(round(score.closed_until, 6))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not score.is_open(59.9)
    assert score.is_open(60.0)


def test_a_success_wipes_the_balance() -> None:
    score = Score()
    for _ in range(5):
        score.fault(0.0)
    score.success()
    score.closed_until = 0.0
    score.fault(100.0)
    assert score.closed_until == 101.0


def test_a_later_fault_never_opens_a_site_earlier() -> None:
    score = Score()
    for _ in range(5):
        score.fault(10.0)
    score.success()
    score.fault(10.0)
    assert score.closed_until == 26.0
