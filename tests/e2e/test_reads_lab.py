"""Inputs that programs read from afar on real hosts, as a user without privilege: what moves, and what is left."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import interpreter
from tests.e2e.conftest import Front
from tests.e2e.test_caching_lab import sent
from tests.e2e.test_inputs_lab import received

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.lab import Host, Lab
    from serai.testing.lab.fixtures import LabFactory

pytestmark = pytest.mark.lab

SIZE = 30_000_000
STEPS = 4  # parts that are read, of half a megabyte each
READ = STEPS * 500_000
SPARSE = f"""
import sys, hashlib
seen = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as file:
    for at in range({STEPS}):
        file.seek(at * 7_000_000)
        left = 500_000
        while left:
            data = file.read(min(65536, left))
            left -= len(data)
            seen.update(data)
print(seen.hexdigest())
"""
WHOLE = "cksum < {in}"


@pytest.fixture(scope="module")
def pair(lab_factory: LabFactory) -> Lab:
    """Two hosts, the first with the oldest Python that there may be."""
    old = interpreter((3, 8))
    if old is None:
        return lab_factory(2, prefix="far")
    return lab_factory(2, prefix="far", pythons={"far1": Path(old).parents[1]})


@pytest.fixture
def front(pair: Lab, tmp_path: Path) -> Iterator[Front]:
    one = Front(tmp_path, pair)
    yield one
    one.end()
    for host in pair.hosts:
        host.mend()
        host.slow(None)
    one.nothing_left(pair.hosts)
    for host in pair.hosts:
        host.run(["sh", "-c", "rm -rf /tmp/serai-*"])


def expected(data: bytes) -> str:
    import hashlib  # noqa: PLC0415 - here alone

    return hashlib.sha256(b"".join(data[at * 7_000_000 :][:500_000] for at in range(STEPS))).hexdigest()


def make(front: Front, count: int = 1, size: int = SIZE) -> list[Path]:
    (front.home / "data").mkdir()
    (front.home / "sparse.py").write_text(SPARSE)
    paths = [front.home / "data" / f"d{n}.root" for n in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size))
        os.utime(path, (1e9, 1e9))
    return paths


def notes(front: Front) -> list[str]:
    return [row[0] for row in front.query("SELECT text FROM note ORDER BY id")]


@pytest.mark.parametrize("name", ["far1", "far2"])
def test_what_is_not_read_does_not_cross_the_link(front: Front, name: str) -> None:
    host = front.lab.host(name)
    (path,) = make(front)
    words = front.on(name, slots=1)
    host.slow(40e6, delay_ms=5)
    before = received(host)
    done = front.run("run", "python3 sparse.py {in}", "data/d0.root", "--access", "mount", *words)
    moved = received(host) - before
    assert done.returncode == 0, done.stderr
    print(name, moved, notes(front), done.stdout)
    assert done.stdout.strip() == expected(path.read_bytes())
