"""A store that has too much to do says so, and gives nodes to another until it has time again."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.store.conftest import Store, until

import serai
from serai.adverts.service import open_adverts
from serai.apps.frontends.pool import Options
from serai.data.bodies.load import Load, is_news
from serai.dispatch.carrier import Timing
from serai.dispatch.run import Settings
from serai.match.communities import Rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODES = ["n0", "n1", "n2", "n3"]
BIG = 64 << 20  # more than the kernel's buffers of a connection take


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


def loaded(clock: Clock, load: Load, many: int, took_s: float, rounds: int = 1) -> float:
    """So many transfers at a time that take so long, again and again; returns the longest wait that was told."""
    most = 0.0
    for _ in range(rounds):
        under_way = [load.transfer() for _ in range(many)]
        for one in under_way:
            one.__enter__()
        for _ in range(int(took_s)):
            clock.at += 1.0
            most = max(most, load.waiting_s())
        for one in under_way:
            one.__exit__(None, None, None)
    return most


def test_as_many_transfers_as_are_served_at_a_time_wait_for_nobody() -> None:
    clock = Clock()
    load = Load(clock.now, at_once=16)
    assert loaded(clock, load, 16, 30.0, rounds=10) == 0.0
    assert load.under_way == 0


def test_a_new_transfer_waits_for_the_rounds_before_it() -> None:
    clock = Clock()
    load = Load(clock.now, at_once=10)
    assert loaded(clock, load, 40, 20.0, rounds=5) == pytest.approx(60.0, rel=0.02)
    clock.at += 30.0
    assert load.waiting_s() < 1.0, "and nobody when they have gone"


def test_a_burst_of_short_transfers_is_no_load_and_ones_that_never_end_are() -> None:
    clock = Clock()
    load = Load(clock.now, at_once=4)
    assert loaded(clock, load, 400, 1.0) < 20.0, "a hundred rounds of a second, for a second"
    clock.at += 60.0
    assert loaded(clock, load, 8, 120.0) > 100.0


def test_what_is_told_at_once() -> None:
    assert not is_news(0.0, 1.9)
    assert is_news(0.0, 2.0)
    assert not is_news(100.0, 140.0)
    assert is_news(100.0, 150.0)
    assert is_news(100.0, 50.0)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Store]]:
    """Two appliances, each with a big file, which say what they have to do in this test's advert service."""
    adverts = f"sqlite:{tmp_path / 'adverts.db'}"
    found = {}
    for name in ("sa", "sb"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "big").open("wb") as file:
            file.truncate(BIG)
        words = ("--name", name, "--adverts", adverts, "--at-once", "2")
        found[name] = Store(tmp_path / name, tmp_path / "config", *words)
    yield found
    for one in found.values():
        assert one.stop() == 0


def held(store: Store) -> socket.socket:
    """A transfer that is under way for as long as its peer does not read on."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(40)
    one.connect((store.host, store.port))
    head = f"GET /big HTTP/1.1\r\nHost: {store.host}\r\nAuthorization: Bearer {store.token}\r\n\r\n"
    one.sendall(head.encode())
    assert one.recv(12) == b"HTTP/1.1 200"
    return one


def test_nodes_go_from_a_store_that_is_busy_and_come_back(stores: dict[str, Store], tmp_path: Path) -> None:
    adverts = f"sqlite:{tmp_path / 'adverts.db'}"
    rules = Rules(nearer=20.0, stay_s=1.0, busy_s=8.0, idle_s=4.0, farthest=1e6)
    settings = Settings(timing=Timing(beat_s=0.2), adverts=adverts, communities=rules)
    sites = [f"local://{name}?slots=1" for name in NODES]
    with (
        serai.Pool(*sites, options=Options(settings=settings, runs=tmp_path / "runs")) as pool,
        open_adverts(adverts) as service,
    ):

        def waiting(store: str) -> float:
            entry = service.get(f"/stores/{store}")
            return -1.0 if entry is None else float(str(entry.attributes["WaitingSeconds"]))

        def nearest() -> dict[str, Any]:
            entries = service.each(f"/nodes/{pool.name}")
            return {entry.path.rpartition("/")[2]: entry.attributes.get("NearestStorage") for entry in entries}

        until(lambda: waiting("sa") == waiting("sb") == 0.0, "both say that nobody waits")
        until(lambda: len([store for store in nearest().values() if store]) == len(NODES), "all have a nearest store")
        home = nearest()
        busy = Counter(home.values()).most_common(1)[0][0]
        other = "sb" if busy == "sa" else "sa"
        transfers = [held(stores[busy]) for _ in range(14)]
        until(lambda: waiting(busy) >= 8.0, "it says that it is busy", 60.0)
        lent = until(lambda: {name for name, store in nearest().items() if home[name] == busy != store}, "one goes")
        assert 1 <= len(lent) <= Counter(home.values())[busy] // 2
        assert all(nearest()[name] == other for name in lent)
        assert waiting(other) == 0.0
        for one in transfers:
            one.close()
        until(lambda: nearest() == home, "they come back", 60.0)
        assert waiting(busy) <= 4.0
