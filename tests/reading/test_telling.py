"""What is said of inputs."""

from __future__ import annotations

from serai.dispatch.reading.telling import AT_FIRST, PER_S, SHARE, Allowance, joined, prices, read_words
from serai.match.movement import Candidate, Move, Price, Way


def test_prices_are_told_by_node_and_way() -> None:
    moves = [Move(1, Way.HERE), Move(2, Way.STAGE, "b", 1.5), Move(3, Way.READ, "", 0.2), Move(9, Way.STAGE, "", 7.0)]
    found = {1: Price(Way.STAGE, "a", 0.1, 2.0, 1.0), 2: Price(Way.HERE), 3: Price(Way.STAGE, "a", 0.0, 1.0)}
    there = [Candidate("b", 2.0, found), Candidate("a", 9.0, {})]
    here, other = prices("a", [1, 2, 3], moves, there)
    parts = "it is there; it is copied from b in 1.5s; it is read from afar from this machine in 200ms"
    assert here == f"a, where it was sent: 1.7s ({parts})"
    assert other == "b: 6.1s (a lane is free in 2s; it is there; 2 files are copied from a in 4.1s)"


def test_of_many_nodes_a_handful_is_told() -> None:
    there = [Candidate(f"n{at}", float(at), {1: Price(Way.HERE)}) for at in range(1, 1000)]
    told = prices("n7", [1], [Move(1, Way.HERE)], there)
    assert [line.partition(":")[0] for line in told[:-1]] == ["n7, where it was sent", "n1", "n2", "n3", "n4"]
    assert told[-1] == "and 994 more, none of them cheaper"


def test_many_inputs_are_counted() -> None:
    assert joined(["a sent"] * 2) == "a sent; a sent"
    assert joined(["a sent"] * 9) == "; ".join(["a sent"] * 5) + " and 4 more"
    assert read_words(2_000_000, 30_000_000, 0.31) == "read from afar: 2 MB of 30 MB in 0.3 s"


def test_what_is_only_told_takes_little_of_the_time() -> None:
    now, done, spent = 0.0, 0, 0.0
    one = Allowance()
    while now < 100.0:
        if one.may(now):
            one.did(now, now + 0.01)
            done, spent = done + 1, spent + 0.01
        now += 0.001
    assert spent <= SHARE * 100.0 + 0.02
    assert done <= AT_FIRST + 100.0 * PER_S
    quick = Allowance()
    times = [n * 0.001 for n in range(10_000)]
    allowed = []
    for now in times:
        if quick.may(now):
            quick.did(now, now)
            allowed.append(now)
    assert AT_FIRST <= len(allowed) <= AT_FIRST + 10 * PER_S + 1
    assert allowed[: AT_FIRST // 2] == times[: AT_FIRST // 2]
