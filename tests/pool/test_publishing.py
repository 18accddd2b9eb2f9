"""Ads of nodes while a run lives, and the ads of stores for it: with the real advert service."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from serai.adverts.service import Adverts, open_adverts
from serai.errors import HostUnreachable
from serai.match.communities import Closeness
from serai.pool.nearness import closeness, loads, not_there, places
from serai.pool.publishing import Publisher, Rhythm, attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

QUICK = Rhythm(first_s=0.0, look_s=0.02, renew_s=0.2, life_s=5.0)
FACTS = {
    "cores": 4, "slots": 2, "memory_bytes": 4 << 30, "python": [3, 11, 2],
    "software": {"ompi_info": True, "gcc": False},
    "host": "n1", "base": "/scratch/x", "executable": "/usr/bin/python3", "pid": 17, "uid": 1000,
}  # fmt: skip


def until(what: Callable[[], Any], why: str, within_s: float = 40.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def publishing(
    nodes: dict[str, dict[str, Any]], service: Callable[[], Adverts] = open_adverts
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    stores: dict[str, Any] = {}
    said: list[str] = []

    def told(news: Mapping[str, Any]) -> None:
        stores.update(news)

    one = Publisher("run-1", service, lambda: dict(nodes), told, said.append, QUICK)
    one.start(now=True)
    try:
        yield stores, said
    finally:
        one.close()
    assert not any(thread.name == "publish" for thread in threading.enumerate())


def test_nodes_are_advertised_while_the_run_lives_and_not_longer() -> None:
    nodes: dict[str, dict[str, Any]] = {"a": {"Name": "a", "LoadAvg": 0.1}, "me@b:22": {"Name": "b"}}
    with open_adverts() as adverts:
        with publishing(nodes) as (_, said):
            until(lambda: len(adverts.list("/nodes/run-1")) == 2, "both are there")
            first = adverts.get("/nodes/run-1/a")
            assert first is not None
            assert first.expires is not None
            nodes["a"] = {"Name": "a", "LoadAvg": 5.0}
            until(lambda: (adverts.get("/nodes/run-1/a") or first).expires > first.expires, "it is renewed")  # type: ignore[operator]
            until(lambda: (adverts.get("/nodes/run-1/a") or first).attributes["LoadAvg"] == 5.0, "with its load")
            del nodes["me@b:22"]
            until(lambda: len(adverts.list("/nodes/run-1")) == 1, "a node that is gone is not advertised")
        assert adverts.list("/nodes", recursive=True) == []
        assert said == []


def test_stores_that_come_change_and_go_are_told() -> None:
    with open_adverts() as adverts, publishing({}) as (stores, _):
        adverts.put("/stores/s", {"Name": "s", "Free": 1}, 60.0)
        until(lambda: stores == {"s": {"Name": "s", "Free": 1}}, "it came")
        adverts.put("/stores/s", {"Name": "s", "Free": 2}, 60.0)
        until(lambda: stores["s"]["Free"] == 2, "it changed")
        adverts.remove("/stores/s")
        until(lambda: stores == {"s": None}, "it went")


def test_a_service_that_is_dead_is_said_once_and_tried_again() -> None:
    tries: list[int] = []

    def service() -> Adverts:
        tries.append(1)
        if len(tries) < 5:
            raise HostUnreachable("nobody answers", host="db")
        return open_adverts()

    with open_adverts() as adverts, publishing({"a": {"Name": "a"}}, service) as (_, said):
        until(lambda: adverts.list("/nodes/run-1"), "it is back")
        assert len(said) == 1
        assert "nobody answers" in said[0]


def test_what_looks_like_a_secret_is_not_published_and_keeps_no_other_from_it() -> None:
    nodes = {"a": {"Name": "a", "ApiToken": "x"}, "b": {"Name": "b"}}
    with open_adverts() as adverts, publishing(nodes) as (_, said):
        until(lambda: adverts.get("/nodes/run-1/b"), "the other is there")
        until(lambda: said, "it is said")
        assert adverts.get("/nodes/run-1/a") is None


def test_an_ad_says_what_expressions_ask_for_and_no_more() -> None:
    declared = {
        "attributes": {"Mips": 600, "Night": "=ClockHour > 20"},
        "requirements": 'Owner == "ann"',
        "community": "uw",
    }
    beat = {"load": 0.5, "memory_free_bytes": 1 << 30, "disk_free_bytes": 1 << 20}
    ad = attributes("n1", {**FACTS, **declared}, beat, {"State": "Idle"}, "wisc")
    assert ad["Cpus"] == 2
    assert ad["Memory"] == 4096
    assert ad["MemoryFree"] == 1024
    assert ad["Disk"] == 1024
    assert ad["Software"] == ["ompi_info", "openmpi"]
    assert ad["Requirements"] == '=Owner == "ann"'
    assert (ad["NearestStorage"], ad["Community"], ad["Mips"], ad["LoadAvg"]) == ("wisc", "uw", 600, 0.5)
    assert not {"base", "executable", "pid", "uid", "url"} & {name.lower() for name in ad}


def test_stores_are_reached_where_they_can_be() -> None:
    stores: dict[str, dict[str, Any]] = {
        "here": {"Machine": "n1", "AccessURLs": ["file://n1/data", "http://127.0.0.1:9094/"]},
        "there": {"Machine": "n2", "AccessURLs": ["file://n2/data", "stores://n2.example/"]},
        "own": {"Machine": "n2", "AccessURLs": ["http://[::1]:80/"]},
        "odd": {"AccessURLs": ["http://x:notaport/", "what"]},
        "none": {"WaitingSeconds": 5, "Lots": True},
    }
    assert places(stores, "n1") == {"here": ("127.0.0.1", 9094), "there": ("n2.example", 9094)}
    assert places(stores, "n3") == {"there": ("n2.example", 9094)}
    near = closeness(places(stores, "n1"), {"127.0.0.1:9094": 0.001, "n2.example:9094": None})
    assert {name: one.rtt_s for name, one in near.items()} == {"here": 0.001}
    read = closeness(
        {"s": ("n2.example", 9094)}, {"n2.example:9094": 0.02}, lambda _host, port: 5e6 if port == 9094 else 0.0
    )
    assert read == {"s": Closeness(0.02, 5e6)}
    assert loads(stores) == {"none": 5.0}


def test_stores_that_nodes_name_and_nobody_knows() -> None:
    known = ["nestore.bologna", "nest.wisc"]
    assert not_there({"a": "nest.wisc", "b": "=TARGET.X", "c": ""}, known) == []
    (two,) = not_there({"a": "nestore.bolonga", "b": "nestore.bolonga"}, known)
    assert two.endswith("of the store nestore.bolonga, to which a, b refer; did you mean nestore.bologna?")
    assert not_there({"a": "x"}, []) == ["no pool file or advert tells of the store x, to which a refers"]
    (many,) = not_there({f"n{n}": "x" for n in range(9)}, [])
    assert "n0, n1, n2, n3 and 5 more refer" in many


def test_a_run_is_told_too_when_there_are_no_stores() -> None:
    told: list[Any] = []
    one = Publisher("run-1", open_adverts, dict, told.append, lambda _words: None, QUICK)
    one.start(now=True)
    until(lambda: told == [{}], "it has looked, and found none")
    one.close()
    assert told == [{}]
