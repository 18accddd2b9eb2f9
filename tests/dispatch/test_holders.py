"""Who is believed about what a file is, and that no word of a node costs by all files."""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from serai.data.digests import Digests
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.files.filling import Filler
from serai.dispatch.files.origins import SMALLEST, Found, look
from serai.dispatch.schedule import events as ev
from serai.match.movement import Move, Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TRUE, FALSE = "a" * 64, "b" * 64
STAMP = ("5", "12.5")


@dataclass(frozen=True)
class Named:
    name: str

    def is_of(self, ad: Mapping[str, Any]) -> bool:
        return bool(ad.get("host") == self.name)


class Front:
    """A front end's catalogue, what it told the schedule, and what it would remember for later runs."""

    def __init__(self, nodes: Sequence[str] = ("n1", "n2", "n3")) -> None:
        self.events: list[Any] = []
        self.learnt: list[tuple[str, tuple[str, ...], str]] = []
        self.catalogue = Catalogue(self.events.append, learnt=lambda *one: self.learnt.append(one))
        for node in nodes:
            self.catalogue.came(node, {"host": node}, [], lambda _files: None)
            self.catalogue.serves(node, ["10.0.0.1"], 7)

    def said(self, node: str, digest: str, source: str = "lab", way: str = "from", *, kept: bool = True) -> None:
        head = {"digest": digest, "way": way, "from": source, "bytes": 5, "took": 0.5, "kept": kept}
        self.catalogue.moved(node, 1, head)

    def need(self, node: str, source: str = "") -> tuple[str, list[str]]:
        """The digest that a node is told of the file, and where it is sent for it."""
        ((_, _, digest, _, sources),) = self.catalogue.needs(node, [1], [Move(1, Way.STAGE, source)])["files"]
        return digest, [f"{name} {path}" for name, _, _, path in sources]

    def fill(self, node: str = "n3") -> dict[str, Any]:
        """Have the front end give the file to a node; returns the head of the last piece."""
        heads: list[dict[str, Any]] = []
        ended = threading.Event()

        def send(frame: bytes) -> None:
            heads.append(wire.unpack(frame)[3])
            if heads[-1]:
                ended.set()

        filler = Filler(node, self.catalogue, send)
        filler.ask(1, 1)
        assert ended.wait(40)
        filler.close()
        return heads[-1]


# ---- who is believed


def test_what_one_node_says_is_used_for_it_alone_and_remembered_for_nobody() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    assert front.need("n1") == (FALSE, [])
    assert front.need("n2", "n1") == ("", [])
    assert front.catalogue.holders(1, "n2") == []
    assert front.catalogue.file(1).holders == {"n1"}  # so that tasks go to it
    assert front.learnt == []


def test_what_two_nodes_say_is_known_to_this_run_and_no_other() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", TRUE)
    front.said("n1", TRUE)  # the same one again
    assert front.catalogue.file(1).digest == ""
    front.said("n2", TRUE)
    assert front.need("n3", "n1") == (TRUE, [f"n1 objects/{TRUE}", f"n2 objects/{TRUE}"])
    assert front.learnt == []


def test_what_a_node_found_in_a_cache_that_others_share_is_no_second_word() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    front.said("n2", FALSE, way="cached")  # an executor beside that of n1, say: nobody has read it again
    assert front.catalogue.file(1).digest == ""
    assert front.need("n2") == (FALSE, [])
    assert front.need("n3", "n1") == ("", [])
    front.catalogue.lost("n1")
    front.said("n2", FALSE)  # now it has
    front.catalogue.came("n4", {}, [], lambda _files: None)
    front.said("n4", FALSE, way="cached")  # n1 by another name
    assert front.catalogue.file(1).digest == ""
    front.said("n3", FALSE)
    assert front.catalogue.file(1).digest == FALSE


def test_of_a_server_that_tells_no_versions_it_is_said_once() -> None:
    front, said = Front(), list[str]()
    front.catalogue.say = said.append
    alone, told = ("5", "None", "None"), ("5", "None", "etag")
    urls = [f"https://me:sesame@data.lab/{n}?key=sesame" for n in range(3)]
    front.catalogue.add([Found(urls[0], 5, told), Found("any://lab/x", 5, alone), Found("/d/x", 5, ("5",))])
    assert said == []
    for url in urls[1:]:
        front.catalogue.add([Found(url, 5, alone)])
    assert len(said) == 1
    assert said[0].startswith("data.lab: ")
    assert "sesame" not in said[0]


def test_of_a_node_that_is_gone_nothing_is_remembered() -> None:
    front = Front(())
    front.catalogue.here("me")
    for n in range(100):
        front.catalogue.came(f"n{n}", {"host": "lab"}, [TRUE], lambda _files: None)
        front.catalogue.serves(f"n{n}", ["10.0.0.1"], 7)
        if n == 0:
            front.catalogue.add([Found("any://lab/x", 5, STAMP, Named("lab"), "/x"), Found("any://far/y", 5, STAMP)])
        front.said(f"n{n}", FALSE)
        assert front.catalogue.holders(1, "far") == [(f"n{n}", "files/1")]
        front.catalogue.lost(f"n{n}")
    file, who = front.catalogue.file(1), front.catalogue._who
    assert not any([file.lies, file.holders, file.said, file.read_by, who.peers, who._lying, who._caches])
    assert not any(who._hosts.values())


def test_two_executors_on_one_machine_are_one_witness() -> None:
    front = Front(())
    for node, host in (("n1", "lab"), ("n2", "lab"), ("n3", "far")):
        front.catalogue.came(node, {"host": host, "boot": "1"}, [], lambda _files: None)
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    front.said("n2", FALSE)
    assert front.catalogue.file(1).digest == ""
    front.said("n3", FALSE)
    assert front.catalogue.file(1).digest == FALSE


def test_a_node_that_says_something_else_than_others_has_not_what_they_have() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    front.said("n2", TRUE)
    front.events.clear()
    front.said("n3", TRUE)
    assert front.catalogue.file(1).holders == {"n2", "n3"}
    assert ev.Evicted("n1", [1]) in front.events
    front.said("n1", FALSE)
    assert front.events[-2:] == [ev.Moved("n1", 1, "lab", 5, 0.5), ev.Evicted("n1", [1])]
    front.said("n1", FALSE, way="cached")
    assert front.events[-1] == ev.Evicted("n1", [1])
    assert front.catalogue.file(1).digest == TRUE


def test_what_the_front_end_read_itself_counts_and_is_remembered() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    front.said("n2", FALSE)
    front.catalogue.reader = lambda _origin, _stamp: iter([b"hel", b"lo"])
    true = hashlib.blake2b(b"hello", digest_size=32).hexdigest()
    assert front.fill() == {"end": 1}
    assert front.learnt == [("any://lab/x", STAMP, true)]
    assert front.need("n3") == (true, [])
    front.fill()
    assert len(front.learnt) == 1


@pytest.mark.parametrize("age_s", [0.01, 0.2])
def test_what_was_young_when_its_reading_began_is_not_remembered_however_long_that_took(
    tmp_path: Path, age_s: float
) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(SMALLEST))
    found = look(str(path))
    assert found is not None
    now = [int(found[1][-1]) * 1e-9 + age_s]
    digests = Digests(tmp_path / "state", lambda: now[0])
    front = Front()
    front.catalogue = Catalogue(front.events.append, learnt=digests.put, settled=digests.is_settled)
    front.catalogue.add([Found(str(path), *found)])
    ended = threading.Event()

    def send(frame: bytes) -> None:
        now[0] += 10.0  # it is sent slowly: who writes meanwhile to what was read, in the same moment as before, …
        if wire.unpack(frame)[3]:
            ended.set()

    filler = Filler("n1", front.catalogue, send)
    filler.ask(1, 1)
    assert ended.wait(10)
    filler.close()
    digests.close()
    assert front.catalogue.file(1).digest
    assert [bool(one) for one in digests.get([(str(path), found[1])])] == [age_s > 0.1]  # … is not seen


def test_what_the_front_end_has_from_a_node_is_not_remembered_and_must_be_what_is_known() -> None:
    front = Front(["lab", "n3"])
    front.catalogue.add([Found("any://lab/x", 5, STAMP, Named("lab"), "/x")])
    front.catalogue.read_from = lambda _node, _name, at, _length: b"hello"[at:]
    assert front.fill() == {"end": 1}  # nobody here reads its origin
    assert front.catalogue.file(1).digest == hashlib.blake2b(b"hello", digest_size=32).hexdigest()
    assert front.learnt == []
    front.catalogue.read_from = lambda _node, _name, at, _length: b"jello"[at:]
    assert front.fill() == {"bad": "what another node gave of it is something else"}
    assert front.catalogue.file(1).digest == hashlib.blake2b(b"hello", digest_size=32).hexdigest()


def test_a_lost_node_has_no_say() -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.said("n1", FALSE)
    front.catalogue.lost("n1")
    front.said("n2", FALSE)
    assert front.catalogue.file(1).digest == ""
    front.catalogue.holds("n2", [], [FALSE])
    assert front.catalogue.file(1).holders == set()
    front.said("n3", FALSE)
    assert front.catalogue.file(1).digest == ""  # n2 has not that any more of which it said so


def test_files_of_one_digest_are_told_of_each(tmp_path: Path) -> None:
    front = Front()
    front.catalogue.add([Found(str(tmp_path / name), 5, STAMP) for name in "xy"])
    front.catalogue.learn(1, TRUE)
    front.catalogue.learn(2, TRUE)
    front.events.clear()
    front.said("n1", TRUE, way="sent", source="")
    front.catalogue.holds("n1", [TRUE], [])
    assert front.events == [ev.Cached("n1", [2]), ev.Moved("n1", 1, "", 5, 0.5)]


def test_what_a_node_calls_a_digest_is_one() -> None:
    front = Front()
    for wrong in ("", "zz", "A" * 64, "a" * 66, " " + "a" * 63):
        with pytest.raises(ValueError, match="no digest"):
            front.catalogue.holds("n1", [wrong], [])


@pytest.mark.parametrize("measured", [{"took": float("nan")}, {"took": float("inf")}, {"took": -1.0}, {"bytes": -5}])
def test_what_a_node_cannot_have_measured_is_no_measurement(measured: dict[str, float]) -> None:
    front = Front()
    front.catalogue.add([Found("any://lab/x", 5, STAMP)])
    front.events.clear()
    with pytest.raises(ValueError, match="bytes in"):
        front.catalogue.moved(
            "n1", 1, {"digest": TRUE, "way": "from", "from": "n2", "bytes": 5, "took": 1.0, **measured}
        )
    assert front.events == []


# ---- what it costs


class NotWalked(dict[Any, Any]):
    """A table that nobody may go through."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("somebody goes through all of it")

    keys = values = items = __iter__  # type: ignore[assignment]


def test_no_word_of_a_node_costs_by_all_files_or_all_nodes() -> None:
    asked: list[str] = []

    @dataclass(frozen=True)
    class Counted(Named):
        def is_of(self, ad: Mapping[str, Any]) -> bool:
            asked.append(self.name)
            return super().is_of(ad)

    front = Front([f"n{n}" for n in range(50)])
    catalogue = front.catalogue
    files = [Found(f"/{n}", 1, STAMP) for n in range(500)]
    files += [Found(f"ssh://n1/{n}", 1, STAMP, Counted("n1"), f"/{n}") for n in range(500)]
    catalogue.add(files)
    assert len(asked) <= 50  # once for each node, and not for each file
    asked.clear()
    catalogue._files = NotWalked(catalogue._files)
    who = catalogue._who
    for name in ("peers", "_files", "_caches", "_local"):
        setattr(who, name, NotWalked(getattr(who, name)))
    catalogue.learn(7, TRUE)
    catalogue.holds("n2", [TRUE], [])
    catalogue.learn(8, TRUE)
    catalogue.lost("n2")
    catalogue.came("n2", {"host": "n2"}, [TRUE], front.events.append)
    assert front.events[-1] == [7, 8]
    catalogue.came("n1", {"host": "n1"}, [], front.events.append)
    assert front.events[-1] == list(range(501, 1001))
    catalogue.holds("n2", [], [TRUE])
    front.said("n3", TRUE, way="sent", source="")
    assert len(asked) == 2


# ---- that nobody waits for what was remembered


def test_a_database_that_somebody_else_has_locked_holds_up_nobody(tmp_path: Path) -> None:
    one = Digests(tmp_path, lambda: 2e9)
    one.put("/a", ("10", "1"), TRUE)
    one.close()
    import sqlite3  # noqa: PLC0415 - of this test alone

    other = sqlite3.connect(tmp_path / "digests.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    held = Digests(tmp_path, lambda: 2e9)
    done = threading.Event()

    def use() -> None:
        for n in range(500):
            held.put(f"/{n}", ("10", "1"), TRUE)
        assert held.get([("/a", ("10", "1"))]) == [""]
        done.set()

    threading.Thread(target=use, daemon=True).start()
    assert done.wait(10.0)  # who waits for it does so for longer, each of 500 times
    other.execute("COMMIT")
    other.close()
    assert held.get([("/a", ("10", "1"))]) == [TRUE]
    held.close()
    assert Digests(tmp_path, lambda: 2e9).get([("/499", ("10", "1"))]) == [TRUE]


def test_what_was_remembered_is_asked_for_while_nobody_waits_for_the_catalogue() -> None:
    asking, go_on = threading.Event(), threading.Event()

    def slowly(asked: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
        asking.set()
        assert go_on.wait(60)
        return [TRUE for _ in asked]

    catalogue = Catalogue(lambda _event: None, remembered=slowly)
    adds = threading.Thread(target=lambda: catalogue.add([Found("/a", 1, STAMP), Found("/b", 1, STAMP)]))
    adds.start()
    assert asking.wait(40)
    others = threading.Thread(target=lambda: catalogue.lost("n1"))
    others.start()
    others.join(20)
    free = not others.is_alive()
    go_on.set()
    adds.join(40)
    assert free
    assert catalogue.file(2).digest == TRUE


# ---- in any order


class Run:
    """A catalogue that hears whatever nodes may say, and what its schedule believes."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._nodes, self._digests = [f"n{n}" for n in range(4)], [f"{n:064x}" for n in range(5)]
        self.told: dict[str, set[int]] = {}
        self.catalogue = Catalogue(self._tell, remembered=self._remembered)
        self.catalogue.here("n0")
        self.there: set[str] = set()

    def _remembered(self, asked: Sequence[object]) -> list[str]:
        return [self._draw.choice(["", *self._digests]) for _ in asked]

    def _tell(self, event: ev.Event) -> None:
        if isinstance(event, ev.Cached):
            self.told.setdefault(event.node, set()).update(event.files)
        elif isinstance(event, ev.Moved):
            self.told.setdefault(event.node, set()).add(event.file)
        elif isinstance(event, ev.Evicted):
            self.told.setdefault(event.node, set()).difference_update(event.files)

    def step(self) -> None:
        draw, catalogue = self._draw, self.catalogue
        node, digest = draw.choice(self._nodes), draw.choice(self._digests)
        number = draw.randrange(len(catalogue)) + 1 if len(catalogue) else 0
        deed = draw.randrange(7)
        if node not in self.there:
            self._comes(node)
        elif deed == 0 and len(catalogue) < 12:
            self._adds()
        elif deed == 1:
            catalogue.lost(node)
            self.there.discard(node)
            del self.told[node]
        elif deed <= 3:
            catalogue.holds(node, draw.sample(self._digests, 1), draw.sample(self._digests, 1))
        elif number and deed == 4:
            catalogue.learn(number, digest)
        elif number:
            head = {"digest": digest, "way": draw.choice(["cached", "from", "sent"]), "bytes": 1, "took": 0.1}
            catalogue.moved(node, number, {**head, "kept": draw.random() < 0.8})

    def _comes(self, node: str) -> None:
        ad = {"host": self._draw.choice(self._nodes)}
        has = self._draw.sample(self._digests, self._draw.randrange(4))
        self.catalogue.came(node, ad, has, lambda files: self.told.__setitem__(node, set(files)))
        self.there.add(node)

    def _adds(self) -> None:
        name = str(len(self.catalogue))
        host = Named(self._draw.choice(self._nodes)) if self._draw.random() < 0.5 else None
        origin = f"/{name}" if host is None else f"ssh://{host.name}/{name}"
        self.catalogue.add([Found(origin, 1, STAMP, host, f"/{name}" if host else "")])

    def check(self) -> None:
        files = [self.catalogue.file(number + 1) for number in range(len(self.catalogue))]
        for node in self.there:
            assert self.told[node] == {file.number for file in files if node in file.holders | {*file.lies}}
        for file in files:
            if file.digest:
                peers = {node: self.catalogue._who.peers[node] for node in self.there}
                have = {node for node, peer in peers.items() if bytes.fromhex(file.digest) in peer.digests}
                assert file.holders == have
                assert not file.said


@pytest.mark.parametrize("seed", range(40))
def test_the_schedule_is_told_what_is_so(seed: int) -> None:
    """Whatever nodes say in whatever order, what the schedule was told is what nodes have."""
    run = Run(seed)
    for _ in range(200):
        run.step()
        run.check()
