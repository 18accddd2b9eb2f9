"""Inputs that lie on hosts: nothing of them moves to the host that has them, and the others get them whole or not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.conftest import HOLD

import serai
from serai.access import connections, porter
from serai.apps import fetching
from serai.apps.frontends.pool import Options
from serai.dispatch.carrier import Timing
from serai.dispatch.run import Settings
from serai.errors import TransferFailed
from serai.pool.members import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import Front

    from serai.testing.lab import Host

pytestmark = pytest.mark.lab

NAMES = ["a b.txt", "ü.txt", "new\nline.txt", "-n.txt", "b[1].txt", "$(x).txt"]
SIZE = 1 << 20


def all_up(pool: serai.Pool) -> bool:
    """Whether every host has checked in."""
    nodes = pool._core.run.dispatcher.nodes_now
    return bool(nodes) and all(node.slots for node in nodes)


def put(host: Host, where: str, size: int, *names: str) -> dict[str, str]:
    """Write files on a host; returns what cksum says of each."""
    script = 'mkdir -p "$0" && for n in "$@"; do head -c $SIZE /dev/urandom > "$0/$n"; done'
    host.run(["env", f"SIZE={size}", "sh", "-c", script, where, *names], user=host.user, check=True)
    return {name: host.run(["sh", "-c", 'cksum < "$0"', f"{where}/{name}"], check=True).stdout for name in names}


def received(host: Host) -> int:
    """Bytes that have come to a host."""
    lines = host.run(["cat", "/proc/net/dev"], check=True).stdout.splitlines()
    rows = [line.split(":") for line in lines[2:]]
    return sum(int(row[1].split()[0]) for row in rows if row[0].strip() != "lo")


@pytest.fixture
def pool(front: Front, tmp_path: Path) -> Iterator[Callable[..., serai.Pool]]:
    """Pools of hosts; this process lets go of them afterwards."""
    front.notices_soon()
    settings = Settings(timing=Timing(**front.timing), patience=Patience(**front.patience))  # type: ignore[arg-type]
    pools: list[serai.Pool] = []

    def make(*names: str, config: Path | None = None, **options: Any) -> serai.Pool:
        sites = [f"ssh://{name}?slots=2&ssh_config={config or front.lab.ssh_config}" for name in names]
        pools.append(serai.Pool(*sites, options=Options(settings=settings, runs=tmp_path / "runs", **options)))
        return pools[-1]

    yield make
    for one in pools:
        one.shutdown()
    porter.close_all()
    connections.close_all()


def test_on_the_host_that_has_them_nothing_moves(front: Front) -> None:
    has, other = front.lab.host("lab1"), front.lab.host("lab2")
    sums = put(has, "/var/tmp/d", SIZE, *NAMES)
    before = [received(host) for host in (has, other)]
    command = HOLD + (
        "test -L {in} && echo in place > {out:.how} || echo sent > {out:.how}; cksum < {in} > {out:.sum}; sleep 0.3"
    )
    words = front.on("lab1", "lab2", slots=1)
    with front.together("lab1", "lab2"):
        process = front.start("run", command, "any://lab1/var/tmp/d/*.txt", *words, "--out", "o")
    done = front.finish(process)
    assert done.returncode == 0, done.stderr
    moved = [received(host) - start for host, start in zip((has, other), before, strict=True)]
    found = {name: (front.home / "o" / f"{name[:-4]}.sum").read_text() for name in NAMES}
    assert found == sums
    on = dict(front.query("SELECT task, node FROM result"))
    told = dict(front.query("SELECT task, text FROM note WHERE task > 0"))
    here, there = ([task for task, node in on.items() if node == name] for name in ("lab1", "lab2"))
    assert here
    assert there
    assert len(here) + len(there) == len(NAMES)
    assert all(told[task].endswith(" in place") for task in here), told
    assert all(told[task].endswith((" sent", " from lab1")) for task in there), told
    assert moved[0] < SIZE / 2, moved  # the executor and the porter, and what is said to them
    # What is sent ahead for a task may be called back for a host that has nothing else to do.
    assert len(there) * SIZE < moved[1] < (len(there) + 1.5) * SIZE
    said = front.run("explain", str(here[0])).stdout
    assert "in place" in " ".join(said.split())
    assert len(has.run(["ls", "/var/tmp/d"]).stdout.split("\n")) > len(NAMES)  # they are still there


def test_ssh_and_below_home_and_many_in_one_task(front: Front, pool: Callable[..., serai.Pool]) -> None:
    has = front.lab.host("lab1")
    put(has, f"/home/{has.user}/d", 10, "x", "y")
    put(front.lab.host("lab2"), "/var/tmp/e", 10, "x")
    inputs = ("any://lab1/~/d/x", f"ssh://{has.user}@lab1/home/{has.user}/d/y", "ssh://lab2/var/tmp/e/x")
    (one,) = pool("lab1").run(
        'sh -c \'for f; do readlink "$f" || echo sent; done; cat "$@" | wc -c\' sh {in}', [serai.Item(inputs)]
    )
    home = f"/home/{has.user}/d"
    assert one.stdout.decode().split() == [f"{home}/x", f"{home}/y", "sent", "30"], one.error
    has.run(["rm", "-r", home])


def test_mistakes_are_said_before_anything_starts(front: Front) -> None:
    put(front.lab.host("lab1"), "/var/tmp/d", 1, "x")
    words = front.on("lab1")
    for url, says in (
        ("any://lab1/var/tmp/d/*.csv", "no file matches 'any://lab1/var/tmp/d/*.csv'"),
        ("any://lab1/var/tmp/d/y", "there is no file 'any://lab1/var/tmp/d/y'"),
        ("any://lab1/var/tmp/d", "'any://lab1/var/tmp/d' is a directory"),
        ("ssh://lab77/x", "'ssh://lab77/x'"),
    ):
        done = front.run("run", "cat {in}", url, *words)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    done = front.run("run", "cp {in} {out:.y}", "any://lab1/var/tmp/d/x", *words)
    assert (done.returncode, "--out DIR" in done.stderr) == (2, True), done.stderr
    assert front.directory() is None


def slowly(front: Front, name: str, size: int) -> dict[str, str]:
    """A file on a host whose cable is so slow that it can be hurt while the file is read."""
    host = front.lab.host(name)
    sums = put(host, "/var/tmp/d", size, "big")
    host.slow(16e6)
    return sums


def begun(front: Front, name: str) -> None:
    """Wait until much of an input has come to a host."""
    start = received(front.lab.host(name))
    front.until(lambda: received(front.lab.host(name)) - start > SIZE, "the input is on its way")


def run_in_thread(outcomes: Iterator[serai.Outcome]) -> tuple[threading.Thread, list[serai.Outcome]]:
    found: list[serai.Outcome] = []
    thread = threading.Thread(target=lambda: found.extend(outcomes))
    thread.start()
    return thread, found


def test_a_connection_that_is_lost_is_made_again(front: Front, pool: Callable[..., serai.Pool]) -> None:
    sums = slowly(front, "lab3", 6 * SIZE)
    thread, found = run_in_thread(pool("lab1").run("cksum < {in}", ["any://lab3/var/tmp/d/big"]))
    begun(front, "lab1")
    front.lab.host("lab3").run(["pkill", "-KILL", "-u", front.lab.host("lab3").user])
    thread.join(120)
    assert [outcome.stdout.decode() for outcome in found] == [sums["big"]], found


def test_a_host_that_dies_fails_the_tasks_that_read_from_it(
    front: Front, pool: Callable[..., serai.Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSES_S", ())  # two more attempts at a host without power take 30 s
    slowly(front, "lab3", 6 * SIZE)
    put(front.lab.host("lab2"), "/var/tmp/d", 10, "x")
    config = front.home / "ssh_config"
    impatient = "Host lab3\n  ServerAliveInterval 1\n  ServerAliveCountMax 2\n  ConnectTimeout 2\n"
    config.write_text(impatient + front.lab.ssh_config.read_text())
    one = pool("lab1", config=config)
    items = ["any://lab3/var/tmp/d/big", "any://lab2/var/tmp/d/x"]
    thread, found = run_in_thread(one.run("wc -c {in}", items))
    begun(front, "lab1")
    front.lab.host("lab3").kill()
    thread.join(120)
    errors = {outcome.item.inputs[0]: outcome.error for outcome in found}
    assert isinstance(errors[items[0]], TransferFailed)
    assert f"cannot read its input {items[0]}: lab3: " in str(errors[items[0]])
    assert errors[items[1]] is None
    front.remains.add("lab3")
