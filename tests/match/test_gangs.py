from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serai.describe.task import Needs
from serai.errors import UsageError
from serai.match.ads import node_ad, parse_ad, task_ad
from serai.match.bilateral import with_storage
from serai.match.gangs import Port, match_gang

if TYPE_CHECKING:
    import classad2


def node(name: str, gib: int, **extra: object) -> classad2.ClassAd:
    return node_ad(name, {"cores": 4, "memory_bytes": gib << 30}, extra)


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
