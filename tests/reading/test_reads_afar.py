"""Inputs that tasks read from afar: on executors of this machine that are taken for such of others."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.apps.frontends.pool import Options
from serai.dispatch.carrier import Timing
from serai.dispatch.engines.local import LocalEngine
from serai.dispatch.history.archive import Archive
from serai.dispatch.run import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serai.dispatch.ports import NodeSpec

SIZE = 8_000_000
PART = "import sys; f = open(sys.argv[1], 'rb'); f.seek(4_000_000); print(sum(f.read(500_000)))"
WHOLE = "import sys; print(sum(open(sys.argv[1], 'rb').read()))"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("/dev/fuse cannot be opened here")
    nodes = LocalEngine.nodes

    def elsewhere(self: LocalEngine, site: Any) -> list[NodeSpec]:
        return [replace(spec, in_place=False, by_reference=False) for spec in nodes(self, site)]

    monkeypatch.setattr(LocalEngine, "nodes", elsewhere)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Callable[..., serai.Pool]]:
    settings = Settings(timing=Timing(beat_s=0.2, silence_s=5.0))
    pools: list[serai.Pool] = []

    def make(access: str = "mount", query: str = "") -> serai.Pool:
        site = f"local://one?slots=2&scratch={tmp_path / 'one'}{query}"
        options = Options(runs=tmp_path / "runs", settings=settings, access=access)
        pools.append(serai.Pool(site, options=options))
        return pools[-1]

    yield make
    for one in pools:
        one.shutdown()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "d" / "x.root"
    path.parent.mkdir()
    path.write_bytes(os.urandom(SIZE))
    os.utime(path, (1e9, 1e9))
    return path


def notes(tmp_path: Path, name: str, task: int) -> list[str]:
    with Archive(tmp_path / "runs").open(name, time.time()) as history:
        return [note.text for note in history.task(task).notes]


def command(code: str) -> str:
    return f"{sys.executable} -c {shlex.quote(code)} {{in}}"


def test_a_part_of_a_file_is_read(pool: Callable[..., serai.Pool], data: Path, tmp_path: Path) -> None:
    one = pool()
    (done,) = one.run(command(PART), [str(data)])
    assert done.error is None
    assert int(done.stdout) == sum(data.read_bytes()[4_000_000:4_500_000])
    (told,) = notes(tmp_path, one.name, done.task)
    found = re.fullmatch(rf"inputs: {data} read from afar: (\d+) kB of 8 MB in \d\.\d s", told)
    assert found, told
    assert 500 <= int(found[1]) < 800  # the kernel reads a little ahead
