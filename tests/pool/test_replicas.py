"""Replicas in the advert service: said, taken back, and never waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from serai.adverts.service import open_adverts
from serai.errors import HostUnreachable
from serai.pool.replicas import REPLICAS, Replicas

if TYPE_CHECKING:
    from pathlib import Path

    from serai.adverts.service import Adverts


def test_what_nodes_have_is_advertised_and_what_they_lose_is_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/adverts.db"
    replicas = Replicas("r1", lambda: open_adverts(url, {}), look_s=0.01)
    with open_adverts(url, {}) as adverts:

        def there() -> dict[str, object]:
            return {entry.path: entry.attributes["Size"] for entry in adverts.each(REPLICAS, recursive=True)}

        replicas.tell("aa", "lab1", 10)
        replicas.tell("bb", "me@lab2", 20)
        until(lambda: there() == {"/replicas/aa/lab1": 10, "/replicas/bb/me@lab2": 20})
        assert all(entry.expires is not None for entry in adverts.each(REPLICAS, recursive=True))
        replicas.tell("aa", "lab1", None)
        replicas.tell("cc", "lab1", None)  # it was never there
        until(lambda: there() == {"/replicas/bb/me@lab2": 20})
        replicas.tell("dd", "lab1", 5)
        replicas.close()  # says what is left
        assert there() == {"/replicas/bb/me@lab2": 20, "/replicas/dd/lab1": 5}


def test_a_service_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/adverts.db"
    tries: list[int] = []

    def service() -> Adverts:
        tries.append(1)
        if len(tries) < 3:
            raise HostUnreachable("nobody answers")
        return open_adverts(url, {})

    replicas = Replicas("r1", service, look_s=0.01)
    replicas.tell("aa", "lab1", 10)
    until(lambda: len(tries) >= 3)
    replicas.close()
    with open_adverts(url, {}) as adverts:
        assert adverts.get("/replicas/aa/lab1") is not None


def until(holds: object, within_s: float = 40.0) -> None:
    assert callable(holds)
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
