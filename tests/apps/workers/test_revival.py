"""When lost workers are started again: pauses, bounds, and what clears a host."""

from __future__ import annotations

import pytest

from serai.apps.workers.revival import Again, Home, What
from serai.pool.members import Member, Patience


def home(workers: int = 2, **limits: int) -> Home:
    it = Home(Member("lab1"), Again(Patience(1.0, 60.0, 8), **limits))
    if workers:
        it.up(workers)
    return it


def starts(it: Home, until: float, now: float = 0.0) -> list[tuple[float, What]]:
    """What is started until then, looked at four times a second."""
    found = []
    for at in (now + step / 4 for step in range(int((until - now) * 4))):
        what = it.take(at)
        if what is not None:
            assert it.expecting, "until it is started"
            found.append((at, what))
        if what is What.WORKER:
            it.started()
    return found


def test_workers_that_end_together_are_one_fault_and_come_again_one_after_the_other() -> None:
    it = home(10)
    for _ in range(10):
        it.worker_lost("killed", 0.0, 5.0)
    assert not it.left_out
    assert it.member.tries == 1
    assert starts(it, 9.0, 5.0) == [(6.0, What.WORKER), (7.0, What.WORKER), (8.0, What.WORKER)]
    it.did_well(9.0)
    assert len(starts(it, 11.0, 9.0)) == 7, "one of them did some work: all others may come"
    assert not it.expecting


def test_each_end_without_work_makes_the_next_pause_longer_and_there_is_a_last_one() -> None:
    it, now, pauses = home(1), 0.0, []
    while not it.left_out:
        it.worker_lost("killed", now, now)
        again = starts(it, now + 100.0, now)
        if again:
            pauses.append(round(again[0][0] - now))
            now = again[0][0]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert it.outlook(now) == "lab1 is left out after 9 in a row without any work done"
    assert it.member.why == "killed"
    assert not it.expecting


def test_those_that_were_started_again_and_end_are_faults_of_their_own() -> None:
    it = home(2)
    it.worker_lost("killed", 0.0, 5.0)
    it.worker_lost("killed", 0.0, 5.0)
    assert starts(it, 6.25, 5.0) == [(6.0, What.WORKER)]
    it.worker_lost("killed", 6.0, 6.5)
    assert it.member.tries == 2
    assert starts(it, 11.0, 6.5) == [(8.5, What.WORKER), (10.5, What.WORKER)]


def test_ends_that_a_task_may_be_the_reason_of_make_no_pause_longer() -> None:
    it, now = home(1), 0.0
    for _ in range(20):
        it.worker_lost("killed", now, now, excused=True)
        if it.left_out:
            break
        assert starts(it, now + 3.0, now) == [(now + 1.0, What.WORKER)]
        now += 3.0
    assert it.starts == 16, "there is a limit all the same"


def test_work_that_is_done_clears_a_host_but_not_for_ever() -> None:
    it, now, count = home(2, of_host=5), 0.0, 0
    while not it.left_out:
        it.did_well(now)
        it.worker_lost("killed", now, now)
        again = starts(it, now + 5.0, now)
        count += len(again)
        assert not again or again[0][0] - now < 1.3
        now += 5.0
    assert count == 10, "five for each of two workers"
    assert "10. worker" in it.member.why


def test_a_host_that_is_lost_is_reached_anew_as_a_whole() -> None:
    it = home(2)
    it.worker_lost("killed", 0.0, 0.0)
    it.lost("no route", 0.5, transient=True)
    it.lost("no route, said once more", 0.6, transient=True)
    it.worker_lost("its connection", 0.0, 0.6)
    assert starts(it, 20.0) == [(2.5, What.HOST)]
    it.up(2)
    assert not it.expecting
    assert it.starts == 2


@pytest.mark.parametrize(("workers", "tries"), [(0, 3), (2, 9)])
def test_a_host_that_was_never_reached_is_left_out_sooner(workers: int, tries: int) -> None:
    it, now = home(workers), 0.0
    for _ in range(tries - 1):
        it.lost("no route", now, transient=True)
        now += 100.0
        assert it.take(now) is What.HOST
    it.lost("no route", now, transient=True)
    assert it.left_out


def test_what_no_trying_mends_is_not_tried_again() -> None:
    it = home(2)
    it.lost("no credential was accepted", 0.0, transient=False)
    assert it.left_out
    assert it.outlook(0.0) == "lab1 is left out"
    it.did_well(1.0)
    assert starts(it, 10.0) == []
