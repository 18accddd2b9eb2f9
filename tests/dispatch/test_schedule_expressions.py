"""Requirements and rank in the schedule: who may run what, who is offered first, and when that is looked at again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from serai.dispatch.schedule.events import Advertised, Cached, Evicted, Limits, Moved, NodeUp
from serai.sim.case import Case, case

MB = 10**6
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


def test_of_free_nodes_the_best_ranked_is_offered_tasks_that_read_files_first() -> None:
    it = case(Limits(depth=1)).files(*[MB] * 3)
    for name, mips in {"a": 600, "b": 750, "c": 700}.items():
        node(it, name, attributes={"Mips": mips})
    assert it.work(rank="Mips").read((1,), (2,), (3,)).decide() == ["b/0 <- 1", "c/0 <- 2", "a/0 <- 3"]


def test_the_node_chosen_by_rank_is_given_the_task_whose_file_it_has() -> None:
    it = case(Limits(depth=1)).files(MB, MB)
    node(node(it, "a", attributes={"Mips": 1}), "b", attributes={"Mips": 2}).tell(Cached("b", [2]))
    assert it.work(rank="Mips").read((1,), (2,)).decide() == ["b/0 <- 2", "a/0 <- 1"]


def test_the_better_node_that_becomes_free_goes_before_one_that_was_free_longer() -> None:
    it = case(Limits(depth=1, bundle_tasks=1)).files(*[MB] * 4)
    for name, mips in {"a": 600, "b": 750}.items():
        node(it, name, attributes={"Mips": mips})
    it.work(rank="Mips").read((1,), (2,)).decide()
    it.ends("a/0").decide()
    assert it.ends("b/0").read((3,)).decide() == ["1 done", "b/0 <- 3"]


def test_nodes_near_the_store_that_is_wanted_are_offered_tasks_that_read_files_first() -> None:
    it = case(Limits(depth=1)).files(*[MB] * 4)
    for number in range(6):
        node(it, f"n{number}", nearest_storage="s" if number % 2 else "t")
    it.tell(Advertised({"s": DATA, "t": {"Name": "t"}}))
    it.work(rank='TARGET.NearestStorage.Name == "s" ? 10 : 0').read((1,), (2,), (3,), (4,))
    assert it.decide() == ["n1/0 <- 1", "n3/0 <- 2", "n5/0 <- 3", "n0/0 <- 4"]


def test_nodes_that_are_wanted_most_and_decline_keep_nobody_from_the_tasks() -> None:
    """The file comes to the best-ranked nodes slowly, and to the one that nobody prefers quickly."""
    it = case(Limits(depth=1)).files(100 * MB, 100 * MB)
    for number in range(50):
        node(it, f"n{number:02}", attributes={"Mips": 1000 - number})
    for number in range(50):
        rate = 1e9 if number == 49 else 1e3
        it.tell(Moved(f"n{number:02}", 1, "", MB, MB / rate)).tell(Evicted(f"n{number:02}", [1]))
    it.after(1.0).work(rank="Mips").read((1,)).decide()
    it.ends("n49/0").decide()  # all have been asked, and nothing is new about any of them
    it.read((2,))
    for _ in range(3):  # few are asked at once, all of them soon
        it.after(0.2).schedule.decide(it.now)
    assert it.schedule.nodes["n49"].lanes[0]
