"""The master's decisions, one at a time."""

from __future__ import annotations

from serai.apps.mapreduce.events import (
    MAP,
    REDUCE,
    Accept,
    Action,
    Asked,
    Bar,
    Cancel,
    Discard,
    Done,
    Event,
    Expecting,
    Fail,
    Failed,
    Finish,
    Give,
    Gone,
    Joined,
    Order,
    Reopen,
    Skip,
    Tick,
)
from serai.apps.mapreduce.master import Master
from serai.apps.mapreduce.plan import Split
from serai.apps.mapreduce.tasks import Rules
from serai.testing.mapreduce import sanity_check

# ---- one decision at a time


class Case:
    """A master with short words for events."""

    def __init__(
        self, splits: int = 2, partitions: int = 1, hosts: tuple[str | None, ...] = (), **rules: float
    ) -> None:
        homes = (*hosts, *[None] * splits)[:splits]
        self.master = Master(
            [Split(number, 0, None, host) for number, host in enumerate(homes)],
            partitions,
            Rules(**rules),  # type: ignore[arg-type]
        )
        self.now = 0.0

    def tell(self, event: Event) -> list[Action]:
        actions = self.master.decide(event, self.now)
        sanity_check(self.master)
        return actions

    def join(self, *workers: str) -> None:
        for worker in workers:
            name, _, host = worker.partition("@")
            self.tell(Joined(name, host))
        self.tell(Expecting(0))

    def ask(self, worker: str) -> Order | None:
        given = [one.order for one in self.tell(Asked(worker)) if isinstance(one, Give) and one.worker == worker]
        return given[0] if given else None

    def do(self, worker: str, *, took_s: float = 1.0) -> list[Action]:
        order = self.ask(worker)
        assert order is not None
        self.now += took_s
        return self.tell(Done(worker, order, {"path": f"{worker}/{order.number}"}))


def test_a_worker_gets_what_lies_on_its_host_first() -> None:
    it = Case(4, hosts=("lab1", "lab2", None, "lab1"))
    it.join("a@lab2", "b@lab1")
    given = [order.number for order in (it.ask("a"), it.ask("a"), it.ask("b")) if order]
    # The second ask gives the first back, which nobody has then.
    assert given == [1, 1, 0]
    it.do("a")
    order = it.ask("a")
    assert order is not None
    assert order.number == 2, "what lies nowhere comes before what lies on another's host"


def near(it: Case, worker: str, *hosts: str) -> None:
    it.tell(Joined(worker, worker, frozenset(hosts)))


def test_what_is_near_another_worker_is_left_to_it_for_a_moment() -> None:
    it = Case(3, hosts=("lab1", "lab1", "lab1"), delay_s=1.0)
    near(it, "a", "lab1")
    near(it, "b", "lab2")
    it.tell(Expecting(0))
    assert it.ask("b") is None
    it.now = 0.9
    assert it.tell(Tick()) == []
    assert it.ask("a") == Order(MAP, 0, 1)
    assert it.ask("b") is None, "it asked once more: it waits from now on"
    it.now = 2.0
    assert it.tell(Tick()) == [Give("b", Order(MAP, 1, 1))]
    it.tell(Done("b", Order(MAP, 1, 1), {"path": "b/1"}))
    assert it.ask("b") == Order(MAP, 2, 1), "it has waited in vain once"


def test_what_is_near_a_host_that_is_being_started_is_left_to_it_too() -> None:
    it = Case(2, hosts=("lab1", "lab1"), delay_s=1.0)
    near(it, "b", "lab2")
    it.tell(Expecting(1, (), frozenset({"lab1"})))
    assert it.ask("b") is None
    assert it.tell(Expecting(1, ("lab1 cannot be reached",))) == [Give("b", Order(MAP, 0, 1))]


def test_nobody_waits_for_what_is_near_nobody_or_failed_or_takes_no_time() -> None:
    it = Case(4, hosts=("", "lab1", "lab1", "lab1"), delay_s=1.0)
    near(it, "a", "lab1", "an alias of it")
    near(it, "b", "lab2")
    it.tell(Expecting(0))
    assert it.do("b", took_s=0.1)[0] == Accept("b", Order(MAP, 0, 1))
    order = it.ask("a")
    assert order
    it.tell(Failed("a", order, "no such word"))
    assert it.ask("b") == Order(MAP, order.number, 2)
    it.do("a", took_s=0.1)
    near(it, "c", "lab3")
    assert it.ask("c") is None
    it.now += 0.21
    assert [one.worker for one in it.tell(Tick()) if isinstance(one, Give)] == ["c"], "a map takes less than that"


def test_maps_of_a_lost_worker_are_made_again_while_a_reduce_needs_them() -> None:
    it = Case(2, partitions=2)
    it.join("a", "b")
    it.do("a")
    it.do("b")
    order = it.ask("b")
    assert order == Order(REDUCE, 0, 1)
    assert it.tell(Gone("a", "it died", final=True)) == [Reopen(0, "it died")]
    assert it.tell(Done("b", order, {"name": "part-00000"})) == [Accept("b", order)], "it had fetched before"
    assert it.ask("b") == Order(MAP, 0, 2)


def test_maps_are_not_made_again_when_every_reduce_is_done() -> None:
    it = Case(1, partitions=1)
    it.join("a", "b")
    it.do("a")
    assert it.do("b")[-1] == Finish()
    assert it.tell(Gone("a", "it died", final=True)) == []


def test_a_missing_output_opens_its_map_again_once() -> None:
    it = Case(1, partitions=2)
    it.join("a", "b", "c")
    it.do("a")
    first, second = it.ask("b"), it.ask("c")
    assert first
    assert second
    assert Reopen(0, "gone") in it.tell(Failed("b", first, "gone", missing=(0,)))
    it.do("b")
    # The other reduce says the same of the former output.
    assert not [one for one in it.tell(Failed("c", second, "gone", missing=(0,))) if isinstance(one, Reopen)]
    assert it.ask("c") == Order(REDUCE, 0, 2)


def test_a_task_that_fails_everywhere_is_named() -> None:
    it = Case(1, retries=2)
    it.join("a", "b")
    for worker in ("a", "b"):
        order = it.ask(worker)
        assert order
        it.tell(Failed(worker, order, "no such word"))
    order = it.ask("a")
    assert order
    (failure,) = it.tell(Failed("a", order, "no such word"))
    assert isinstance(failure, Fail)
    assert failure.what == "the map 0 failed 3 times"
    assert failure.of_task
    assert failure.tried == ("no such word",) * 3


def test_a_task_that_failed_here_is_tried_elsewhere() -> None:
    it = Case(2)
    it.join("a", "b")
    order = it.ask("a")
    assert order
    it.tell(Failed("a", order, "no such program"))
    assert it.ask("a") == Order(MAP, 1, 1)
    assert it.ask("b") == Order(MAP, 0, 2)


def test_a_worker_that_fails_again_and_again_gets_nothing_more() -> None:
    it = Case(20, faults=3)
    it.join("a", "b")
    it.do("b")
    for number in range(3):
        order = it.ask("a")
        assert order
        actions = it.tell(Failed("a", order, "its disk is full", transient=number != 2))
    assert [one.worker for one in actions if isinstance(one, Bar)] == ["a"]
    assert it.ask("a") is None
    assert it.ask("b") is not None


def test_workers_are_not_blamed_for_what_fails_everywhere() -> None:
    it = Case(20, faults=3)
    it.join("a", "b")
    for _ in range(30):
        for worker in ("a", "b"):
            order = it.ask(worker)
            if order is None:
                continue
            actions = it.tell(Failed(worker, order, "no such word"))
            assert not [one for one in actions if isinstance(one, Bar)]
            if it.master.ended:
                assert isinstance(actions[-1], Fail)
                assert actions[-1].of_task
                return
    raise AssertionError("it goes on for ever")


def die_of(it: Case, worker: str) -> list[Action]:
    assert it.ask(worker) is not None
    return it.tell(Gone(worker, "a signal ended it", final=True, by_itself=True))


def test_a_split_that_ends_its_workers_is_named() -> None:
    it = Case(2, deaths=3)
    it.join("a@lab1", "b", "c", "d")
    assert die_of(it, "a") == []
    assert it.do("d")[0] == Accept("d", Order(MAP, 1, 1)), "other work is done first"
    assert die_of(it, "b") == []
    (failure,) = die_of(it, "c")
    assert isinstance(failure, Fail)
    assert failure.what == "the map 0 ended 3 workers"
    assert failure.of_task
    assert failure.tried == tuple(f"{one}: a signal ended it" for one in ("a on lab1", "b", "c"))
    assert failure.hint


def test_where_workers_end_otherwise_too_one_is_accused_later() -> None:
    """Somebody kills workers at random: that one task is hit three times says little then."""
    it = Case(1, deaths=3, deaths_amid=6)
    it.join(*"abcdefghijk")
    die_of(it, "a")
    it.tell(Gone("b", "a signal ended it", final=True, by_itself=True))  # it was idle
    ended = ["a"]
    for worker in "cdefg":
        assert not it.master.ended
        die_of(it, worker)
        ended.append(worker)
    assert it.master.ended
    assert len(ended) == 6


def test_what_was_done_in_the_end_is_not_accused() -> None:
    it = Case(1, deaths=2)
    it.join(*"abcd")
    die_of(it, "a")
    it.do("b")
    assert it.tell(Gone("b", "a signal ended it", final=True)) == [Reopen(0, "a signal ended it")]
    assert die_of(it, "c") == []


def test_hosts_and_ways_that_are_lost_are_no_fault_of_a_split() -> None:
    it = Case(1, deaths=1)
    it.join("a", "b", "c")
    assert it.ask("a")
    assert it.tell(Gone("a", "the way to it was lost", final=True)) == []
    it.join("d")  # it is idle: nothing that ends it is a split's fault
    assert it.tell(Gone("d", "a signal ended it", final=True, by_itself=True)) == []
    assert it.ask("b") == Order(MAP, 0, 2)


def test_so_many_splits_are_left_out_as_may_be() -> None:
    it = Case(3, deaths=1, retries=0, skip=2)
    it.join("a", "b", "c")
    (skip,) = die_of(it, "a")
    assert skip == Skip(0, "the map 0 ended 1 workers, last: a: a signal ended it")
    second = it.ask("b")
    assert second == Order(MAP, 1, 1)
    assert it.tell(Failed("b", second, "no such word")) == [Skip(1, "the map 1 failed 1 times, last: no such word")]
    it.do("b")
    reduce = it.ask("b")
    assert reduce == Order(REDUCE, 0, 1)
    assert it.tell(Failed("b", reduce, "cannot fetch", missing=(0, 1))) == [], "nothing was ever there to be missed"
    assert it.ask("b") == Order(REDUCE, 0, 2)
    assert it.do("b")[-1] == Finish()


def test_one_split_more_is_one_too_many_and_a_reduce_is_never_left_out() -> None:
    it = Case(2, deaths=1, skip=1)
    it.join("a", "b")
    die_of(it, "a")
    (failure,) = die_of(it, "b")
    assert isinstance(failure, Fail)
    it = Case(0, deaths=1, skip=1)
    it.join("a")
    (failure,) = die_of(it, "a")
    assert isinstance(failure, Fail)
    assert failure.what == "the reduce 0 ended 1 workers"


def test_a_split_is_not_left_out_of_some_outputs_and_in_others() -> None:
    """It was mapped, a reduce has had of it, and then its output is lost and it fails for good."""
    it = Case(1, partitions=2, retries=0, skip=1)
    it.join("a", "b")
    it.do("a")
    it.do("b")
    it.tell(Gone("a", "it died", final=True))
    again = it.ask("b")
    assert again == Order(MAP, 0, 2)
    (failure,) = it.tell(Failed("b", again, "no such word"))
    assert isinstance(failure, Fail)
    assert failure.hint is not None
    assert failure.hint.startswith("outputs that are there")


def test_a_split_that_was_mapped_may_be_left_out_before_any_reduce_had_of_it() -> None:
    it = Case(2, partitions=1, retries=0, skip=1)
    it.join("a", "b")
    it.do("a")
    it.tell(Gone("a", "it died", final=True))
    it.do("b")
    again = it.ask("b")
    assert again == Order(MAP, 0, 2)
    assert it.tell(Failed("b", again, "no such word"))[0] == Skip(0, "the map 0 failed 1 times, last: no such word")


def test_what_a_former_run_has_reduced_is_not_made_again() -> None:
    it = Case(1, partitions=2, retries=0, skip=1)
    it.master = Master([Split(0, 0, None)], 2, Rules(retries=0, skip=1), {0})
    it.join("a")
    it.do("a")
    assert it.ask("a") == Order(REDUCE, 1, 1)
    it.master = Master([Split(0, 0, None)], 2, Rules(retries=0, skip=1), {0})
    it.join("a")
    order = it.ask("a")
    assert order == Order(MAP, 0, 1)
    (failure,) = it.tell(Failed("a", order, "no such word"))
    assert isinstance(failure, Fail), "what is there has of this split"
    it.master = Master([Split(0, 0, None)], 2, Rules(), {0, 1})
    assert it.tell(Tick()) == [Finish()]


def test_when_a_split_is_left_out_its_other_attempt_is_withdrawn() -> None:
    it = Case(2, deaths=1, skip=1, slow_least_s=1.0)
    it.join("a", "b")
    slow = it.ask("a")
    assert slow
    it.do("b")
    it.now += 10
    again = it.ask("b")
    assert again == Order(MAP, 0, 2)
    assert Cancel("b", again) in it.tell(Gone("a", "a signal ended it", final=True, by_itself=True))
    assert it.tell(Done("b", again, {"path": "b/0"})) == [Discard("b", again, {"path": "b/0"})]


def test_a_straggler_is_doubled_and_the_first_to_end_counts() -> None:
    it = Case(3, slow=2.0, slow_least_s=2.0)
    it.join("a", "b")
    slow = it.ask("a")
    assert slow
    it.do("b")
    it.do("b", took_s=0.5)
    assert it.ask("b") is None, "it is not slow yet"
    it.now += 1
    (again,) = it.tell(Tick())
    assert again == Give("b", Order(MAP, 0, 2), again=True)
    done = it.tell(Done("b", Order(MAP, 0, 2), {"path": "b/0"}))
    assert Cancel("a", slow) in done
    assert it.tell(Done("a", slow, {"path": "a/0"})) == [Discard("a", slow, {"path": "a/0"})]


def test_what_is_said_twice_counts_once() -> None:
    """An answer may be lost: the worker says again that it is done."""
    it = Case(2)
    it.join("a")
    order = it.ask("a")
    assert order
    done = Done("a", order, {"path": "a/0"})
    assert it.tell(done) == [Accept("a", order)]
    assert it.tell(done) == []


def test_what_a_withdrawn_attempt_says_counts_for_nothing() -> None:
    it = Case(2, slow_least_s=0.0, faults=1)
    it.join("a", "b")
    slow = it.ask("a")
    assert slow
    it.do("b")
    it.now += 10
    again = it.ask("b")
    assert again == Order(MAP, 0, 2)
    it.tell(Done("b", again, {"path": "b/0"}))
    assert it.tell(Failed("a", slow, "killed")) == []
    assert it.ask("a") is not None


def test_without_workers_the_run_fails_with_the_reasons() -> None:
    it = Case()
    assert it.tell(Expecting(1)) == []
    it.now = 1000
    assert it.tell(Tick()) == []
    (failure,) = it.tell(Expecting(0, ("lab1: no route", "lab2: refused")))
    assert isinstance(failure, Fail)
    assert failure.tried == ("lab1: no route", "lab2: refused")
    assert not failure.of_task


def test_a_silent_last_worker_is_waited_for() -> None:
    it = Case(alone_s=30)
    it.join("a")
    it.ask("a")
    assert it.tell(Gone("a", "it is silent")) == []
    it.now = 29
    assert it.tell(Tick()) == []
    assert it.ask("a") is not None, "it came back"
    it.tell(Gone("a", "it is silent"))
    it.now = 60
    assert isinstance(it.tell(Tick())[-1], Fail)
    it = Case(alone_s=30)
    it.join("a")
    assert isinstance(it.tell(Gone("a", "it died", final=True))[-1], Fail), "nobody will come back"


def test_no_input_still_makes_every_output() -> None:
    it = Case(0, partitions=2)
    it.join("a")
    it.do("a")
    assert it.do("a")[-1] == Finish()


def test_made_up_orders_are_passed_over() -> None:
    it = Case(1)
    it.join("a")
    for order in (Order(MAP, 7, 1), Order(MAP, -1, 1), Order("sleep", 0, 1)):
        assert it.tell(Done("a", order, {})) == []
        assert it.tell(Failed("a", order, "x", missing=(9, -3))) == []
