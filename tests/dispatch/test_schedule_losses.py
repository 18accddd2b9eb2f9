"""Tasks that end executors: who is to blame, and who is not."""

from __future__ import annotations

from serai.dispatch.schedule import events as ev
from serai.sim.case import case


def test_a_task_that_ends_three_executors_is_given_up() -> None:
    it = case().node("a").node("b").node("c").work().tasks(1)
    assert it.decide() == ["a/0 <- 1"]
    assert it.down("a").decide() == ["b/0 <- 1"]
    assert it.down("b").decide() == ["c/0 <- 1"]
    assert it.down("c").decide() == ["1 given up"]


def test_every_task_of_a_lost_bundle_travels_alone_for_the_first_may_be_done_already() -> None:
    it = case().node("a").work().tasks(40)
    for _ in range(4):
        it.decide()
        it.ends("a/0", took_s=0.001)
    it.decide()
    lost = list(it.bundle("a/0").left)
    assert len(lost) > 2
    first = it.down("a/0").decide()
    assert first == [f"a/0 <- {lost[-1]}"] or len(first[0].split()) == 3
    assert all(it.schedule.tasks[task].losses == 1 for task in lost)


def test_what_waited_behind_is_not_to_blame() -> None:
    it = case().node("a").work().tasks(2)
    it.decide()
    it.down("a/0")
    assert [it.schedule.tasks[task].losses for task in (1, 2)] == [1, 0]


def test_a_suspect_has_its_last_chance_with_no_other_suspect_on_its_node() -> None:
    it = case().node("a", slots=2).work().tasks(2)
    it.decide()
    it.down("a").node("a", slots=2).after(5)
    it.decide()
    it.down("a").node("a", slots=2).after(5)
    assert len(it.decide()) == 1
    suspect = next(iter(it.schedule.nodes["a"].suspect.left)) if it.schedule.nodes["a"].suspect else 0
    assert it.down("a").node("a").after(10).decide()[0] == f"{suspect} given up"
    assert it.ends("a/0").decide()[0].endswith("done")


def test_of_bundles_that_came_to_the_lane_in_another_order_the_one_that_ran_is_to_blame() -> None:
    it = case().node("a").work().tasks(2)
    it.decide()
    first, second = (bundle.id for bundle in it.schedule.nodes["a"].lanes[0])
    it.tell(ev.LaneDown("a", 0, "it died", blame=True, bundles=[second, first]))
    assert [it.schedule.tasks[task].losses for task in (1, 2)] == [0, 1]
