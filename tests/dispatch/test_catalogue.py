"""Who has which file, and where a node is sent for it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from serai.data.digests import Digests
from serai.dispatch.files import catalogue
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.files.origins import SMALLEST, Found, look, version_key
from serai.dispatch.schedule import events as ev
from serai.match.movement import Move, Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

A, B = "a" * 64, "b" * 64


@dataclass(frozen=True)
class Named:
    name: str

    def is_of(self, ad: Mapping[str, Any]) -> bool:
        return bool(ad.get("host") == self.name)


class Told:
    """A catalogue and what it told."""

    def __init__(self, **more: Any) -> None:
        self.events: list[Any] = []
        self.frames: list[tuple[str, dict[str, Any]]] = []
        self.catalogue = Catalogue(self.events.append, **more)
        self.catalogue.to_node = lambda node, frame: self.frames.append((node, wire.unpack(frame)[3]))

    def came(self, node: str, *has: str, port: int = 0) -> list[int]:
        found: list[list[int]] = []
        self.catalogue.came(node, {"host": node}, has, found.append)
        if port:
            self.catalogue.serves(node, ["10.0.0.1"], port)
        return found[0]

    def take(self) -> list[Any]:
        events, self.events[:] = list(self.events), []
        return events

    def sources(self, node: str, number: int, *moves: Move) -> list[Any]:
        ((_, _, _, front_first, sources),) = self.catalogue.needs(node, [number], moves)["files"]
        return ["front" if front_first else ""] + [[name, path] for name, _, _, path in sources]


def test_an_origin_with_one_stamp_has_one_number() -> None:
    told = Told()
    one = Found("/x", 10, ("10", "1"))
    assert told.catalogue.add([one, one, Found("/y", 20, ("20", "1"))]) == [1, 1, 2]
    assert told.catalogue.add([one]) == [1]
    assert told.take() == [ev.FilesAdded([1, 2], [10, 20])]
    assert told.catalogue.add([Found("/x", 10, ("10", "2"))]) == [3]
    assert told.catalogue.number("/x") == 3
    assert len(told.catalogue) == 3


def test_caches_are_known_by_digests_learnt_before_or_after() -> None:
    told = Told(remembered=lambda asked: [A if origin == "/a" else "" for origin, _ in asked])
    assert told.came("n1", A) == []
    assert told.catalogue.add([Found("/a", 1, ("1",)), Found("/b", 2, ("2",))]) == [1, 2]
    assert told.take() == [ev.FilesAdded([1, 2], [1, 2]), ev.Cached("n1", [1])]
    assert told.came("n2", A, B) == [1]
    told.catalogue.learn(2, B)
    assert told.take() == [ev.Cached("n2", [2])]
    told.catalogue.holds("n2", [], [A, B])
    told.catalogue.holds("n1", [B], [])
    assert told.take() == [ev.Evicted("n2", [1, 2]), ev.Cached("n1", [2])]
    told.catalogue.lost("n1")
    assert told.catalogue.file(2).holders == set()


def test_what_moved_is_told_with_its_pair_and_what_was_not_kept_is_gone_again() -> None:
    learnt: list[tuple[str, tuple[str, ...], str]] = []
    told = Told(learnt=lambda *one: learnt.append(one))
    told.came("n1")
    told.catalogue.add([Found("/a", 5, ("5",))])
    told.take()
    facts = {"digest": A, "bytes": 5, "took": 0.5}
    told.catalogue.moved("n1", 1, {**facts, "way": "from", "from": "n2", "kept": True})
    assert told.take() == [ev.Moved("n1", 1, "n2", 5, 0.5)]
    told.catalogue.moved("n3", 1, {**facts, "way": "sent", "from": "", "kept": False})
    assert told.take() == [ev.Moved("n3", 1, "", 5, 0.5), ev.Evicted("n3", [1])]
    told.catalogue.moved("n3", 1, {"why": "nobody has it"})
    assert told.take() == []
    assert told.catalogue.file(1).holders == {"n1"}
    assert told.catalogue.file(1).digest == A  # both say so
    assert learnt == []


def test_sources_are_the_one_that_is_advised_then_other_holders_then_the_front_end() -> None:
    told = Told(remembered=lambda asked: [A for _ in asked])
    told.catalogue.add([Found("/a", 1, ("1",))])
    for n, has in (("n1", [A]), ("n2", [A]), ("n3", []), ("silent", [A])):
        told.came(n, *has, port=0 if n == "silent" else 7)
    mine = f"objects/{A}"
    assert told.sources("n3", 1, Move(1, Way.STAGE, "n2")) == ["", ["n2", mine], ["n1", mine]]
    assert told.sources("n3", 1, Move(1, Way.STAGE)) == ["front", ["n1", mine], ["n2", mine]]
    assert told.sources("n1", 1, Move(1, Way.HERE)) == ["", ["n2", mine]]
    told.catalogue.lost("n2")
    assert told.sources("n3", 1, Move(1, Way.STAGE, "n2")) == ["", ["n1", mine]]


def test_what_lies_on_a_host_is_held_there_and_shared_with_peers() -> None:
    told = Told()
    told.came("lab1")
    told.catalogue.add([Found("any://lab1/x", 1, ("1", "17.250"), Named("lab1"), "/x")])
    assert told.take()[1:] == [ev.Cached("lab1", [1])]
    assert told.frames == [("lab1", {"files": {"1": ["/x", 1, "17.250"]}})]
    assert told.sources("lab2", 1, Move(1, Way.STAGE, "lab1")) == [""]  # nobody knows its address yet
    told.catalogue.serves("lab1", ["10.0.0.1"], 9)
    assert told.sources("lab2", 1, Move(1, Way.STAGE, "lab1")) == ["", ["lab1", "files/1"]]
    told.catalogue.lost("lab1")
    assert told.came("lab1") == [1]
    assert told.frames[1:] == [("lab1", {"files": {"1": ["/x", 1, "17.250"]}})]
    assert told.came("lab2") == []


def test_what_lies_here_is_held_by_nodes_that_are_this_machine() -> None:
    told = Told()
    told.catalogue.here("local")
    told.catalogue.add([Found("/a", 1, ("1",)), Found("memory://b", 1, ("1",))])
    assert told.take()[1:] == [ev.Cached("local", [1])]
    assert told.came("local", port=9) == [1]
    assert told.sources("n", 1, Move(1, Way.STAGE, "local")) == [""]  # the front end gives what lies here


def test_only_files_that_are_large_and_no_programs_are_catalogued(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(SMALLEST - 1))
    assert look(str(path)) is None
    path.write_bytes(bytes(SMALLEST))
    found = look(str(path))
    assert found is not None
    assert found[0] == SMALLEST
    path.chmod(0o755)
    assert look(str(path)) is None
    assert look(str(tmp_path)) is None


def test_a_path_that_has_changed_has_another_number(tmp_path: Path) -> None:
    told = Told()
    path = str(tmp_path / "x")
    (tmp_path / "x").write_bytes(bytes(SMALLEST))
    found = look(path)
    assert found is not None
    assert told.catalogue.number_now(path) is None
    told.catalogue.add([Found(path, *found)])
    assert told.catalogue.number_now(path) == 1
    os.utime(path, (5, 5))
    assert told.catalogue.number_now(path) == 2
    os.unlink(path)
    assert told.catalogue.number_now(path) is None


def test_no_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="hex"):
        Told().catalogue.holds("n", ["zz"], [])


def test_digests_are_remembered_while_the_stamp_says_so(tmp_path: Path) -> None:
    now = 2e9
    one = Digests(tmp_path, lambda: now)
    stamp, young, coarse = ("10", "1500000000123456789"), ("10", "1999999999990000001"), ("10", "1999999998000000000")
    assert [one.is_settled("/a", each) for each in (stamp, young, coarse)] == [True, False, False]
    assert one.is_settled("https://x", ("10", "None", "etag"))
    one.put("/a", stamp, A)
    one.put("memory://x", ("10", "None", "None"), A)
    one.put("https://x", ("10", "None", "etag"), B)
    one.close()
    other = Digests(tmp_path, lambda: now)
    assert other.get([("/a", stamp), ("/a", ("10", "2")), ("/b", stamp)]) == [A, "", ""]
    assert other.get([("memory://x", ("10", "None", "None")), ("https://x", ("10", "None", "etag"))]) == ["", B]
    other.close()


def test_where_nothing_can_be_remembered_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "digests.db").write_text("this is no database", encoding="ascii")
    one = Digests(tmp_path, lambda: 2e9)
    one.put("/a", ("10", "1"), A)
    assert one.get([("/a", ("10", "1"))]) == [""]
    one.close()


@pytest.mark.parametrize("digest", ["", "zz", A[:-1], A.upper(), f"../{A}"])
def test_a_digest_that_is_none_is_neither_learnt_nor_remembered(digest: str) -> None:
    learnt: list[Any] = []
    told = Told(learnt=lambda *one: learnt.append(one), remembered=lambda asked: [digest for _ in asked])
    told.catalogue.add([Found("/a", 5, ("5",))])
    with pytest.raises(ValueError, match="no digest"):
        told.catalogue.moved("n1", 1, {"digest": digest, "bytes": 5, "took": 0.5, "way": "sent", "kept": True})
    assert (told.catalogue.file(1).digest, learnt) == ("", [])
    assert told.came("n2", A) == []  # and other nodes check in


def test_a_node_that_came_back_as_another_host_has_not_what_lay_on_the_first() -> None:
    told = Told()
    told.came("login")
    told.catalogue.add([Found("any://login/x", 1, ("1",), Named("login"), "/x")])
    told.catalogue.lost("login")
    found: list[list[int]] = []
    told.catalogue.came("login", {"host": "login2"}, [], found.append)
    assert found == [[]]
    assert told.catalogue.file(1).lies == {}


class Granting:
    """Makes grants that say what they were asked for."""

    def __init__(self) -> None:
        self.expected: list[str] = []
        self.asked: list[tuple[str, bool, bool]] = []

    def expect(self, urls: Iterable[str]) -> None:
        self.expected += urls

    def grant(self, url: str, version: tuple[str, str], *, anew: bool = False, wait_s: float = 0.0) -> dict[str, Any]:
        self.asked.append((url, anew, wait_s > 0))
        return {"name": "store far", "url": url, "etag": version[0]}


def test_a_file_with_an_origin_is_read_there_when_that_is_advised_and_before_the_front_end_is_asked() -> None:
    told, granting = Told(), Granting()
    told.catalogue.grants = granting
    told.catalogue.origin_of = lambda url: "store far" if url.startswith("store:") else ""
    told.catalogue.add([Found("store://far/x", 9, ("9", '"v"'), version=('"v"', "")), Found("/y", 9, ("9",))])
    assert told.take() == [ev.FilesAdded([1, 2], [9, 9], ["store far", ""])]
    assert granting.expected == ["store://far/x"]
    told.came("n1")
    told.came("n2", A, port=7)
    told.catalogue.learn(1, A)
    key = version_key(told.catalogue.file(1))
    grant = {"name": "store far", "url": "store://far/x", "etag": '"v"', "key": key}
    peer = ["n2", ["10.0.0.1"], 7, f"objects/{A}"]
    ways = {
        "store far": ([grant, peer], 0, True),
        "n2": ([peer, grant], 0, False),
        "": ([peer], 1, None),
    }
    for source, (wanted, front_first, waits) in ways.items():
        granting.asked.clear()
        (found,) = told.catalogue.needs("n1", [1], [Move(1, Way.STAGE, source)])["files"]
        assert (found[4], found[3]) == (wanted, front_first), source
        assert granting.asked == ([] if waits is None else [("store://far/x", False, waits)])
    (found,) = told.catalogue.needs("n1", [2], [Move(2, Way.STAGE)])["files"]
    assert found[3:] == [1, []]
    assert told.catalogue.grant(2) == {}


def test_a_version_that_only_its_size_tells_is_remembered_on_no_node() -> None:
    told = Told()
    told.catalogue.grants, told.catalogue.origin_of = Granting(), lambda _url: "web far"
    told.catalogue.add([Found("https://far/x", 9, ("9", "None", "")), Found("https://far/y", 9, ("9", "12.5"))])
    assert told.catalogue.grant(1) == {"name": "store far", "url": "https://far/x", "etag": ""}
    assert told.catalogue.grant(2)["key"] == version_key(told.catalogue.file(2))


def test_who_could_not_read_from_an_origin_is_told_of_for_its_own_files_only() -> None:
    told = Told()
    told.catalogue.origin_of = lambda _url: "store far"
    told.catalogue.add([Found("store://far/x", 9, ("9",))])
    told.came("n1")
    told.take()
    told.catalogue.moved("n1", 1, {"why": "all failed", "missed": {"store far": "refused", "store other": "too"}})
    assert told.take() == [ev.Unreached("n1", "store far")]


def test_many_slow_origins_together_hold_up_a_node_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks sends nothing else to the node meanwhile, which gives up a front end that is silent."""
    waited: list[float] = []

    class Slow(Granting):
        def grant(
            self, url: str, version: tuple[str, str], *, anew: bool = False, wait_s: float = 0.0
        ) -> dict[str, Any]:
            waited.append(wait_s)
            threading.Event().wait(wait_s)
            return {}

    monkeypatch.setattr(catalogue, "GRANT_S", 0.2)
    told = Told()
    told.catalogue.grants = Slow()
    told.catalogue.origin_of = lambda url: url.rpartition("/")[0]
    told.catalogue.add([Found(f"s3://bucket{n}/x", 9, ("9",)) for n in range(20)])
    told.came("n1")
    told.catalogue.needs("n1", range(1, 21), [Move(n, Way.STAGE, f"s3://bucket{n - 1}") for n in range(1, 21)])
    assert len(waited) == 20
    assert sum(waited) < 0.4


@pytest.mark.parametrize(("moved", "took_s"), [(-1, 1.0), (1 << 63, 1.0), (5, float("nan")), (5, "inf"), (5, -1.0)])
def test_what_cannot_have_been_moved_is_told_nobody(moved: Any, took_s: Any) -> None:
    told = Told()
    told.catalogue.add([Found("/a", 5, ("5",))])
    told.came("n1")
    told.take()
    with pytest.raises(ValueError, match="bytes in that time cannot be"):
        told.catalogue.moved("n1", 1, {"digest": A, "bytes": moved, "took": took_s, "way": "sent", "kept": True})
    assert told.take() == []
