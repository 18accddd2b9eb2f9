"""Files with origins of their own: nodes read there, each as fast as it can, and go round what they cannot reach."""

from __future__ import annotations

import pytest

from serai.dispatch.schedule.events import Limits
from serai.match.movement import Access
from serai.sim.draw import origin_world
from serai.sim.models import NodeModel, WorkModel
from serai.sim.world import World

NEAR = "store near:9094"
SIZE = 10_000_000


def world(nodes: list[NodeModel], files: int, *, ours: int = 0, access: Access = Access.STAGE) -> World:
    """A world of one task for each file; the first few files are the front end's."""
    reads = {position: (1 + position,) for position in range(files)}
    made = World(1, nodes, [WorkModel(files, 0.01, reads=reads)], limits=Limits(access=access, transfers=2))
    return made.know_files([SIZE] * files, [""] * ours + [NEAR] * (files - ours)).run()


@pytest.mark.parametrize("seed", range(50))
def test_worlds_with_origins_keep_their_promises(seed: int) -> None:
    origin_world(seed).run()


@pytest.mark.parametrize("access", [Access.STAGE, Access.MOUNT])
def test_what_is_read_at_its_origin_does_not_come_through_the_front_end(access: Access) -> None:
    nodes = [NodeModel(f"n{n}", f"s{n}", bandwidth_bps=1e6, origins={NEAR: 1e7}, mounts=True) for n in range(4)]
    done = world(nodes, 40, access=access)
    assert done.ledger.files.sources == {NEAR: 40}
    assert done.ended_at < 40 * SIZE / 4e7 * 1.5


def test_a_node_that_does_not_reach_it_gets_the_files_another_way() -> None:
    nodes = [NodeModel(f"n{n}", f"s{n}", bandwidth_bps=1e7, origins={NEAR: 1e7} if n else {}) for n in range(3)]
    done = world(nodes, 40)
    sources = done.ledger.files.sources
    assert sources[NEAR] >= 20
    assert 0 < sources[""] < 20
    assert done.ledger.done_on["n0"] > 3


def test_an_origin_that_is_far_slower_than_the_front_end_is_left_for_it() -> None:
    nodes = [NodeModel("n0", "s0", bandwidth_bps=1e8, origins={NEAR: 1e5})]
    done = world(nodes, 30, ours=1)
    assert done.ledger.files.sources[""] > 20
    assert done.ended_at < 1000.0  # 30 files at 100 s each from there


def test_the_job_goes_where_the_origin_is_near() -> None:
    rates = [1e5, 1e8]
    nodes = [NodeModel(f"n{n}", f"s{n}", slots=2, bandwidth_bps=1e7, origins={NEAR: rates[n]}) for n in range(2)]
    done = world(nodes, 60)
    assert done.ledger.done_on["n1"] > 50
