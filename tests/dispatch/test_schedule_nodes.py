"""Fit, probes, sites and room: where a task may go at all, and where it goes first."""

from __future__ import annotations

from serai.dispatch.schedule.events import Limits, Probed
from serai.sim.case import case


def test_idle_lanes_first_then_each_gets_its_next_bundle() -> None:
    assert case().node("a", slots=2).work().tasks(3).decide() == ["a/0 <- 1", "a/1 <- 2", "a/0 <- 3"]


def test_no_lane_gets_more_than_its_depth() -> None:
    it = case(Limits(depth=3)).node("a").work().tasks(9)
    assert it.decide() == ["a/0 <- 1", "a/0 <- 2"]  # one round fills the idle, the next the thin
    assert it.decide() == ["a/0 <- 3"]
    assert it.decide() == []


def test_a_node_that_does_not_fit_gets_nothing() -> None:
    it = case().node("a").node("old", slots=8, memory_bytes=10).work(cores=2).tasks(1)
    it.work(memory_bytes=11).tasks(1)
    assert it.decide() == ["a/0 <- 2", "old/0 <- 1"]
    assert it.schedule.works[1].unfit.keys() == {"a"}
    assert it.schedule.works[2].unfit.keys() == {"old"}


def test_a_node_is_asked_once_about_programs_and_used_when_it_has_them() -> None:
    it = case().node("a").work(software=("blast",)).tasks(1).work(software=("blast", "gcc"))
    assert it.decide() == ["a has blast?", "a has gcc?"]
    assert it.tell(Probed("a", {"blast": True})).decide() == ["a/0 <- 1"]
    assert it.tell(Probed("a", {"gcc": False})).decide() == []
    assert "gcc" in it.schedule.works[2].unfit["a"]


def test_what_is_known_is_not_asked() -> None:
    assert case().node("a", blast=True).work(software=("blast",)).tasks(1).decide() == ["a/0 <- 1"]


def test_a_probe_that_is_not_answered_is_sent_again() -> None:
    it = case().node("a").work(software=("blast",)).tasks(1)
    assert it.decide() == ["a has blast?"]
    assert it.schedule.wake_at(it.now) == 10.0
    assert it.after(5).decide() == []
    assert it.after(5).decide() == ["a has blast?"]
    assert it.tell(Probed("a", {"blast": True})).decide() == ["a/0 <- 1"]
    assert it.after(20).decide() == []


def test_wide_tasks_get_their_turn_among_small_ones() -> None:
    it = case().node("a", slots=2).work().tasks(20).work(cores=2).tasks(1)
    started = []
    for _ in range(6):
        started += it.decide()
        for lane in ("a/0", "a/1"):
            if it.schedule.nodes["a"].lanes[int(lane[-1])]:
                it.ends(lane, took_s=100)
    assert any(line.endswith("<- 21") for line in started)


def test_one_wide_task_holds_one_node() -> None:
    it = case().node("a", slots=2).node("b", slots=2).work().tasks(30).work(cores=2).tasks(1)
    it.decide()
    for lane in ("a/0", "b/0"):
        it.ends(lane, took_s=100).decide()
    assert sum(node.held_for is not None for node in it.schedule.nodes.values()) <= 1


def test_who_waits_for_memory_lets_those_that_need_none_go_on() -> None:
    it = case().node("a", slots=3, memory_bytes=10).work(memory_bytes=8).tasks(2)
    assert it.decide() == ["a/0 <- 1"]
    assert it.work().tasks(1).decide() == ["a/1 <- 3"]


def test_cores_and_memory_are_given_back() -> None:
    it = case().node("a", slots=3, memory_bytes=10).work(cores=2, memory_bytes=6).tasks(2)
    assert it.decide() == ["a/0 <- 1"]
    assert it.ends("a/0").decide() == ["1 done", "a/2 <- 2"]
    assert it.ends("a/2").decide() == ["2 done"]
    assert it.schedule.statistics().busy == 0
