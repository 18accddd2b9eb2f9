"""What it costs to bring data to a task: parts of a price, and what is learnt of pairs."""

from __future__ import annotations

import pytest

from serai.match.movement import Candidate, Links, Price, Way, cheapest, read_price, stage_price


def test_a_pair_is_known_by_its_own_transfers_then_by_its_source_then_by_all() -> None:
    links = Links(rate_bytes_s=1e6, latency_s=0.5)
    assert links.seconds("", "a", 1_000_000) == pytest.approx(1.5)
    links.learn("", "a", 10_000_000, 1.5)
    links.learn("p", "a", 40_000_000, 1.5)
    assert links.rate_bytes_s("", "a") == pytest.approx(1e7)
    assert links.rate_bytes_s("", "b") == pytest.approx(1e7)
    assert links.rate_bytes_s("p", "c") == pytest.approx(4e7)
    assert 1e7 < links.rate_bytes_s("q", "c") < 4e7


def test_small_transfers_tell_the_latency_and_late_ones_weigh_more() -> None:
    links = Links()
    links.learn("", "a", 100, 0.2)
    assert links.latency_s("", "a") == 0.2
    links.learn("", "a", 100, 0.4)
    assert links.latency_s("", "a") == pytest.approx(0.26)
    links.learn("", "a", 100, 0.0)
    assert links.latency_s("", "a") == pytest.approx(0.26)


def test_a_node_that_is_gone_is_forgotten() -> None:
    links = Links(rate_bytes_s=1e6)
    links.learn("a", "b", 10_000_000, 1.0)
    links.forget("a")
    assert links.rate_bytes_s("", "c") > 1e6
    assert ("a", "b") not in links._rates


def test_a_price_shows_its_parts() -> None:
    links = Links(rate_bytes_s=1e6, latency_s=0.5)
    price = stage_price(links, "a", 2_000_000, "b", busy=2)
    assert price == Price(Way.STAGE, "b", 0.5, 2.0, 4.0, 2_000_000)
    assert price.total_s == 6.5
    assert Candidate("a", 1.0, {1: price, 2: Price(Way.HERE)}).total_s == 7.5


def test_a_little_of_a_large_file_is_read_from_afar() -> None:
    links = Links(rate_bytes_s=1e6, latency_s=0.1)
    stage = stage_price(links, "a", 300_000_000, "")
    little = read_price(links, "a", 300_000_000, "", 0.05)
    assert little.moved_bytes == 15_000_000
    assert little.latency_s == pytest.approx(0.4)
    assert cheapest([stage, little]) is little
    assert cheapest([stage, read_price(links, "a", 300_000_000, "", 1.0)]) is stage


@pytest.mark.parametrize("took_s", [5e-324, 1e-320, float("nan"), float("inf")])
def test_a_time_that_cannot_be_spoils_no_rate(took_s: float) -> None:
    links = Links(rate_bytes_s=1e6)
    for moved in (1 << 62, 1, 10**6, 1 << 62):
        links.learn("", "a", moved, took_s)
    for node in ("a", "b"):
        assert 0 < links.rate_bytes_s("", node) < float("inf")
        assert 0 <= stage_price(links, node, 10**9, "").total_s < float("inf")
