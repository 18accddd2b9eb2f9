"""Inputs on real hosts: over a link once, found by later runs, from one host to another, and never a full disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.e2e.test_inputs_lab import all_up, pool, received

from serai.dispatch.schedule import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Front

    import serai
    from serai.testing.lab import Host

__all__ = ["pool"]

pytestmark = pytest.mark.lab

SIZE = 2_000_000
SLACK = 700_000  # the executor, and what is said to it
COUNT = "sh -c 'cat \"$1\" | wc -c' sh {in}"


def make(place: Path, count: int, size: int = SIZE) -> list[str]:
    place.mkdir(exist_ok=True)
    paths = [place / f"f{n}" for n in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size))
        os.utime(path, (1e9, 1e9 + 0.5))
    return [str(path) for path in paths]


def sent(host: Host) -> int:
    """Bytes that a host has sent."""
    lines = host.run(["cat", "/proc/net/dev"], check=True).stdout.splitlines()
    rows = [line.split(":") for line in lines[2:]]
    return sum(int(row[1].split()[8]) for row in rows if row[0].strip() != "lo")


def test_an_input_of_many_tasks_crosses_a_link_once_and_later_runs_find_it(
    front: Front, pool: Callable[..., serai.Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERAI_STATE", str(tmp_path / "state"))
    host = front.lab.host("lab1")
    paths = make(tmp_path / "d", 3)
    for moved in (3 * SIZE, 0):
        before = received(host)
        one = pool("lab1")
        done = list(one.run(COUNT, [path for _ in range(5) for path in paths]))
        assert [outcome.error for outcome in done] == [None] * 15
        assert {outcome.stdout.strip() for outcome in done} == {b"%d" % SIZE}
        one.shutdown()
        assert moved <= received(host) - before < moved + SLACK


def test_a_host_gives_another_what_it_has(front: Front, pool: Callable[..., serai.Pool], tmp_path: Path) -> None:
    (path,) = make(tmp_path / "d", 1, 4 * SIZE)
    hosts = [front.lab.host(name) for name in ("lab1", "lab2", "lab3")]
    two = pool("lab1", "lab2", "lab3")
    front.until(lambda: all_up(two), "all are up")
    (outcome,) = two.run(COUNT, [path])
    run = two._core.run
    number = run.catalogue.number(path)
    assert number is not None
    file = run.catalogue.file(number)
    has = outcome.node
    other, third = (host for host in hosts if host.name != has)
    front.until(lambda: file.holders == {has}, "the catalogue knows who has it")
    giver = front.lab.host(has)
    before = [sent(giver), received(other)]
    run.roster.copy(ev.Copy(number, other.name, has))
    front.until(lambda: file.holders == {has, other.name}, "it has come to the other")
    given, taken = sent(giver) - before[0], received(other) - before[1]
    assert 4 * SIZE <= given < 4 * SIZE + SLACK
    assert 4 * SIZE <= taken < 4 * SIZE + SLACK
    giver.cut()  # it cannot be reached, and nobody has said so: the front end has it, too
    run.roster.copy(ev.Copy(number, third.name, has))
    front.until(lambda: third.name in file.holders, "it has come though the host it was to come from is cut off")


def test_what_lies_on_a_host_comes_from_there(
    front: Front, pool: Callable[..., serai.Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    has = front.lab.host("lab1")
    script = "mkdir -p /var/tmp/d && head -c 4000000 /dev/urandom > /var/tmp/d/x"
    has.run(["sh", "-c", script], user=has.user, check=True)
    two = pool("lab1", "lab2")
    front.until(lambda: all_up(two), "both are up")
    url = "any://lab1/var/tmp/d/x"
    (outcome,) = two.run(COUNT, [url])
    assert (outcome.stdout.strip(), outcome.node) == (b"4000000", "lab1")  # the job moves to the data
    catalogue = two._core.run.catalogue
    number = catalogue.number(url)
    assert number is not None
    file = catalogue.file(number)
    assert file.lies == {"lab1": "/var/tmp/d/x"}
    front.until(lambda: catalogue._who.peers["lab1"].port, "it listens for its peers")
    asked: list[int] = []
    carrier = two._core.run.roster.carrier("lab2")
    assert carrier is not None
    monkeypatch.setattr(carrier._filler, "ask", lambda number, _attempt: asked.append(number))
    two._core.run.roster.copy(ev.Copy(number, "lab2", "lab1"))
    front.until(lambda: "lab2" in file.holders, "it has come to the other")
    assert not asked  # the front end had no part in it


def test_a_host_without_room_is_done_without(front: Front, pool: Callable[..., serai.Pool], tmp_path: Path) -> None:
    small = front.lab.host("lab2")
    mount = "mkdir -p /var/tmp/s && mount -t tmpfs -o size=1m,mode=1777 tmpfs /var/tmp/s"
    small.run(["sh", "-c", mount], check=True)
    try:
        paths = make(tmp_path / "d", 4)
        both = pool("lab1", "lab2/var/tmp/s")
        done = list(both.run(COUNT, paths * 3))
        assert [outcome.error for outcome in done] == [None] * 12
        assert {outcome.node for outcome in done} == {"lab1"}
        both.shutdown()
    finally:
        small.run(["umount", "-l", "/var/tmp/s"], check=True)
