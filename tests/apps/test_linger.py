"""Executors that were told to go on without their front end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.testing.lab import Lab

SERAI = [sys.executable, "-m", "serai"]
# What runs when the front end is killed goes on until it is let: nothing ends before that by being quick.
COMMAND = "until test -e GO; do sleep 0.1; done; echo {line} > {out:.t}; echo {line} >> stamps; pwd"


def until(holds: Callable[[], object], what: str, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
        time.sleep(0.05)


def on_nodes() -> int:
    """How many tasks are on some node."""
    said = subprocess.run([*SERAI, "status", "--json"], capture_output=True, check=False).stdout
    counts = json.loads(said)["counts"] if said else {}
    return int(counts.get("running", 0)) + int(counts.get("assigned", 0))


def kill_in_the_middle(command: list[str], where: Path) -> None:
    """Run it until two tasks run, then end the front end as a power cut would."""
    front = subprocess.Popen(command, cwd=where, start_new_session=True, stderr=subprocess.DEVNULL)
    journal = Path(os.environ["SERAI_STATE"]) / "runs"
    until(lambda: any(journal.glob("*/journal.db-wal")), "it began")
    until(lambda: on_nodes() >= 2, "two tasks are on a node")
    front.send_signal(signal.SIGKILL)
    front.wait(40)


def test_what_runs_is_finished_and_told_to_the_next_front_end(tmp_path: Path) -> None:
    site = f"local:?slots=2&linger=120s&scratch={tmp_path}/scratch"
    command = COMMAND.replace("GO", f"{tmp_path}/go")
    kill_in_the_middle([*SERAI, "run", command, "--each", "1..6", "--out", "out", "--on", site], tmp_path)
    scratch = tmp_path / "scratch"
    until(lambda: list(scratch.glob("*/left")), "the executor goes on")
    (tmp_path / "go").touch()
    until(
        lambda: (tmp_path / "stamps").exists() and len((tmp_path / "stamps").read_text().split()) >= 2,
        "the tasks that ran have ended",
    )
    assert not list((tmp_path / "out").glob("*.t"))
    done = subprocess.run([*SERAI, "resume"], cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        f"{n}.t": f"{n}\n" for n in range(1, 7)
    }
    assert sorted((tmp_path / "stamps").read_text().split()) == list("123456"), "no task ran twice"
    until(lambda: not list(scratch.iterdir()), "nothing is left on the node")


def test_ending_a_run_ends_lingering_executors_too(tmp_path: Path) -> None:
    site = f"local:?slots=2&linger=120s&scratch={tmp_path}/scratch"
    front = subprocess.Popen([*SERAI, "run", "sleep 1017", "--on", site], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until(lambda: list((tmp_path / "scratch").glob("*/lane-0.out")), "it runs")
    front.send_signal(signal.SIGINT)
    assert front.wait(40) == 130
    until(lambda: not list((tmp_path / "scratch").iterdir()), "nothing is left on the node")


@pytest.mark.lab
def test_a_host_goes_on_and_is_heard_later(lab: Lab, tmp_path: Path) -> None:
    site = f"ssh://{lab.hosts[0].name}?slots=2&linger=120s&scratch=/tmp/lingers&ssh_config={lab.ssh_config}"
    command = COMMAND.replace("stamps", "/tmp/stamps").replace("GO", "/tmp/go")
    kill_in_the_middle([*SERAI, "run", command, "--each", "1..4", "--out", "out", "--on", site], tmp_path)
    host = lab.hosts[0]
    until(lambda: "left" in host.run(["sh", "-c", "ls /tmp/lingers/*"]).stdout, "the executor goes on")
    host.run(["touch", "/tmp/go"], check=True)
    until(lambda: len(host.run(["cat", "/tmp/stamps"]).stdout.split()) >= 2, "the tasks that ran have ended")
    done = subprocess.run([*SERAI, "resume"], cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.t" for n in range(1, 5)]
    assert sorted(host.run(["cat", "/tmp/stamps"]).stdout.split()) == list("1234"), "no task ran twice"
    until(lambda: not host.run(["ls", "/tmp/lingers"]).stdout.split(), "nothing is left on the node")
