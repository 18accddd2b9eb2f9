"""Requirements and rank in the schedule: who may run what, who is offered first, and when that is looked at again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from serai.dispatch.schedule.events import Advertised, NodeUp
from serai.sim.case import Case, case

DATA = {"Name": "s", "HasCMSData": True}


def node(it: Case, name: str, *, slots: int = 1, **ad: Any) -> Case:
    """A node checks in whose ad says more."""
    facts = {"cores": 4, "memory_bytes": 4 << 30, "python": (3, 12), "software": {}, **ad}
    return it.tell(NodeUp(name, name, slots, 4 << 30, facts))


def test_a_node_that_the_requirements_reject_gets_nothing_and_it_is_said_why() -> None:
    it = case()
    node(node(it, "a", attributes={"Mips": 600}), "b", attributes={"Mips": 750})
    assert it.work(requirements="Mips > 700").tasks(2).decide() == ["b/0 <- 1", "b/0 <- 2"]
    assert it.schedule.works[1].unfit == {"a": "it requires Mips > 700, and Mips is 600"}


def test_the_node_of_the_highest_rank_is_offered_first() -> None:
    it = case()
    for name, mips in {"a": 600, "b": 750, "c": 700}.items():
        node(it, name, attributes={"Mips": mips})
    assert it.work(rank="Mips").tasks(3).decide() == ["b/0 <- 1", "c/0 <- 2", "a/0 <- 3"]


def test_works_that_rank_and_works_that_do_not_share_the_nodes() -> None:
    it = case()
    for name, mips in {"a": 600, "b": 750}.items():
        node(it, name, slots=2, attributes={"Mips": mips})
    it.work(rank="Mips").tasks(3).work().tasks(3)
    it.decide()
    first = [bundles[0].work.id for name in "ab" for bundles in it.schedule.nodes[name].lanes]
    assert set(first) == {1, 2}, "neither keeps the other from its turn"


def test_a_node_takes_only_the_tasks_it_wants() -> None:
    it = node(case(), "small", requirements="RequestMemory < 100")
    it.work(memory_bytes=1 << 30).tasks(1).work().tasks(1)
    assert it.decide() == ["small/0 <- 2"]
    assert "the node requires of its tasks RequestMemory < 100" in it.schedule.works[1].unfit["small"]


def test_software_of_the_requirements_is_asked_for() -> None:
    it = case().node("a").work(requirements='HasSoftware("blast")').tasks(1)
    assert it.decide() == ["a has blast blastn?"]


def test_tasks_wait_for_the_ad_of_a_store_and_go_when_it_comes() -> None:
    it = node(case(), "a", nearest_storage="s")
    it.work(requirements="TARGET.NearestStorage.HasCMSData").tasks(1)
    assert it.decide() == []
    assert it.schedule.works[1].unfit == {}, "that may change"
    assert it.tell(Advertised({"s": DATA})).decide() == ["a/0 <- 1"]


def test_a_store_that_does_not_come_is_a_reason_after_a_while() -> None:
    it = node(case(), "a", nearest_storage="s").work(requirements="TARGET.NearestStorage.HasCMSData").tasks(1)
    it.decide()
    assert it.schedule.wake_at(it.now) <= 180.0
    assert it.after(180.0).decide() == []
    assert it.schedule.works[1].unfit.keys() == {"a"}


def test_tasks_go_when_their_hour_comes() -> None:
    it = node(case(), "a").work(requirements="TARGET.ClockHour >= 1").tasks(1)
    it.now = datetime(2026, 11, 22, 0, 59, 30, tzinfo=UTC).timestamp()
    assert it.after(0.0).decide() == []
    assert it.schedule.works[1].unfit == {}
    assert it.schedule.wake_at(it.now) == it.now + 30.0
    assert it.after(30.0).decide() == ["a/0 <- 1"]
    assert it.schedule.wake_at(it.now) > it.now, "it does not spin"


def test_the_store_found_nearest_to_a_node_is_matched_with() -> None:
    it = node(case(), "a").work(requirements="TARGET.NearestStorage.HasCMSData").tasks(1)
    assert it.decide() == []
    assert it.tell(Advertised({"s": DATA}, {"a": "s"})).decide() == ["a/0 <- 1"]
    assert it.down("a").tell(Advertised({"s": None})).decide() is not None
