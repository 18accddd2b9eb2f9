"""Where a file comes from that has an origin of its own: there, as a rule, and when else."""

from __future__ import annotations

import time

from serai.dispatch.schedule.files.holdings import CUT_S, Holdings
from serai.match.movement import Access, Way

NEAR, FAR = "store near:9094", "s3 far"
MB = 1_000_000


def made(*origins: str, transfers: int = 8) -> Holdings:
    """Files of 10 MB, numbered from 1, with these origins."""
    one = Holdings(transfers)
    one.add(range(1, 1 + len(origins)), [10 * MB] * len(origins), origins)
    return one


def source(holdings: Holdings, node: str, file: int, access: Access = Access.STAGE) -> str | None:
    price = holdings.price(node, file, access, None)
    return None if price is None else price.source


def test_an_origin_is_tried_first_and_each_has_rates_of_its_own() -> None:
    one = made(NEAR, FAR, "")
    one.links.learn("", "n1", 10 * MB, 0.1)
    assert [source(one, "n1", file) for file in (1, 2, 3)] == [NEAR, FAR, ""]
    assert [source(one, "n1", file, Access.MOUNT) for file in (1, 2, 3)] == [NEAR, FAR, ""]
    first = one.price("n1", 1, Access.STAGE, None)
    assert first is not None
    assert 0.09 < first.total_s < 0.12  # as near as the front end is, until it is measured
    one.links.learn(NEAR, "n1", 10 * MB, 1.0)
    one.links.learn(FAR, "n1", 10 * MB, 0.06)
    assert [source(one, "n1", file) for file in (1, 2, 3)] == ["", FAR, ""]  # the front end is ten times as quick
    one.links.learn(NEAR, "n2", 10 * MB, 0.06)
    assert source(one, "n2", 1) == NEAR  # for another node it is not


def test_what_cannot_be_reached_is_not_advised_for_a_while() -> None:
    one = made(NEAR, NEAR, FAR)
    one.cut(NEAR, "n1", now=100.0)
    assert [source(one, "n1", file) for file in (1, 2, 3)] == ["", "", FAR]
    assert source(one, "n2", 1) == NEAR
    one.mend(100.0 + CUT_S - 1)
    assert source(one, "n1", 1) == ""
    one.mend(100.0 + CUT_S)
    assert source(one, "n1", 1) == NEAR


def test_who_finds_an_origin_busy_waits_and_does_not_go_through_the_front_end() -> None:
    one = made(*[NEAR] * 4, transfers=2)
    for node in ("n1", "n2"):
        (move,) = one.order(node, [1], Access.STAGE, None)
        assert (move.way, move.source) == (Way.STAGE, NEAR)
    assert source(one, "n3", 2) is None
    assert source(one, "n1", 2) == NEAR  # what one node fetches there is one transfer
    one.cached("n1", [1])
    assert source(one, "n3", 2) == NEAR
    assert source(one, "n3", 1) in {"n1", NEAR}
    (again,) = one.order("n2", [1], Access.STAGE, None)
    assert again.source == NEAR  # it is on its way from there
    one.gone("n2")
    one.cached("n3", [1, 2])
    assert one.fetching_from(NEAR) == 0


def test_a_node_that_has_the_file_is_asked_where_it_is_nearer() -> None:
    one = made(NEAR)
    one.links.learn(NEAR, "n2", 10 * MB, 1.0)
    one.links.learn("n1", "n2", 10 * MB, 0.1)
    one.cached("n1", [1])
    assert source(one, "n2", 1) == "n1"
    assert one.far_rate_bytes_s("n2", NEAR) < 11 * MB


def test_that_many_nodes_cannot_reach_many_origins_costs_nothing_at_each_turn() -> None:
    one = made()
    for node in range(200):
        for origin in range(100):
            one.cut(f"s3 {origin}", f"n{node}", now=100.0)
    began = time.process_time()
    for turn in range(500):
        one.mend(100.0 + turn * 0.001)
    assert time.process_time() - began < 0.2
