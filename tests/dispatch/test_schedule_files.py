"""Tasks that read files: where they go, how their files come there, and what is kept of old habits."""

from __future__ import annotations

import pytest

from serai.describe.task import Cause
from serai.dispatch.schedule import events as ev
from serai.match.movement import Access, Policy, Way
from serai.sim.case import Case, case

MB = 10**6


def moves(it: Case) -> dict[str, list[tuple[int, Way, str]]]:
    """Decide, and return the moves of each assignment by its node."""
    return {
        one.node: [(move.file, move.way, move.source) for move in one.moves]
        for one in it.schedule.decide(it.now)
        if isinstance(one, ev.Assign)
    }


def two(policy: Policy = Policy.AUTO, *, size: int = 10 * MB, busy_share: float = 0.9) -> Case:
    """Two nodes of one lane; file 1 is on b."""
    it = case(ev.Limits(policy=policy, depth=1, bundle_tasks=1, busy_share=busy_share)).files(size).node("a").node("b")
    return it.tell(ev.Cached("b", [1])).work()


def test_a_task_goes_to_its_file() -> None:
    assert two().read((1,)).decide() == ["b/0 <- 1"]


def test_slow_data_is_waited_for_and_quick_data_is_fetched() -> None:
    for rate, expected in ((1e3, ["b/0 <- 2"]), (1e9, ["a/0 <- 2"])):
        it = two().tell(ev.Moved("b", 1, "", 10 * MB, 10 * MB / rate)).read((1,))
        it.decide()
        it.read((1,)).after(1.0)
        first = it.decide()
        assert first == ([] if rate < 1e6 else expected)
        if rate < 1e6:
            assert it.ends("b/0", took_s=1.0).decide() == ["1 done", "b/0 <- 2"]


@pytest.mark.parametrize("policy", [Policy.MAX_CACHE_HIT, Policy.GOOD_CACHE_COMPUTE])
def test_named_policies_wait_for_the_holder(policy: Policy) -> None:
    limits = ev.Limits(policy=policy, depth=1, bundle_tasks=1, busy_share=0.5, replicas=1)
    it = case(limits).files(MB).node("a").node("b").tell(ev.Cached("b", [1])).work().read((1,), (1,))
    assert it.decide() == ["b/0 <- 1"]
    assert it.ends("b/0").decide() == ["1 done", "b/0 <- 2"]


def test_the_oldest_task_goes_anywhere_under_first_available() -> None:
    it = two(Policy.FIRST_AVAILABLE).read((1,), (1,))
    assert it.decide() == ["b/0 <- 1", "a/0 <- 2"] or it.schedule.holdings.holders(1) == {"a", "b"}
    assert {source for move in it.schedule.holdings.there("a").values() if move for source in [move.source]} == {""}


def test_the_best_holder_among_the_free() -> None:
    it = case(ev.Limits(policy=Policy.MAX_COMPUTE_UTIL, depth=1)).files(MB, MB).node("a").node("b").work()
    it.tell(ev.Cached("a", [2])).tell(ev.Cached("b", [1])).read((1,), (2,))
    assert sorted(it.decide()) == ["a/0 <- 2", "b/0 <- 1"]


def test_of_several_files_most_bytes_decide() -> None:
    it = case(ev.Limits(depth=1)).files(100 * MB, MB).node("a").node("b").work()
    it.tell(ev.Cached("a", [2])).tell(ev.Cached("b", [1])).read((1, 2))
    assert moves(it) == {"b": [(1, Way.HERE, ""), (2, Way.STAGE, "a")]}


def test_one_transfer_for_two_tasks_of_a_node() -> None:
    it = case(ev.Limits(bundle_tasks=1)).files(MB).node("a", slots=2).work().read((1,), (1,))
    assigned = [one for one in it.schedule.decide(0.0) if isinstance(one, ev.Assign)]
    assert [one.moves[0].way for one in assigned] == [Way.STAGE, Way.STAGE]
    assert [one.moves[0].price_s > 0 for one in assigned] == [True, False]
    assert it.schedule.holdings.fetching_from("") == 1
    it.tell(ev.Moved("a", 1, "", MB, 0.1))
    assert it.schedule.holdings.fetching_from("") == 0


def test_no_more_transfers_from_a_source_than_it_may_serve() -> None:
    it = case(ev.Limits(transfers=2, depth=1)).files(MB, MB, MB).work()
    for name in "abc":
        it.node(name)
    it.read((1,), (2,), (3,))
    node, (move,) = next(iter(moves(it).items()))
    assert it.schedule.holdings.fetching_from("") == 2
    assert it.after(1).decide() == []
    it.tell(ev.Moved(node, move[0], "", MB, 0.1))
    assert len(it.after(1).decide()) == 1


def test_what_never_came_is_held_by_nobody() -> None:
    it = case().files(MB).node("a").work().read((1,))
    it.decide()
    assert it.schedule.holdings.holders(1) == {"a"}
    it.tell(ev.Cancelled([1])).decide()
    bundle = it.bundle("a/0")
    it.report(bundle, [1], last=True).decide()
    assert it.schedule.holdings.holders(1) == frozenset()
    assert it.schedule.holdings.fetching_from("") == 0


def test_tasks_that_wait_can_be_cancelled() -> None:
    it = two(Policy.MAX_CACHE_HIT).read((1,), (1,), (1,))
    assert it.decide() == ["b/0 <- 1"]
    assert it.tell(ev.Cancelled([2])).decide() == ["2 stopped"]
    assert it.ends("b/0").decide() == ["1 done", "b/0 <- 3"]


def test_short_tasks_of_files_that_are_there_travel_together() -> None:
    it = case().files(MB, MB).node("a").work().tell(ev.Cached("a", [1, 2])).read((1,))
    it.decide()
    it.ends("a/0", took_s=0.001).read(*[(1 + n % 2,) for n in range(8)])
    assert len(it.decide()[1].split()) > 3


def test_a_failed_task_goes_to_another_node_that_fetches_its_file() -> None:
    it = two().read((1,))
    it.decide()
    it.ends("b/0", cause=Cause.INPUT).decide()
    assert moves(it.after(1)) == {"a": [(1, Way.STAGE, "b")]}


def test_only_nodes_that_mount_read_from_afar_and_only_when_that_is_cheaper() -> None:
    it = case(ev.Limits(depth=1, access=Access.AUTO)).files(1000 * MB).work()
    it.tell(ev.NodeUp("a", "a", 1, 0, {"python": (3, 12), "mount": True}))
    it.tell(ev.Moved("a", 1, "", 20 * MB, 1.0, read_bytes=20 * MB, work=1)).read((1,))
    assert [way for _, way, _ in moves(it)["a"]] == [Way.READ]
    it = case(ev.Limits(depth=1, access=Access.MOUNT)).files(1000 * MB).node("a").work().read((1,))
    assert [way for _, way, _ in moves(it)["a"]] == [Way.STAGE]


@pytest.mark.parametrize("cause", [Cause.MISSING_OUTPUT, Cause.INPUT])
def test_a_task_that_ends_badly_while_it_reads_from_afar_comes_again_with_copies(cause: Cause) -> None:
    it = case(ev.Limits(depth=1, access=Access.AUTO)).files(1000 * MB).work()
    it.tell(ev.NodeUp("a", "a", 1, 0, {"python": (3, 12), "mount": True}))
    it.tell(ev.Moved("a", 1, "", 20 * MB, 1.0, read_bytes=20 * MB, work=1)).read((1,))
    assert [way for _, way, _ in moves(it)["a"]] == [Way.READ]
    it.ends("a/0", cause=cause).decide()
    assert [way for _, way, _ in moves(it.after(1))["a"]] == [Way.STAGE]
    it.ends("a/0", cause=Cause.MISSING_OUTPUT)
    assert it.decide() == ["1 failed"]


def test_a_node_that_leaves_hands_over_what_only_it_has() -> None:
    it = case().files(MB, MB).node("a").node("b").work()
    it.tell(ev.Cached("a", [1, 2])).tell(ev.Cached("b", [2])).tell(ev.Leaving("a")).read((2,), (2,))
    assert it.decide() == ["b <- file 1", "b/0 <- 1 2"] or it.schedule.nodes["a"].lanes == [[]]
    assert not it.schedule.may_leave("a")
    it.tell(ev.Moved("b", 1, "a", MB, 0.1)).decide()
    assert it.schedule.may_leave("a")


def test_a_choice_can_be_explained() -> None:
    it = two().read((1,))
    before = it.schedule.statistics()
    first, second = it.schedule.explain_moves(1)
    assert (first.node, first.prices[1].way, first.total_s < second.total_s) == ("b", Way.HERE, True)
    assert (second.node, second.prices[1].source, second.prices[1].moved_bytes) == ("a", "b", 10 * MB)
    assert second.prices[1].total_s == pytest.approx(second.prices[1].latency_s + second.prices[1].transfer_s)
    assert it.schedule.statistics() == before
    assert it.schedule.explain_moves(99) == []


@pytest.mark.parametrize(
    ("slots", "depth", "expected"), [(1, 2, ["a/0 <- 1", "a/0 <- 4"]), (2, 1, ["a/0 <- 1", "a/1 <- 4"])]
)
def test_the_next_file_comes_while_tasks_of_another_wait_or_run(slots: int, depth: int, expected: list[str]) -> None:
    it = case(ev.Limits(depth=depth, bundle_tasks=1)).files(MB, MB, MB).node("a", slots=slots).work()
    it.read((1,), (1,), (1,), (2,), (3,))
    assert it.decide() == expected
    assert it.schedule.holdings.coming("a") == 2
    it.tell(ev.Moved("a", 1, "", MB, 0.1))
    assert it.schedule.holdings.coming("a") == 1


def test_tasks_of_one_file_come_one_by_one_under_first_available() -> None:
    it = case(ev.Limits(policy=Policy.FIRST_AVAILABLE, depth=1)).files(MB, MB).node("a").work()
    it.read((1,), (1,), (2,), (2,))
    assert it.decide() == ["a/0 <- 1"]
    it.ends("a/0", took_s=0.001)
    assert tuple(it.decide()[-1].split()[2:4]) in {("3",), ("3", "2")}  # not 2 next, though its file has just come


def test_a_node_that_leaves_gives_back_what_it_has_not_begun_and_is_not_blamed_for_going() -> None:
    it = case(ev.Limits(bundle_tasks=1)).node("a").work().tasks(2)
    assert it.decide() == ["a/0 <- 1", "a/0 <- 2"]
    assert it.tell(ev.Leaving("a")).decide() == [], "nobody else can run it"
    it = case(ev.Limits(bundle_tasks=1, depth=2)).node("a").work().tasks(2)
    it.decide()
    score = it.schedule.sites["a"].score.value
    behind = it.bundle("a/0", 1)
    assert it.node("b").tell(ev.Leaving("a")).decide() == [f"a/0 recall {behind.id}"]
    assert it.report(behind, [], returned=(2,), last=True).decide() == ["b/0 <- 2"]
    assert not it.schedule.may_leave("a")
    it.ends("a/0").decide()
    assert it.schedule.may_leave("a")
    it.tell(ev.NodeDown("a", "it was released")).decide()
    assert it.schedule.sites["a"].score.value >= score


@pytest.mark.parametrize("access", [Access.MOUNT, Access.STAGE, Access.AUTO])
def test_what_waits_behind_a_long_task_is_called_back_for_a_node_that_comes_later(access: Access) -> None:
    it = case(ev.Limits(access=access)).files(30 * MB, 30 * MB).work().after(1.0)
    it.tell(ev.NodeUp("a", "a", 1, 0, {"python": (3, 12), "mount": True})).read((1,), (2,))
    assert it.decide() == ["a/0 <- 1", "a/0 <- 2"]
    it.tell(ev.NodeUp("b", "b", 1, 0, {"python": (3, 12), "mount": True})).decide()
    said = [line for _ in range(10) for line in it.after(0.3).decide()]
    assert said == ["a/0 recall 2"]
