"""Worlds with a name: what users count on when machines fail."""

from __future__ import annotations

from serai.describe.task import Needs
from serai.dispatch.schedule.events import Limits, Retry
from serai.sim.models import Faults, NodeModel, WorkModel
from serai.sim.world import World

GB = 10**9


def nodes(count: int, *, slots: int = 2, sites: int = 1) -> list[NodeModel]:
    return [NodeModel(f"n{number}", f"s{number % sites}", slots) for number in range(count)]


def test_a_thousand_nodes_fail_and_return() -> None:
    faults = Faults(deaths=300, hangs=50, lane_deaths=100, slow=50, within_s=60.0, away_s=30.0)
    world = World(1, nodes(1000, sites=100), [WorkModel(20_000, 4.0, spread=0.5)], faults, check_every=5000).run()
    assert world.ledger.counts["done"] == 20_000
    assert world.ended_at < 200.0


def test_a_straggler_does_not_keep_the_others_waiting() -> None:
    slow = NodeModel("slow", "slow", 1, speed=0.05)
    work = WorkModel(2000, 0.05)
    world = World(1, [*nodes(4, slots=1, sites=4), slow], [work]).run()
    assert world.ledger.counts["Recall"] > 0
    assert world.ended_at < 1.3 * 2000 * 0.05 / 4.05


def test_what_waits_on_a_hung_node_is_copied_after_a_minute() -> None:
    world = World(1, nodes(1, slots=1), [WorkModel(2, 5.0)], silence_s=300.0)
    world.models["late"] = NodeModel("late", "late", 1)
    world.plan(1.0, lambda: world.node_hangs("n0", 200.0))
    world.plan(2.0, lambda: world.node_up("late"))
    world.run()
    assert world.ledger.counts["done"] == 2
    assert 65.0 < world.ended_at < 80.0  # a minute, and two tasks one after the other
    assert world.ledger.counts["Kill"] > 0


def test_poison_fails_and_everything_else_ends_well() -> None:
    for kind in ("lane", "node"):
        work = WorkModel(300, 0.02, poison={100: kind})
        world = World(1, nodes(4), [work], Faults(away_s=5.0)).run()
        assert world.ledger.counts["done"] == 299
        assert [task for task, how in world.ledger.final.items() if how == "failed"] == [101]


def test_wide_tasks_and_tasks_with_much_memory_are_not_starved() -> None:
    there = [NodeModel(f"n{number}", f"s{number}", 4, memory_bytes=8 * GB) for number in range(2)]
    works = [
        WorkModel(2000, 0.2),
        WorkModel(5, 1.0, needs=Needs(cores=4)),
        WorkModel(10, 1.0, needs=Needs(memory_bytes=6 * GB)),
    ]
    world = World(1, there, works).run()
    assert world.ledger.counts["done"] == 2015
    last = {work: max(world.ledger.ended_at[task] for task, one in world.truth.items() if one.work == work + 1)
            for work in range(3)}  # fmt: skip
    assert max(last[1], last[2]) < 0.7 * last[0]
    assert last[0] < 1.6 * (2000 * 0.2 + 5 * 4 + 10) / 8


def test_software_is_looked_for_and_found() -> None:
    there = [*nodes(3), NodeModel("has", "has", 2, software=frozenset(["blast"]))]
    works = [WorkModel(20, 0.5, needs=Needs(software=("blast",))), WorkModel(50, 0.5)]
    world = World(1, there, works, Faults(probe_loss=0.5)).run()
    assert world.ledger.counts["done"] == 70
    assert world.ledger.done_on["has"] >= 20


def test_a_task_that_fails_is_tried_elsewhere_and_later() -> None:
    work = WorkModel(10, 0.1, retry=Retry(times=2, first_s=1.0), fails={2: 2, 5: 3})
    world = World(1, nodes(4, slots=1, sites=4), [work]).run()
    assert world.ledger.counts["done"] == 9
    assert world.ledger.final[6] == "failed"
    assert [world.truth[task].runs for task in (1, 3, 6)] == [1, 3, 3]
    assert 1.5 <= world.ended_at < 4.0  # two waits: half to one second, and one to two


def test_a_bad_site_loses_its_share() -> None:
    bad = [NodeModel(f"bad{number}", "bad", 4, breaks=1.0) for number in range(2)]
    good = [NodeModel(f"good{number}", "good", 4) for number in range(2)]
    world = World(1, [*bad, *good], [WorkModel(400, 0.5)]).run()
    assert world.ledger.counts["done"] == 400
    assert world.schedule.sites["bad"].score.value == 0.1
    assert world.ended_at < 1.4 * 400 * 0.5 / 8


def test_a_user_who_cancels_stops_what_runs() -> None:
    world = World(1, nodes(2), [WorkModel(50, 10.0, function=True)], Faults(cancels=30, within_s=20.0)).run()
    assert world.ledger.counts["cancelled"] > 20
    assert world.ledger.counts["failed"] == 0


def test_limits_are_kept() -> None:
    limits = Limits(bundle_tasks=3, depth=1, copies=1)
    world = World(1, nodes(3), [WorkModel(300, 0.001)], limits=limits).run()
    assert world.ledger.counts["done"] == 300
