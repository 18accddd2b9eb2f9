"""A host is let go of while a pool runs over it: what only its cache has is on another one afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import HOLD, left_on
from tests.e2e.test_caching_lab import SIZE, make
from tests.e2e.test_inputs_lab import pool

from serai.pool.members import Standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Front

    import serai

__all__ = ["pool"]

pytestmark = pytest.mark.lab

SLOW_COUNT = "sh -c 'sleep 0.3; cat \"$1\" | wc -c' sh {in}"


def test_a_host_that_is_released_hands_over_ends_its_tasks_and_leaves_nothing_running(
    front: Front, pool: Callable[..., serai.Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERAI_STATE", str(tmp_path / "state"))
    paths = make(tmp_path / "d", 6)
    both = pool("lab1", "lab2")
    run = both._core.run
    front.until(lambda: sum(node.slots for node in run.dispatcher.nodes_now) == 4, "both are up")
    running = both.run(SLOW_COUNT, paths * 4)
    done = [next(running) for _ in range(8)]
    numbers = [number for number in map(run.catalogue.number, paths) if number is not None]
    front.until(lambda: all(run.catalogue.file(one).holders for one in numbers), "the files are somewhere")
    sole = [one for one in numbers if run.catalogue.file(one).holders == {"lab1"}]
    pid = run.roster.ad("lab1")["pid"]
    both.release("lab1")
    done += running
    assert [outcome.error for outcome in done] == [None] * 24
    assert {outcome.stdout.strip() for outcome in done} == {b"%d" % SIZE}
    front.until(lambda: run.roster.members["lab1"].standing is Standing.RELEASED, "it is released")
    assert all("lab2" in run.catalogue.file(one).holders for one in sole)
    host = front.lab.host("lab1")
    front.until(lambda: host.run(["test", "-e", f"/proc/{pid}"]).returncode, "its executor has ended")
    assert {outcome.node for outcome in both.run(SLOW_COUNT, paths)} == {"lab2"}


def test_a_host_of_a_run_that_goes_on_is_let_go_of_from_another_process(front: Front) -> None:
    paths = make(front.home / "d", 4)
    with front.together("lab1", "lab2"):
        words = ["--policy", "max-cache-hit", *front.on("lab1", "lab2", slots=1)]
        running = front.start("run", HOLD + "sleep 0.5; cksum < {in}; " + HOLD, *paths * 6, *words)
    front.until(lambda: front.busy_on("lab1") and front.busy_on("lab2"), "both have something of their own")
    front.hold("lab1", "lab2")  # so that lab1 has something to end, and the run goes on for as long as this takes
    releasing = front.start("release", "lab1")
    assert releasing.stdout is not None
    assert "lab1: no new tasks; " in releasing.stdout.readline()
    front.let_go("lab1")
    released = front.finish(releasing)
    assert released.returncode == 0, released.stderr
    assert released.stdout.endswith("lab1: released\n")
    host = front.lab.host("lab1")
    front.until(lambda: not left_on(host), "nothing of it is left there")
    assert running.poll() is None, "and the run goes on"
    front.let_go()
    done = front.finish(running)
    assert done.returncode == 0, done.stderr
