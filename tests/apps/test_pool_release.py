"""Nodes that are let go of while a pool goes on: what they run ends, and what only they have is handed over."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.apps.test_inputs_cached import COUNT, SIZE, _elsewhere, all_up, files, pool, until

from serai.apps.frontends.pool import PoolCancelled
from serai.dispatch.control.asking import ask
from serai.errors import NoNodeLeft, UsageError
from serai.pool.members import Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    import serai

__all__ = ["_elsewhere", "files", "pool"]

SLOW_SUM = "sh -c 'sleep 0.4; cksum < \"$1\"' sh {in}"


def standing(pool: serai.Pool, node: str) -> str:
    return pool._core.run.roster.members[node].standing


def cached(tmp_path: Path, node: str) -> set[str]:
    return {path.name for path in (tmp_path / node / f"serai-{os.getuid()}-cache").glob("objects/*/*")}


def test_a_node_ends_what_it_runs_and_hands_over_what_only_it_has(
    pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path
) -> None:
    sums = {path: subprocess.check_output(["cksum"], input=Path(path).read_bytes()) for path in files}
    two = pool("one", "two", policy="max-cache-hit")  # so that each file is where it came to first, and nowhere else
    run = two._core.run
    until(lambda: all_up(two), "both are up")
    running = two.run(SLOW_SUM, files * 6)
    done = [next(running)]
    until(lambda: all(node.busy for node in run.dispatcher.nodes_now), "both work")
    numbers = [number for number in map(run.catalogue.number, files) if number is not None]
    until(lambda: all(run.catalogue.file(number).holders for number in numbers), "each file is somewhere")
    assert len(numbers) == len(files)
    sole = [number for number in numbers if run.catalogue.file(number).holders == {"one"}]
    assert sole, "it has something that nobody else has"
    pid = run.roster.ad("one")["pid"]
    two.release("one")
    done += running
    assert [outcome.error for outcome in done] == [None] * 18
    assert all(outcome.stdout == sums[outcome.item.inputs[0]] for outcome in done)
    assert {outcome.node for outcome in done} == {"one", "two"}
    until(lambda: standing(two, "one") == Standing.RELEASED, "it is released")
    assert all("two" in run.catalogue.file(number).holders for number in sole)
    assert cached(tmp_path, "one") <= cached(tmp_path, "two")
    assert len(cached(tmp_path, "two")) == 3
    until(lambda: not Path(f"/proc/{pid}").exists(), "its executor has ended")
    again = list(two.run(COUNT, files * 2))
    assert {outcome.stdout.strip() for outcome in again} == {b"%d" % SIZE}
    assert {outcome.node for outcome in again} == {"two"}


def test_what_only_it_has_goes_to_another_though_no_task_wants_it(
    pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path
) -> None:
    two = pool("one", "two", policy="max-cache-hit")
    until(lambda: all_up(two), "both are up")
    assert all(outcome.ok for outcome in two.run(SLOW_SUM, files * 3))
    until(lambda: len(cached(tmp_path, "one")) + len(cached(tmp_path, "two")) >= 3, "the files are in caches")
    leaves, stays = ("one", "two") if cached(tmp_path, "one") - cached(tmp_path, "two") else ("two", "one")
    assert cached(tmp_path, leaves) - cached(tmp_path, stays)
    for path in files:
        os.unlink(path)  # what is handed over can come from the node that goes away only
    two.release(leaves)
    until(lambda: standing(two, leaves) == Standing.RELEASED, "it is released")
    assert len(cached(tmp_path, stays)) == 3


def test_tasks_fail_when_the_last_node_is_released(pool: Callable[..., serai.Pool]) -> None:
    one = pool("one")
    assert [outcome.ok for outcome in one.run("true", [1])] == [True]
    one.release("one")
    until(lambda: standing(one, "one") == Standing.RELEASED, "it is released")
    with pytest.raises(NoNodeLeft, match="its user let go of it"):
        list(one.run("true", [1]))


def test_a_node_that_is_not_there_yet_is_released_at_once_and_one_that_nobody_knows_is_a_mistake(
    pool: Callable[..., serai.Pool],
) -> None:
    two = pool("one", "two")
    two.release("two")
    until(lambda: standing(two, "two") == Standing.RELEASED, "it is released")
    done = list(two.run("sleep 0.05", range(8)))
    assert {outcome.node for outcome in done} == {"one"}
    two.release("two")  # once more does no harm
    with pytest.raises(UsageError, match="no node is called three"):
        two.release("three")


def test_another_process_may_release_a_node_and_is_told_what_it_hands_over(
    pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path
) -> None:
    two = pool("one", "two", policy="max-cache-hit")
    run = two._core.run
    until(lambda: all(node.slots for node in run.dispatcher.nodes_now), "both are up")
    assert all(outcome.ok for outcome in two.run(SLOW_SUM, files * 3))
    until(lambda: len(cached(tmp_path, "one")) + len(cached(tmp_path, "two")) >= 3, "the files are in caches")
    leaves, stays = ("one", "two") if cached(tmp_path, "one") - cached(tmp_path, "two") else ("two", "one")
    news = [one for one in ask(run.directory, "release", {"nodes": [leaves]}) if one]
    assert news[-1]["standing"] == "released"
    assert {one["node"] for one in news} == {leaves}
    assert len(cached(tmp_path, stays)) == 3, "it answers when nothing is only there any more"
    with pytest.raises(UsageError, match=f"no node would be left but {stays}"):
        list(ask(run.directory, "release", {"nodes": [stays]}))
    assert next(ask(run.directory, "about"))["nodes"] == ["one", "two"]


def test_another_process_may_cancel_what_a_pool_does_and_it_goes_on(pool: Callable[..., serai.Pool]) -> None:
    one = pool("one", slots=1)
    run = one._core.run
    future = one.submit(time.sleep, 100)
    with ThreadPoolExecutor(1) as threads:
        commands = threads.submit(list, one.run("sleep 100", range(50)))
        until(lambda: len(run.dispatcher.unended()) == 51, "all is handed over")
        assert [said for said in ask(run.directory, "cancel") if said] == [{"cancelled": 51}]
        with pytest.raises(PoolCancelled, match="serai cancel"):
            commands.result(60)
    with pytest.raises(CancelledError):
        future.result(60)
    assert one.submit(pow, 2, 4).result(60) == 16
