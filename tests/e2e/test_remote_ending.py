"""Ending on purpose: Ctrl-C, time limits and --fail-fast reach everything that a task started, on its host."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Front

pytestmark = pytest.mark.lab

# A child, a grandchild in a session of its own, and one that ignores what it is told.
FAMILY = "setsid sh -c 'trap \"\" TERM INT HUP; sleep 4321 & sleep 4321' & sleep 4321"


def sleepers(front: Front, name: str) -> int:
    return len(front.lab.host(name).run(["pgrep", "-f", "^sleep 4321"]).stdout.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_everything_it_started(front: Front, number: signal.Signals) -> None:
    process = front.start("run", FAMILY, "--each", "1..6", *front.on("lab1", "lab2", slots=3))
    front.until(lambda: sleepers(front, "lab1") >= 9 and sleepers(front, "lab2") >= 9, "all run")
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    front.nothing_left(front.lab.hosts)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "serai resume" in err


def test_a_time_limit_ends_the_whole_family(front: Front) -> None:
    began = time.monotonic()
    done = front.run("run", FAMILY, "--each", "1..2", "--time-limit", "1s", *front.on("lab1"))
    assert done.returncode == 1
    assert "longer than its limit of 1 s" in done.stderr
    assert time.monotonic() - began < 60
    front.nothing_left(front.lab.hosts)


def test_fail_fast_ends_the_others(front: Front) -> None:
    command = "if [ {line} = 3 ]; then sleep 0.5; exit 7; fi; sleep 4321"
    began = time.monotonic()
    done = front.run("run", command, "--each", "1..30", "--fail-fast", *front.on("lab1", "lab2"))
    assert done.returncode == 1, done.stderr
    assert "exit code 7" in done.stderr
    assert time.monotonic() - began < 60
    front.nothing_left(front.lab.hosts)
