"""Replicas in the advert service: said, taken back, and never waited for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from serai.adverts.service import open_adverts
from serai.errors import HostUnreachable
from serai.pool import replicas
from serai.pool.replicas import REPLICAS, Replicas

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from serai.adverts.service import Adverts


def test_what_nodes_have_is_advertised_and_what_they_lose_is_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/adverts.db"
    said = Replicas("r1", lambda: open_adverts(url, {}), look_s=0.01)
    with open_adverts(url, {}) as adverts:

        def there() -> dict[str, object]:
            return {entry.path: entry.attributes["Size"] for entry in adverts.each(REPLICAS, recursive=True)}

        said.tell("aa", "lab1", 10)
        said.tell("bb", "me@lab2", 20)
        until(lambda: there() == {"/replicas/aa/lab1": 10, "/replicas/bb/me@lab2": 20})
        assert all(entry.expires is not None for entry in adverts.each(REPLICAS, recursive=True))
        said.tell("aa", "lab1", None)
        said.tell("cc", "lab1", None)  # it was never there
        until(lambda: there() == {"/replicas/bb/me@lab2": 20})
        said.tell("dd", "lab1", 5)
        said.close()  # says what is left
        assert there() == {"/replicas/bb/me@lab2": 20, "/replicas/dd/lab1": 5}


def test_a_service_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/adverts.db"
    tries: list[int] = []

    def service() -> Adverts:
        tries.append(1)
        if len(tries) < 3:
            raise HostUnreachable("nobody answers")
        return open_adverts(url, {})

    said = Replicas("r1", service, look_s=0.01)
    said.tell("aa", "lab1", 10)
    until(lambda: len(tries) >= 3)
    said.close()
    with open_adverts(url, {}) as adverts:
        assert adverts.get("/replicas/aa/lab1") is not None


class Counted:
    """An advert service that keeps what is said in a dict, and fails when it is told to."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.fails = threading.Event()

    def now(self) -> float:
        return 0.0

    def put(self, path: str, attributes: dict[str, Any], _life_s: float) -> None:
        self._answer()
        self.there[path] = attributes["Size"]

    def remove(self, path: str) -> None:
        self._answer()
        if self.there.pop(path, None) is None:
            raise FileNotFoundError(path)

    def close(self) -> None:
        pass

    def _answer(self) -> None:
        if self.fails.is_set():
            raise HostUnreachable("nobody answers")


def test_what_was_said_is_taken_back_however_much_there_is_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "MOST", 10)
    service = Counted()
    one = Replicas("r1", lambda: service, look_s=0.01)  # type: ignore[arg-type, return-value] # as far as is needed
    for n in range(10):
        one.tell(f"{n:02}", "lab1", n)
    until(lambda: len(service.there) == 10)
    service.fails.set()
    for n in range(10, 60):
        one.tell(f"{n:02}", "lab1", n)
        one.tell(f"{n:02}", "lab2", None)
    for n in range(10):
        one.tell(f"{n:02}", "lab1", None)
        one.tell(f"{n:02}", "lab1", n)
        one.tell(f"{n:02}", "lab1", None)  # the last word counts
    assert len(one._changes) + len(one._there) <= 40
    service.fails.clear()
    until(lambda: not service.there)
    one.close()


def test_an_empty_file_is_said_again_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "RENEW_S", -1.0)
    service = Counted()
    one = Replicas("r1", lambda: service, look_s=0.01)  # type: ignore[arg-type, return-value] # as far as is needed
    one.tell("aa", "lab1", 0)
    until(lambda: "/replicas/aa/lab1" in service.there)
    service.there.clear()
    until(lambda: "/replicas/aa/lab1" in service.there)
    one.tell("bb", "lab1", 1)
    until(lambda: "/replicas/bb/lab1" in service.there)
    one.close()


def test_what_the_service_did_not_hear_is_said_again() -> None:
    service = Counted()
    one = Replicas("r1", lambda: service, look_s=0.01)  # type: ignore[arg-type, return-value] # as far as is needed
    one.tell("aa", "lab1", 5)
    until(lambda: service.there == {"/replicas/aa/lab1": 5})
    tries: list[int] = []

    def fails(path: str) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise HostUnreachable("nobody answers")
        Counted.remove(service, path)

    service.remove = fails  # type: ignore[method-assign] # for this test
    one.tell("aa", "lab1", None)
    until(lambda: not service.there)
    one.close()


def test_the_end_of_a_run_says_more_than_a_portion() -> None:
    service = Counted()
    one = Replicas("r1", lambda: service, look_s=1000.0)  # type: ignore[arg-type, return-value] # as far as is needed
    for n in range(5 * replicas.PORTION):
        one.tell(f"{n:04}", "lab1", n)
    for n in range(2 * replicas.PORTION):
        one.tell(f"{n:04}", "lab1", None)
    one.close()
    assert len(service.there) == 3 * replicas.PORTION
    assert not one._changes


def until(holds: object, within_s: float = 40.0) -> None:
    assert callable(holds)
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
