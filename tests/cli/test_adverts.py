"""`serai adverts`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from serai.adverts.service import Adverts, open_adverts
from serai.cli.adverts import adverts
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERAI = [sys.executable, "-m", "serai", "adverts"]


@pytest.fixture
def service() -> Iterator[Adverts]:
    with open_adverts() as service:
        service.put("/nodes/lab1", {"host": "lab1", "cores": 4, "note": "two words\x1b[31m"}, 60)
        service.put("/nodes/lab2", {"host": "lab2", "cores": 64})
        service.put("/mapreduce/r1/workers/w1", {"pid": 7}, 15)
        service.put("/top", {})
        service.claim("/nodes/lab2", "me", 60)
        yield service


def run(line: str) -> Result:
    result = CliRunner().invoke(adverts, shlex.split(line))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.usefixtures("service")
def test_it_lists_entries_and_directories() -> None:
    assert [line.split() for line in run("").stdout.splitlines()] == [
        ["PATH", "EXPIRES", "IN", "OWNER", "ATTRIBUTES"], ["/mapreduce/"], ["/nodes/"], ["/top", "never"]
    ]  # fmt: skip
    lines = run("/nodes").stdout.splitlines()
    assert lines[1].startswith("/nodes/lab1")
    assert lines[1].endswith(r'cores=4  host=lab1  note="two words\u001b[31m"')
    assert lines[2].split() == ["/nodes/lab2", "never", "me", "cores=64", "host=lab2"]
    assert run("/nodes/lab2").stdout.splitlines()[1].split() == lines[2].split()
    assert "/mapreduce/r1/workers/w1" in run("-r").stdout
    nothing = run("/none")
    assert (nothing.stdout, nothing.stderr, nothing.exit_code) == ("", "nothing is advertised at /none\n", 0)


@pytest.mark.usefixtures("service")
def test_conditions_and_json() -> None:
    found = json.loads(run("/nodes --where 'cores>3' --where 'host=*1' --json").stdout)
    assert [entry["path"] for entry in found] == ["/nodes/lab1"]
    assert 0 < found[0]["expires_in_s"] <= 60
    assert json.loads(run("/none --json").stdout) == []
    with pytest.raises(UsageError, match="no condition"):
        run("/nodes --where cores")
    with pytest.raises(UsageError, match="no path"):
        run("nodes")


def test_removing(service: Adverts) -> None:
    assert run("rm /top /nodes/lab1").exit_code == 0
    assert service.get("/top") is None
    with pytest.raises(UsageError, match="there is no entry /mapreduce"):
        run("rm /mapreduce")
    run("rm -r /mapreduce")
    assert service.directories() == ["/nodes"]


def test_the_service_is_named_by_option_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite://{tmp_path}/other"
    with open_adverts(url) as other:
        other.put("/there", {})
    assert "/there" in run(f"--url {url}").stdout
    monkeypatch.setenv("SERAI_ADVERTS", url)
    assert "/there" in run("").stdout
    with pytest.raises(UsageError, match="password") as caught:
        run("--url postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_watching_tells_changes_until_it_is_interrupted(service: Adverts) -> None:
    words = [*SERAI, "/nodes", "--watch", "--where", "cores>3"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline().split()[1:3] for _ in range(2)]
        assert first == [["added", "/nodes/lab1"], ["added", "/nodes/lab2"]]
        service.put("/nodes/small", {"cores": 1})
        service.update("/nodes/lab1", {"cores": 8})
        assert process.stdout.readline().split()[1:4] == ["changed", "/nodes/lab1", "cores=8"]
        service.remove("/nodes/small")
        service.remove("/nodes/lab2")
        assert process.stdout.readline().split()[1:3] == ["removed", "/nodes/lab2"]
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, "")


@pytest.mark.usefixtures("service")
def test_watching_as_json_is_an_object_a_line() -> None:
    with subprocess.Popen([*SERAI, "/top", "--watch", "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        change = json.loads(process.stdout.readline())
        assert (change["kind"], change["path"], change["entry"]["attributes"]) == ("added", "/top", {})
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
