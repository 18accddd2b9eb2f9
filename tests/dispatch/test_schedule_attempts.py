"""Copies, calling back, losing: a task ends once, and is in one place."""

from __future__ import annotations

from serai.describe.task import Cause
from serai.dispatch.schedule.events import Limits
from serai.sim.case import Case, case

QUICK = Limits(replicate_after_s=2.0)


def two_attempts() -> Case:
    """Task 2 waits behind task 1 on a, and a copy of it is out on b."""
    it = case(QUICK).node("a").work().tasks(2)
    assert it.decide() == ["a/0 <- 1", "a/0 <- 2"]
    it.node("b").runs("a/0", 1).after(3)
    assert it.decide()[0] == "b/0 <- 2"
    return it


def test_a_copy_that_starts_ends_the_waiting_attempt() -> None:
    assert two_attempts().runs("b/0", 2).decide() == ["a/0 kill 2"]


def test_a_copy_that_ends_first_ends_the_waiting_attempt() -> None:
    assert two_attempts().ends("b/0").decide() == ["a/0 kill 2", "2 done"]


def test_a_heartbeat_of_an_attempt_that_was_ended_ends_no_other() -> None:
    it = two_attempts().runs("b/0", 2)
    assert it.decide() == ["a/0 kill 2"]
    it.down("b").node("c").decide()
    it.node("d").after(3)
    assert "d/0 <- 2" in it.decide()
    assert it.runs("a/0", 2).decide() == []  # the Kill had not arrived when a started the task
    assert it.ends("c/0").decide()[0] == "d/0 kill 2"


def test_an_attempt_that_was_ended_and_is_done_nevertheless_ends_the_other() -> None:
    it = two_attempts()
    waiting = it.bundle("a/0", 1)
    it.runs("b/0", 2).decide()
    assert it.report(waiting, [2], last=True).decide() == ["b/0 kill 2", "2 done"]


def test_a_copy_that_waits_is_forgotten_when_the_task_starts() -> None:
    it = case(QUICK).node("a").work().tasks(2)
    it.decide()
    it.node("b", site="b").runs("a/0", 1)
    it.schedule.sites["b"].score.closed_until = 10.0
    assert it.after(3).decide() == []
    assert it.schedule.statistics().queued == 1
    it.ends("a/0").runs("a/0", 2).decide()
    assert it.schedule.statistics().queued == 0
    assert it.after(20).decide() == []


def test_a_copy_is_not_queued_again_when_its_task_is_lost() -> None:
    it = case(QUICK).node("a").work().tasks(2)
    it.decide()
    it.node("b", site="b").runs("a/0", 1)
    it.schedule.sites["b"].score.closed_until = 10.0
    it.after(3).decide()
    assert it.down("a").decide() == []
    assert it.after(20).decide() == ["b/0 <- 1", "b/0 <- 2"]


def test_what_was_given_back_by_an_ended_attempt_is_not_queued_again() -> None:
    it = two_attempts()
    waiting = it.bundle("a/0", 1)
    it.runs("b/0", 2).decide()
    it.down("b").report(waiting, [], returned=(2,))
    assert it.decide() == []
    assert it.schedule.statistics().queued == 1


def test_an_idle_lane_calls_back_what_another_has_not_started() -> None:
    it = case().node("a").work().tasks(2)
    it.decide()
    it.node("b")
    it.now = 0.2
    assert it.decide() == ["a/0 recall 2"]
    assert it.report(it.bundle("a/0", 1), [], returned=(2,)).decide() == ["b/0 <- 2"]


def test_a_late_report_is_thrown_away() -> None:
    it = case().node("a").work().tasks(1)
    it.decide()
    given_up = it.bundle("a/0")
    it.down("a").node("b").decide()
    assert it.report(given_up, [1], last=True).decide() == ["1 late"]
    assert it.ends("b/0").decide() == ["1 done"]


def test_a_bundle_that_ends_without_a_task_gives_it_back() -> None:
    it = case().node("a").work().tasks(1)
    it.decide()
    assert it.report(it.bundle("a/0"), [], last=True).decide() == ["a/0 <- 1"]


def test_a_failure_beside_a_living_attempt_decides_nothing() -> None:
    it = two_attempts()
    assert it.ends("b/0", cause=Cause.EXIT).decide()[0] == "2 again"
    assert it.ends("a/0", 1).ends("a/0", 2).decide() == ["1 done", "2 done"]


def test_cancelled_tasks_are_ended_wherever_they_are() -> None:
    from serai.dispatch.schedule.events import Cancelled  # noqa: PLC0415 - the only case that needs it

    it = case().node("a").work().tasks(4)
    it.decide()
    assert it.tell(Cancelled([1, 2, 4, 4, 99])).decide() == ["a/0 kill 1", "a/0 kill 2", "1 2 4 stopped"]
    assert it.schedule.statistics().queued == 1
    assert it.ends("a/0", cause=Cause.CANCELLED).decide() == ["1 late", "a/0 <- 3"]
