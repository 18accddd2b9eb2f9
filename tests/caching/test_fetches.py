"""Files come to a node once, from whoever gives them, and whole."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access.stores.certificates import pinned_certificate
from serai.travel import peers
from serai.travel.caching import fetches
from serai.travel.caching.fetches import CACHED, FROM, SENT, Fetched, Fetches, Source, Wanted
from serai.travel.caching.objects import Cache, Filling, NoRoom, digest_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

DEADLINE_S = 40.0
DATA = os.urandom(700_000)


class Node:
    """A cache, what fetches into it, and its server."""

    def __init__(self, place: Path, secrets: dict[str, str], limit: int = 10_000_000) -> None:
        place.mkdir()
        self.place = place
        self.cache = Cache(str(place / "cache"), limit)
        self.asked: queue.Queue[tuple[int, int]] = queue.Queue()
        self.told: queue.Queue[Fetched] = queue.Queue()
        self.fetches = Fetches(
            self.cache, str(place / "held"), lambda *one: self.asked.put(one), self.told.put, str(place / "unreached")
        )
        self.fetches.peers = peers.Peers(secrets["cert"], secrets["key"], str(place))
        self.served: list[str] = []
        self.server = peers.Server(
            peers.listening_sockets(), secrets["cert"], secrets["key"], str(place), self.find, at_once=1
        )

    def find(self, name: str) -> peers.Offer | None:
        self.served.append(name)
        digest = name.removeprefix("objects/")
        return peers.Offer(self.cache.path(digest)) if self.cache.is_whole(digest) else None

    def source(self, digest: str) -> Source:
        return Source(self.place.name, ["127.0.0.1"], self.server.port, f"objects/{digest}")

    def keep(self, data: bytes) -> str:
        filling = self.cache.begin(len(data))
        filling.write(data)
        return self.cache.keep(filling)

    def answer(self, data: bytes, **last: Any) -> None:
        """Be the front end for one request."""
        number, attempt = self.asked.get(timeout=DEADLINE_S)
        self.fetches.piece(number, attempt + 1, {"bad": "of another attempt"}, b"")
        for at in range(0, len(data), 100_000):
            self.fetches.piece(number, attempt, {}, data[at : at + 100_000])
        self.fetches.piece(number, attempt, last or {"end": 1}, b"")

    def end(self) -> Fetched:
        return self.told.get(timeout=DEADLINE_S)

    def held(self, number: int) -> bytes:
        return Path(self.fetches.path(number)).read_bytes()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is there is reached, however busy this machine is: who is not reached is passed over."""
    monkeypatch.setattr(peers, "CONNECT_S", 30.0)


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    return pinned_certificate("test", time.time())


@pytest.fixture
def node(tmp_path: Path, secrets: dict[str, str]) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(name: str, **more: Any) -> Node:
        nodes.append(Node(tmp_path / name, secrets, **more))
        return nodes[-1]

    yield make
    for one in nodes:
        one.fetches.close()
        one.server.close()
        assert not list((one.place / "cache/coming").iterdir())


def test_the_front_end_gives_it_once_and_then_it_is_there(node: Callable[..., Node]) -> None:
    here = node("here")
    wanted = Wanted(7, len(DATA), "")
    assert here.fetches.want(wanted) is None
    assert here.fetches.want(wanted) is None  # somebody else wants it at the same moment
    here.answer(DATA)
    found = here.end()
    assert (found.number, found.way, found.moved, found.kept, found.why) == (7, SENT, len(DATA), True, "")
    assert here.held(7) == DATA
    assert found.digest == digest_of(here.fetches.path(7))
    at_once = here.fetches.want(Wanted(8, len(DATA), found.digest))
    assert at_once is not None
    assert (at_once.way, at_once.moved, here.held(8)) == (CACHED, 0, DATA)
    assert here.asked.empty()


def test_a_peer_gives_it_and_one_that_cannot_be_reached_is_passed_over(node: Callable[..., Node]) -> None:
    here, there = node("here"), node("there")
    digest = there.keep(DATA)
    dead = Source("dead", ["127.0.0.1"], 1, f"objects/{digest}")
    without = node("without").source(digest)
    here.fetches.want(Wanted(1, len(DATA), digest, [dead, without, there.source(digest)]))
    found = here.end()
    assert (found.way, found.source, found.moved) == (FROM, "there", len(DATA))
    assert here.held(1) == DATA
    assert here.asked.empty()


def test_a_peer_that_dies_in_the_middle_is_followed_by_the_front_end(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = node("here"), node("there")
    data = os.urandom(8_000_000)  # more than connections hold
    digest = there.keep(data)
    begun, write = threading.Event(), Filling.write

    def dying(self: Filling, data: bytes) -> None:
        write(self, data)
        if not begun.is_set():
            begun.set()
            there.server.close()

    monkeypatch.setattr(Filling, "write", dying)
    here.fetches.want(Wanted(1, len(data), digest, [there.source(digest)]))
    assert begun.wait(DEADLINE_S)
    here.answer(data)
    found = here.end()
    assert found.way == SENT
    assert found.moved > len(data)
    assert here.held(1) == data


def test_a_peer_that_gives_a_byte_now_and_then_is_followed_by_the_next(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRANSFER_S", 0.5)
    here, there = node("here"), node("there")
    digest, ended = there.keep(DATA), threading.Event()

    def trickle(_file: object, _start: int, _size: int, connection: ssl.SSLSocket, _offer: object) -> bool:
        while not ended.wait(0.05):
            connection.sendall(b"x")  # until it is not taken any more, or the test is over
        return False

    monkeypatch.setattr(peers, "pour", trickle)
    here.fetches.want(Wanted(1, len(DATA), digest, [there.source(digest)]))
    try:
        here.answer(DATA)
    finally:
        ended.set()
    found = here.end()
    assert (found.way, here.held(1)) == (SENT, DATA)
    assert there.served == [f"objects/{digest}"]


def test_a_peer_whose_object_was_altered_does_not_give_it(node: Callable[..., Node]) -> None:
    here, there = node("here"), node("there")
    digest = there.keep(DATA)
    path = Path(there.cache.path(digest))
    path.chmod(0o600)
    path.write_bytes(DATA[:-1] + b"\0")
    here.fetches.want(Wanted(1, len(DATA), digest, [there.source(digest)]))
    here.answer(DATA)
    assert here.end().way == SENT
    assert not there.cache.has(digest)


def test_the_front_end_first_where_it_is_nearest_and_peers_if_it_cannot(node: Callable[..., Node]) -> None:
    here, there = node("here"), node("there")
    digest = there.keep(DATA)
    here.fetches.want(Wanted(1, len(DATA), digest, [there.source(digest)], front_first=True))
    here.answer(DATA[:200_000], bad="its host is gone")
    found = here.end()
    assert (found.way, found.source, here.held(1)) == (FROM, "there", DATA)


def test_what_nobody_can_give_says_all_that_was_tried(node: Callable[..., Node]) -> None:
    here = node("here")
    here.fetches.want(Wanted(1, 10, "0" * 64, [node("there").source("0" * 64)]))
    here.answer(b"x" * 10)
    found = here.end()
    assert found.stamp is None
    assert "there: there is no such part" in found.why
    assert "the front end: its digest is another" in found.why
    here.fetches.want(Wanted(2, 10, ""))
    here.asked.get(timeout=DEADLINE_S)
    here.fetches.cut_off("the front end is gone")
    assert here.end().why == "the front end is gone"
    assert not os.listdir(here.place / "held")


def test_the_front_end_that_says_nothing_is_given_up(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "STALL_S", 0.05)
    monkeypatch.setattr(fetches, "LOOK_S", 0.01)
    here = node("here")
    here.fetches.want(Wanted(1, 10, ""))
    assert "nothing came from the front end" in here.end().why


def test_without_room_it_comes_for_this_once(node: Callable[..., Node]) -> None:
    here = node("here", limit=1000)
    here.fetches.want(Wanted(1, len(DATA), ""))
    here.answer(DATA)
    found = here.end()
    assert (found.kept, found.way, here.held(1)) == (False, SENT, DATA)
    assert here.cache.digests() == []
    here.fetches.let_go(1)
    assert not os.listdir(here.place / "held")


@pytest.mark.parametrize("trouble", ["nowhere to begin", "no name to be had"])
def test_what_is_wrong_with_the_cache_keeps_nobody_from_the_file(node: Callable[..., Node], trouble: str) -> None:
    here, there = node("here"), node("there")
    digest = there.keep(DATA)
    if trouble == "nowhere to begin":
        (here.place / "cache/coming").rmdir()  # by whoever clears old files away
    elif trouble == "no name to be had":
        (here.place / f"cache/objects/{digest[:2]}").write_text("no directory")
    here.fetches.want(Wanted(1, len(DATA), digest, [there.source(digest)]))
    found = here.end()
    assert (found.way, found.source, found.kept, found.why) == (FROM, "there", False, "")
    assert here.held(1) == DATA
    (here.place / "cache/coming").mkdir(exist_ok=True)


@pytest.mark.parametrize("by", ["a peer", "the front end"])
def test_a_disk_that_was_full_for_a_moment_is_tried_again(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    here, there = node("here"), node("there")
    digest, write = there.keep(DATA), Filling.write
    fills = [2]

    def full(self: Filling, data: bytes) -> None:
        fills[0] -= 1
        if not fills[0]:
            raise NoRoom("it cannot be written: No space left on device")
        write(self, data)

    monkeypatch.setattr(Filling, "write", full)
    here.fetches.want(Wanted(1, len(DATA), digest, [there.source(digest)] if by == "a peer" else []))
    if by == "the front end":
        here.answer(DATA)
        here.answer(DATA)
    found = here.end()
    assert (found.way, found.kept, found.why) == (FROM if by == "a peer" else SENT, True, "")
    assert here.held(1) == DATA


def test_a_source_serves_as_many_as_it_may(node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = node("here"), node("there")
    digest = there.keep(DATA)
    holds, write = threading.Event(), Filling.write
    first = threading.Event()

    def slow(self: Filling, data: bytes) -> None:
        if not first.is_set():
            first.set()
            assert holds.wait(DEADLINE_S)
        write(self, data)

    big = there.keep(os.urandom(8_000_000))
    monkeypatch.setattr(Filling, "write", slow)
    here.fetches.want(Wanted(1, 8_000_000, big, [there.source(big)]))
    assert first.wait(DEADLINE_S)
    here.fetches.want(Wanted(2, len(DATA), digest, [there.source(digest)]))
    here.answer(DATA)
    assert (found := here.end()).number == 2
    assert found.way == SENT
    holds.set()
    assert here.end().way == FROM
