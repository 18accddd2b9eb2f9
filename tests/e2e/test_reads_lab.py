"""Inputs that programs read from afar on real hosts, as a user without privilege: what moves, and what is left."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import interpreter
from tests.e2e.conftest import HOLD, Front
from tests.e2e.test_caching_lab import sent
from tests.e2e.test_inputs_lab import all_up, pool, received

from serai.dispatch.ports import PRICES
from serai.dispatch.schedule import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import serai
    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory

__all__ = ["pool"]

pytestmark = pytest.mark.lab

SIZE = 30_000_000
PARTS = [3 << 20, 20 << 20]  # where a mebibyte is read
SPARSE = f"""
import sys, hashlib
seen = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as file:
    for at in {PARTS}:
        file.seek(at)
        seen.update(file.read(1 << 20))
print(seen.hexdigest())
"""
SLOWLY = """
import sys, time
with open(sys.argv[1], "rb", buffering=0) as file:
    for at in range(0, 30_000_000, 1_000_000):
        file.seek(at)
        assert file.read(1000)
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def pair(lab_factory: LabFactory) -> Lab:
    """Two hosts, the first with the oldest Python that there may be."""
    old = interpreter((3, 8))
    return lab_factory(2, prefix="far", pythons={"far1": Path(old).parents[1]} if old else {})


@pytest.fixture
def front(pair: Lab, tmp_path: Path) -> Iterator[Front]:
    one = Front(tmp_path, pair)
    (tmp_path / "sparse.py").write_text(SPARSE)
    (tmp_path / "slowly.py").write_text(SLOWLY)
    yield one
    one.end()
    for host in pair.hosts:
        host.mend()
        host.slow(None)
    one.nothing_left(pair.hosts)
    for host in pair.hosts:
        host.run(["sh", "-c", "rm -rf /tmp/serai-* /var/tmp/hold"])


def make(front: Front, count: int = 1, size: int = SIZE) -> list[Path]:
    (front.home / "data").mkdir()
    paths = [front.home / "data" / f"d{n}.root" for n in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size))
        os.utime(path, (1e9, 1e9))
    return paths


def parts_of(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha256(b"".join(data[at : at + (1 << 20)] for at in PARTS)).hexdigest()


def notes(front: Front) -> list[str]:
    told = [row[0] for row in front.query("SELECT text FROM note WHERE task > 0 ORDER BY id")]
    return [text for text in told if not text.startswith(PRICES)]


@pytest.mark.parametrize("name", ["far1", "far2"])
def test_what_is_not_read_does_not_cross_the_link(front: Front, name: str) -> None:
    host = front.lab.host(name)
    (path,) = make(front)
    host.slow(40e6, delay_ms=5)
    before = received(host)
    words = ["--access", "mount", *front.on(name, slots=1)]
    done = front.run("run", "python3 sparse.py {in}", "data/d0.root", *words)
    moved = received(host) - before
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == parts_of(path)
    (told,) = notes(front)
    found = re.fullmatch(r"inputs: data/d0\.root read from afar: ([\d.]+) MB of 30 MB in [\d.]+ s", told)
    assert found, told
    read = float(found[1]) * 1e6
    assert 2 << 20 <= read < 2.5e6
    assert moved < 1.3 * read, (moved, read)  # the executor, and what else is said, among it
    front.nothing_left(front.lab.hosts)


def test_a_link_that_is_cut_hangs_nobody(front: Front) -> None:
    front.notices_soon()
    host = front.lab.host("far2")
    make(front, 2)
    words = ["--access", "mount", *front.on("far1", "far2", slots=1)]
    with front.together():
        running = front.start("run", f"{HOLD}python3 slowly.py {{in}}", "data/d0.root", "data/d1.root", *words)
    blocks = "find /tmp/serai-*-cache/blocks -type f -size +64k 2>/dev/null | head -n 1"
    front.until(lambda: host.run(["sh", "-c", blocks]).stdout, "it has begun to read")
    host.cut()
    began = time.monotonic()
    _, err = running.communicate(timeout=150)
    assert running.returncode == 0, err
    assert time.monotonic() - began < 120
    assert re.search("far2: (it has been silent for|the connection)", err), err
    assert {row[0] for row in front.query("SELECT node FROM result")} == {"far1"}
    host.mend()
    front.nothing_left(front.lab.hosts)


@pytest.mark.parametrize(
    ("command", "reads"), [("tail -c +3000000 {in} | head -c 400000 | wc -c", True), ("cksum < {in}", False)]
)
def test_auto_learns_how_much_is_read(front: Front, command: str, reads: bool) -> None:
    host = front.lab.host("far2")
    size, count = 6_000_000, 12 if reads else 5
    make(front, count, size)
    host.slow(20e6)
    before = received(host)
    done = front.run("run", command, *(f"data/d{n}.root" for n in range(count)), *front.on("far2", slots=1))
    moved = received(host) - before
    assert done.returncode == 0, done.stderr
    told = notes(front)
    afar = sum("read from afar" in text for text in told)
    if reads:  # some are copied before anything is known
        assert afar >= count - 5, told
        assert moved < 5.5 * size, (moved, told)
    else:
        assert afar == 1, told
        assert sum(text.endswith(" sent") for text in told) == count - 1, told


def test_parts_come_from_a_host_that_has_the_file(front: Front, pool: Callable[..., serai.Pool]) -> None:
    (path,) = make(front)
    one = pool("far1", "far2", access="mount", policy="first-cache-available")
    front.until(lambda: all_up(one), "both are up")
    run = one._core.run
    list(one.run("true {in}", [str(path)]))
    number = run.catalogue.number(str(path))
    assert number is not None
    run.roster.copy(ev.Copy(number, "far1", ""))
    file = run.catalogue.file(number)
    front.until(lambda: file.holders == {"far1"}, "it has come to the first")
    front.until(lambda: run.catalogue.afar("far2", number)["sources"], "the first serves it")
    for source, took_s in (("", 1000.0), ("far1", 0.001)):  # as if this machine were far away
        run.dispatcher.tell(None, ev.Moved("far2", number, source, 1_000_000, took_s, read_bytes=1))
    before = sent(front.lab.host("far1"))
    command = f"python3 -c {shlex.quote(SPARSE + 'import time; time.sleep(1)')} {{in}}"
    done = list(one.run(command, [str(path)] * 10))
    assert [outcome.error for outcome in done] == [None] * 10
    assert {outcome.stdout.decode().strip() for outcome in done} == {parts_of(path)}
    assert {outcome.node for outcome in done} == {"far1", "far2"}
    assert sent(front.lab.host("far1")) - before > 2 << 20


def test_explain_tells_how_inputs_came_and_what_else_there_was(front: Front) -> None:
    make(front, 8, 1_000_000)
    words = [*(f"data/d{n}.root" for n in range(8)), "--access", "mount", *front.on("far1", "far2", slots=1)]
    with front.together():
        process = front.start("run", f"{HOLD}sleep 0.5; head -c 1000 {{in}} | wc -c", *words)
    done = front.finish(process)
    assert done.returncode == 0, done.stderr
    told = front.run("explain", "8").stdout
    assert re.search(r"inputs: data/d7\.root read from afar: [\d.]+ kB of 1 MB in ", told), told
    assert "its inputs were thought to cost until they could be read:" in told, told
    nodes = re.findall(r"^    (far[12])(?:, where it was sent)?: [\d.]+m?s \(", told, flags=re.MULTILINE)
    assert sorted(nodes) == ["far1", "far2"], told
    assert len(re.findall(r"it is read from afar from this machine in \d+ms", told)) == 2, told
