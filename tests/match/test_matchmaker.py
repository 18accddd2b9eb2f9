from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.describe.task import Needs
from serai.errors import UsageError
from serai.match.ads import node_ad, parse_ad, parse_expression, task_ad
from serai.match.bilateral import matches, rank, with_storage
from serai.match.gangs import Port, match_gang
from serai.match.matchmaker import Matchmaker

if TYPE_CHECKING:
    import classad2


def node(name: str, gib: int, **extra: object) -> classad2.ClassAd:
    return node_ad(name, {"cores": 4, "memory_bytes": gib << 30, "software": {"R": gib % 2 == 0}}, extra)


NODES = {name: node(name, gib) for name, gib in {"small": 1, "middle": 4, "large": 16}.items()}


def test_tasks_that_nothing_tells_apart_are_matched_once() -> None:
    maker = Matchmaker(NODES)
    for n in range(1000):
        found = maker.candidates(task_ad(Needs(1, 2 << 30), rank="TARGET.Memory", extra={"Id": n}))
        assert found == ("large", "middle")
    assert maker.matched == len(NODES)


def test_what_a_node_refers_to_tells_tasks_apart() -> None:
    picky = Matchmaker({"n": node("n", 4, Requirements='=TARGET.Owner == "ann"')})
    assert picky.candidates(task_ad(Needs(), extra={"Owner": "ann"})) == ("n",)
    assert picky.candidates(task_ad(Needs(), extra={"Owner": "bob"})) == ()
    assert picky.candidates(task_ad(Needs(), extra={"Owner": "bob", "Id": 1})) == ()
    assert picky.matched == 2


def test_what_its_own_expressions_refer_to_tells_tasks_apart() -> None:
    maker = Matchmaker(NODES)
    wants = "TARGET.Memory >= MY.Least"
    assert maker.candidates(task_ad(Needs(), requirements=wants, extra={"Least": 8000})) == ("large",)
    assert maker.candidates(task_ad(Needs(), requirements=wants, extra={"Least": 2000})) == ("large", "middle")


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_index_finds_what_a_plain_search_finds(kinds: list[tuple[int, int, bool]]) -> None:
    nodes = {f"n{n}": node(f"n{n}", n, Requirements="=TARGET.RequestMemory < MY.Memory") for n in range(1, 7)}
    maker = Matchmaker(nodes)
    for cores, gib, wants in kinds:
        task = task_ad(Needs(cores, gib << 30, ("R",) if wants else ()), rank="-TARGET.Memory")
        plain = sorted((name for name in nodes if matches(task, nodes[name])), key=lambda n: (-rank(task, nodes[n]), n))
        assert list(maker.candidates(task)) == plain
        assert task.symmetricMatch(nodes["n6"]) == ("n6" in plain)


def test_nodes_and_stores_come_and_go() -> None:
    maker = Matchmaker({"n": node("n", 4, NearestStorage="s")})
    task = task_ad(Needs(), requirements="TARGET.NearestStorage.HasData")
    assert maker.candidates(task) == ()
    maker.put_store("s", parse_ad('[Name = "s"; HasData = true]'))
    assert maker.candidates(task) == ("n",)
    maker.put_node("m", node("m", 4, NearestStorage="s"))
    assert maker.candidates(task) == ("m", "n")
    maker.put_node("n", None)
    maker.put_store("s", None)
    assert maker.candidates(task) == ()


def test_it_says_which_clause_rejects_which_node() -> None:
    nodes = {**NODES, "theirs": node("theirs", 8, Requirements='=TARGET.Owner == "ann"')}
    task = task_ad(Needs(1, 2 << 30), requirements='HasSoftware("R") && TARGET.NearestStorage.HasData =!= false')
    told = Matchmaker(nodes).explain(task)
    assert told.able == ("large", "middle")
    assert told.refused_by == ("theirs",)
    rejected = {clause.text: clause.rejected for clause in told.clauses}
    assert rejected["TARGET.Memory >= 2048"] == ("small",)
    assert rejected['member("R",TARGET.Software)'] == ("small",)
    other = Matchmaker(nodes).explain(task_ad(Needs(), requirements="TARGET.Lasers > 0"))
    assert other.clauses[-1].undefined == ("large", "middle", "small", "theirs")


def test_nodes_are_found_by_an_expression() -> None:
    maker = Matchmaker(NODES)
    assert maker.where(parse_expression('Memory > 2000 && HasSoftware("R")', scope="")) == ("large", "middle")


def test_a_gang_fits_together() -> None:
    nodes = {f"n{n}": node(f"n{n}", 4, Subnet=n % 3) for n in range(7)}
    head = Port("head", task_ad(Needs(), rank="-TARGET.Subnet"))
    others = [Port(f"w{n}", task_ad(Needs(), requirements="TARGET.Subnet == head.Subnet")) for n in range(2)]
    found = match_gang([head, *others], {"node": nodes})
    assert found is not None
    assert sorted(found.values()) == ["n0", "n3", "n6"]
    assert match_gang([head, *others, Port("w3", others[0].ad)], {"node": nodes}) is None


def test_a_gang_tries_another_head_when_the_best_leads_nowhere() -> None:
    nodes = {"best": node("best", 16, Subnet=1), "good": node("good", 4, Subnet=2), "other": node("other", 4, Subnet=2)}
    ports = [
        Port("head", task_ad(Needs(), rank="TARGET.Memory")),
        Port("second", task_ad(Needs(), requirements="TARGET.Subnet == head.Subnet")),
    ]
    assert match_gang(ports, {"node": nodes}) == {"head": "good", "second": "other"}


def test_a_gang_may_hold_a_store() -> None:
    stores = {"s": parse_ad('[Name = "s"; Free = 10]'), "t": parse_ad('[Name = "t"; Free = 1000]')}
    ports = [
        Port("node", task_ad(Needs())),
        Port(
            "store", parse_ad("[Requirements = TARGET.Free > 100 && node.NearestStorage.Name == TARGET.Name]"), "store"
        ),
    ]
    nodes = {
        name: with_storage(node(name, 4, NearestStorage=near), stores) for name, near in {"a": "s", "b": "t"}.items()
    }
    assert match_gang(ports, {"node": nodes, "store": stores}) == {"node": "b", "store": "t"}


def test_a_search_for_a_gang_ends() -> None:
    nodes = {f"n{n}": node(f"n{n}", 4, Subnet=n) for n in range(40)}
    ports = [Port(f"p{n}", task_ad(Needs())) for n in range(6)]
    ports.append(Port("never", task_ad(Needs(), requirements="TARGET.Subnet < 0")))
    with pytest.raises(UsageError, match="no gang was found"):
        match_gang(ports, {"node": nodes}, most_steps=5000)
