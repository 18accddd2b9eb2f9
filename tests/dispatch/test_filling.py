"""What the front end sends of catalogued files, and says while it has nothing to send."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serai.dispatch.files import filling
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.files.filling import AT_ONCE, Filler
from serai.dispatch.files.origins import Found
from serai.errors import NodeLost, TransferFailed
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ABC = hashlib.blake2b(b"abc", digest_size=32).hexdigest()
Heard = tuple[int, dict[str, Any], bytes]


def refuse(_origin: str, _stamp: tuple[str, ...]) -> Iterator[bytes]:
    raise TransferFailed("it is away")


@pytest.fixture
def asked() -> Iterator[Callable[..., queue.Queue[Heard]]]:
    """Has a file asked for of a catalogue; gives what the node hears: numbers, heads and bytes."""
    fillers: list[Filler] = []

    def ask(catalogue: Catalogue, times: int = 1) -> queue.Queue[Heard]:
        heard: queue.Queue[Heard] = queue.Queue()

        def send(frame: bytes) -> None:
            _, attempt, _, head, body = wire.unpack(frame)
            heard.put((attempt, head, body))

        fillers.append(Filler("n", catalogue, send))
        catalogue.add([Found("memory://x", 3, ("3",))])
        for attempt in range(times):
            fillers[-1].ask(1, attempt)
        return heard

    yield ask
    for one in fillers:
        one.close()


def test_a_node_hears_that_an_origin_is_still_being_tried(asked: Callable[..., queue.Queue[Heard]]) -> None:
    catalogue = Catalogue(lambda _event: None)
    catalogue.reader = lambda _origin, _stamp: iter([None, None, b"abc"])
    heard = asked(catalogue)
    assert [heard.get(timeout=40)[1:] for _ in range(4)] == [({}, b""), ({}, b""), ({}, b"abc"), ({"end": 1}, b"")]


def test_a_node_hears_that_holders_are_asked_in_turn(asked: Callable[..., queue.Queue[Heard]]) -> None:
    catalogue = Catalogue(lambda _event: None, remembered=lambda asked: [ABC for _ in asked])
    catalogue.reader = refuse
    catalogue.read_from = lambda node, _name, _at, _length: b"abc" if node == "n2" else b""
    for node in ("n1", "n2"):
        catalogue.came(node, {}, [ABC], lambda _files: None)
    heard = asked(catalogue)
    assert [heard.get(timeout=40)[1:] for _ in range(4)] == [({}, b""), ({}, b""), ({}, b"abc"), ({"end": 1}, b"")]


def test_what_fails_in_an_unforeseen_way_is_told_and_further_files_come(
    asked: Callable[..., queue.Queue[Heard]],
) -> None:
    def lost(*_: object) -> bytes:
        raise NodeLost("it is gone")

    catalogue = Catalogue(lambda _event: None, remembered=lambda asked: [ABC for _ in asked])
    catalogue.reader, catalogue.read_from = refuse, lost
    catalogue.came("n1", {}, [ABC], lambda _files: None)
    times = 2 * AT_ONCE
    heard = asked(catalogue, times)
    told = [one for one in (heard.get(timeout=40) for _ in range(2 * times)) if one[1]]
    assert sorted(attempt for attempt, _, _ in told) == list(range(times))
    assert all("bad" in head for _, head, _ in told)


def test_it_ends_at_once_though_a_node_has_asked_for_as_much_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST_ASKED", 8)
    catalogue = Catalogue(lambda _event: None)
    catalogue.add([Found("memory://x", 3, ("3",))])
    sending, go_on = threading.Semaphore(0), threading.Event()

    def slow(_origin: str, _stamp: tuple[str, ...]) -> Iterator[bytes]:
        sending.release()
        go_on.wait(60)
        yield b"abc"

    catalogue.reader = slow
    one = Filler("n", catalogue, lambda _frame: None)
    for attempt in range(AT_ONCE):
        one.ask(1, attempt)
        assert sending.acquire(timeout=20)
    for attempt in range(8):
        one.ask(1, attempt)
    with pytest.raises(ValueError, match="cannot be asked for"):
        one.ask(1, 8)
    closing = threading.Thread(target=one.close, daemon=True)
    closing.start()
    closing.join(20)
    stuck = closing.is_alive()
    go_on.set()
    for thread in one._threads:
        thread.join(20)
    assert not stuck
    assert not any(thread.is_alive() for thread in one._threads)
