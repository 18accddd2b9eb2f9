"""Inputs that tasks read from afar: on executors of this machine that are taken for such of others."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.mount.mounting import until

import serai
from serai.apps.frontends.pool import Options
from serai.describe.task import Cause
from serai.dispatch.carrier import Timing
from serai.dispatch.engines.local import LocalEngine
from serai.dispatch.history.archive import Archive
from serai.dispatch.ports import PRICES
from serai.dispatch.run import Settings
from serai.dispatch.schedule.files import nearness
from serai.errors import SeraiError
from serai.travel import boot
from serai.travel.gateway import Gateway as Client
from serai.travel.gateway import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        return [note.text for note in history.task(task).notes if not note.text.startswith(PRICES)]


def command(code: str) -> str:
    return f"{sys.executable} -c {shlex.quote(code)} {{in}}"


def test_a_part_of_a_file_is_read(pool: Callable[..., serai.Pool], data: Path, tmp_path: Path) -> None:
    one = pool()
    (done,) = one.run(command(PART), [str(data)])
    assert done.error is None
    assert int(done.stdout) == sum(data.read_bytes()[4_000_000:4_500_000])
    (told,) = notes(tmp_path, one.name, done.task)
    found = re.fullmatch(rf"inputs: {data} read from afar: (\d+) kB of 8 MB in [\d.]+ ?m?s", told)
    assert found, told
    assert 500 <= int(found[1]) < 800  # the kernel reads a little ahead


def test_auto_looks_once_and_then_reads_or_stages(
    pool: Callable[..., serai.Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearness, "WORTH_LOOKING_S", 0.01)
    files = [tmp_path / f"f{n}" for n in range(20)]
    for path in files:
        path.write_bytes(os.urandom(SIZE))
    one = pool("auto")
    parts = list(one.run(command(PART), files[:14]))
    assert [outcome.error for outcome in parts] == [None] * len(files[:14])
    told = [notes(tmp_path, one.name, outcome.task)[0] for outcome in parts]
    assert sum("read from afar" in text for text in told) >= 3, told  # the first that looked, and those after it
    wholes = list(one.run(command(WHOLE), files[14:]))
    assert [outcome.error for outcome in wholes] == [None] * 6
    told = [notes(tmp_path, one.name, outcome.task)[0] for outcome in wholes]
    assert sum("read from afar" in text for text in told) == 1, told
    assert sum(text.endswith(" sent") for text in told) == 5, told


def test_what_ends_a_task_ends_it_under_a_mount_too(
    pool: Callable[..., serai.Pool], data: Path, tmp_path: Path
) -> None:
    one = pool()
    (bad,) = one.run("sh -c 'head -c 3 \"$1\" > /dev/null; echo out; echo err >&2; exit 7' sh {in}", [str(data)])
    assert (bad.exit_code, bad.stdout, bad.stderr) == (7, b"out\n", b"err\n")
    (same,) = one.run("sh -c 'echo mine >&2; exit 125' sh {in}", [str(data)])
    assert (same.exit_code, same.stderr) == (125, b"mine\n")
    (killed,) = one.run("sh -c 'kill -KILL $$' sh {in}", [str(data)])
    assert killed.exit_code == -9
    (none,) = one.run("no-such-program {in}", [str(data)])
    assert none.cause == Cause.NO_COMMAND
    assert "there is no program no-such-program" in str(none.error)
    (slow,) = one.run("sh -c 'sleep 60 & sleep 60' sh {in}", [str(data)], time_limit_s=0.5)
    assert slow.cause == Cause.TIME_LIMIT
    (wrote,) = one.run("cp {in} {out:.copy}", [str(data)], out=str(tmp_path / "out"))
    assert wrote.error is None
    assert (tmp_path / "out" / "x.copy").read_bytes() == data.read_bytes()
    (refused,) = one.run("sh -c 'echo x >> \"$1\"' sh {in}", [str(data)])
    assert b"Read-only file system" in refused.stderr
    base = Path(one._core.run.roster.ad("one")["base"])
    assert not list(base.glob("task-*/*"))
    one.shutdown()
    assert not base.exists()


def test_where_no_mount_can_be_had_the_input_comes_itself(
    pool: Callable[..., serai.Pool], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = boot.script
    monkeypatch.setattr(boot, "script", lambda name: script(name).replace("/dev/fuse", "/dev/none"))
    one = pool()
    done = list(one.run(command(WHOLE), [str(data)] * 3))
    assert [int(outcome.stdout) for outcome in done] == [sum(data.read_bytes())] * 3
    assert not any(outcome.stderr for outcome in done)
    assert notes(tmp_path, one.name, done[0].task)[-1].endswith((" sent", " cached"))
    with Archive(tmp_path / "runs").open(one.name, time.time()) as history:
        (said,) = {note.text for note in history.notes()}
    assert said.startswith("nothing is read from afar here: /dev/none cannot be opened")
    assert one._core.run.roster.ad("one")["mount"] is False


WAITS = """
import os, sys, time
with open(sys.argv[1], "rb", buffering=0) as file:
    file.read(4096)
    open(sys.argv[2], "w").close()
    end = time.monotonic() + 60
    while not os.path.exists(sys.argv[2] + ".go"):
        assert time.monotonic() < end
        time.sleep(0.01)
    file.seek(6_000_000)
    file.read(4096)
"""


@pytest.mark.parametrize("trouble", ["the file changes", "the front end is lost"])
def test_what_cannot_be_read_any_more_is_said_at_once(
    pool: Callable[..., serai.Pool], data: Path, tmp_path: Path, trouble: str
) -> None:
    one = pool()
    flag = tmp_path / "flag"
    found: list[serai.Outcome] = []
    words = f"{sys.executable} -c {shlex.quote(WAITS)} {{in}} {flag}"
    running = threading.Thread(target=lambda: found.extend(one.run(words, [str(data)])), daemon=True)
    running.start()
    until(flag.exists, "it has begun to read")
    gate = one._core.run.catalogue.gate
    assert gate is not None
    if trouble == "the file changes":
        data.write_bytes(b"other" * (SIZE // 5))
    else:
        gate.close()
    flag.with_name("flag.go").touch()
    began = time.monotonic()
    running.join(60)
    (outcome,) = found
    assert time.monotonic() - began < 15  # a source that is silent is waited for for 30 s
    assert outcome.exit_code == 1
    said = outcome.stderr.decode()
    if trouble == "the file changes":
        assert "mount: 1-x.root cannot be read: ESTALE: it has changed since the run looked at it" in said, said
        assert "Stale file handle" in said
    else:
        assert "mount: 1-x.root cannot be read: " in said, said
        assert "Input/output error" in said


def test_what_ends_well_without_a_part_of_its_input_has_not_ended_well(
    pool: Callable[..., serai.Pool], data: Path, tmp_path: Path
) -> None:
    one = pool()
    flag = tmp_path / "flag"
    found: list[serai.Outcome] = []
    words = (
        f"sh -c {shlex.quote(shlex.join([sys.executable, '-c', WAITS]) + ' $1 $2; echo 4294967295 0')} sh {{in}} {flag}"
    )
    running = threading.Thread(target=lambda: found.extend(one.run(words, [str(data)])), daemon=True)
    running.start()
    until(flag.exists, "it has begun to read")
    data.write_bytes(b"other" * (SIZE // 5))
    flag.with_name("flag.go").touch()
    running.join(60)
    (outcome,) = found
    assert outcome.cause == Cause.INPUT
    assert "it has changed since the run looked at it; it went on, and ended with 0" in str(outcome.error)


def test_the_gate_gives_inputs_of_the_run_and_nothing_else(
    pool: Callable[..., serai.Pool], data: Path, tmp_path: Path
) -> None:
    one = pool()
    list(one.run("head -c 1 {in}", [str(data)]))
    gate = one._core.run.catalogue.gate
    assert gate is not None
    gateway = gate._open()
    with Client(gateway.address, gateway.token) as client:
        assert client.call("file.read", {"url": "1", "start": 10, "length": 20})[1] == data.read_bytes()[10:30]
        for url in (str(data), "/etc/passwd", "2", "-1", "1/../2", None):
            with pytest.raises(GatewayError, match="no input of this run"):
                client.call("file.read", {"url": url, "start": 0, "length": 20})
        for do in ("file.list", "file.write", "file.commit", "file.remove", "file.mkdir", "file.rename"):
            with pytest.raises(GatewayError, match="nothing here does"):
                client.call(do, {"url": "1"})
    base = Path(one._core.run.roster.ad("one")["base"])
    for name in ("gateway-token", "afar.py", "afar-0.json"):
        path = base / name
        if path.exists():
            assert path.stat().st_mode & 0o777 == 0o600
            assert name == "gateway-token" or gateway.token not in path.read_text()
    journal = (tmp_path / "runs" / one.name / "journal.db").read_bytes()
    assert gateway.token.encode() not in journal


def test_a_task_that_reads_can_be_cancelled(pool: Callable[..., serai.Pool], data: Path, tmp_path: Path) -> None:
    one = pool()
    flag = tmp_path / "flag"
    words = f"{sys.executable} -c {shlex.quote(WAITS)} {{in}} {flag}"

    def run() -> None:
        with contextlib.suppress(SeraiError, RuntimeError):
            list(one.run(words, [str(data)]))

    running = threading.Thread(target=run, daemon=True)
    running.start()
    until(flag.exists, "it has begun to read")
    began = time.monotonic()
    one.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 40
    running.join(40)
    look = ["pgrep", "-f", str(flag)]
    until(lambda: subprocess.run(look, capture_output=True, check=False).returncode == 1, "nothing of it runs")
