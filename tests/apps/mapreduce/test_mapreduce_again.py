"""Lost workers are started again; a split that ends workers is named, and left out where that was asked for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.apps.mapreduce.crew import Patiences
from serai.apps.mapreduce.job import Job
from serai.apps.workers.revival import Again
from serai.describe.mapreduce import Commands
from serai.errors import NoNodeLeft, TaskFailed
from serai.pool.members import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.apps.mapreduce.conftest import Bench

    from serai.apps.mapreduce.run import Running

REDUCE = (
    "LC_ALL=C awk -F '\\t' 'NR > 1 && $1 != w { print w \"\\t\" c; c = 0 } { w = $1; c += $2 }"
    ' END { if (NR) print w "\\t" c }\''
)
SLOW = Commands("sleep 0.3; tr -s ' ' '\\n' | awk 'length { print $0 \"\\t1\" }'", "sleep 0.3; " + REDUCE)
SERAI = [sys.executable, "-m", "serai"]
SOON = Patiences(again=Again(Patience(0.2, 1.0, 3)))
FOR_LONG = Patiences(again=Again(Patience(0.2, 1.0, 20)))


def finish(running: Running, within_s: float = 50.0) -> list[str]:
    assert running.wait(within_s), "it does not end"
    return running.files()


def living(running: Running) -> list[int]:
    """The processes of workers that are used."""
    with running.desk.changed:
        workers = running.desk.master.workers
        return [known.ad["pid"] for name, known in running.desk.known.items() if workers[name].alive]


def happened(running: Running, what: str) -> list[dict[str, Any]]:
    return [event for event in list(running.record.events) if event["what"] == what]


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def calm(bench: Bench) -> list[bytes]:
    with bench.running(bench.session(output=str(bench.tmp_path / "calm"))) as running:
        finish(running)
    return bench.outputs("calm")


@pytest.mark.parametrize("phase", ["map", "reduce"])
def test_a_run_goes_on_when_every_worker_was_killed(
    bench: Bench, calm: list[bytes], until: Callable[..., Any], left_of: Callable[[str], list[int]], phase: str
) -> None:
    go = bench.tmp_path / "go"
    held = Commands(SLOW.mapper, f"until test -e {go}; do sleep 0.05; done; {SLOW.reducer}")
    with bench.running(bench.session(program=held)) as running:
        master = running.desk.master
        until(lambda: len(living(running)) == 2 and master.maps_done >= 2 and master.phase == phase)
        killed = living(running)
        kill(killed)
        go.touch()
        finish(running)
        assert len(set(living(running)) - set(killed)) == 2
        for words in running.troubles:
            assert "serai" not in words
            assert "SIGKILL ended it (somebody's kill -9, or the kernel's where memory is short)" in words
            assert "another is started in " in words
    assert running.crew.again == 2
    assert bench.outputs() == calm
    assert left_of(running.name) == []


def test_a_host_whose_steward_hangs_is_given_up_though_its_workers_live(
    bench: Bench, calm: list[bytes], until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    go = bench.tmp_path / "go"
    held = Commands(f"until test -e {go}; do sleep 0.05; done; {SLOW.mapper}", SLOW.reducer)
    patiences = Patiences(silent_s=3.0, again=Again(Patience(0.2, 1.0, 3)))
    with bench.running(bench.session(program=held), patiences=patiences) as running:
        until(lambda: len(living(running)) == 2)
        with open(f"/proc/{living(running)[0]}/stat") as stat:
            steward = int(stat.read().rpartition(")")[2].split()[1])
        os.kill(steward, signal.SIGSTOP)
        until(lambda: happened(running, "again"), 25.0)
        room = happened(running, "host")[0]["facts"]["room"]
        until(lambda: not os.path.exists(room))
        assert len(happened(running, "lost")) <= 4, "each when its host fell silent, and when that was given up"
        go.touch()
        finish(running)
        assert running.troubles[0] == "local: nothing is heard of it; what w1, w2 had is made again"
        assert "it gave no sign of life" in running.troubles[1]
    assert bench.outputs() == calm
    until(lambda: left_of(running.name) == [])


class Ends:
    """Ends the process that loads it, as a module may whose library is not fit for a processor."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


def test_a_host_on_which_workers_end_again_and_again_is_left_out(bench: Bench) -> None:
    session = bench.session([("local:", 1)])
    job = Job(session.program, ("mapper",), pickle.dumps({"mapper": Ends()}))
    with bench.running(session, job, patiences=SOON) as running, pytest.raises(NoNodeLeft) as caught:
        finish(running)
    said = str(caught.value)
    assert "no worker is left" in said
    assert running.troubles[0] == "local/w1: it ended with exit status 9; another is started in 0 s"
    assert "local/w4: it ended with exit status 9; local is left out after 4 in a row without any work done" in said
    assert "local/w1" not in said, "the last reason will do"
    assert "hint: see to these hosts" in said
    assert running.crew.again == 3


def test_what_a_dead_worker_started_and_wrote_is_gone_before_another_comes(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    with bench.running(bench.session([("local:", 1)], program=Commands("sleep 30; cat", REDUCE))) as running:
        room = until(lambda: happened(running, "host"))[0]["facts"]["room"]
        until(lambda: len(left_of(running.name)) >= 2)  # the worker, and its command
        had = left_of(running.name)
        kill(living(running))
        until(lambda: happened(running, "lost"))
        until(lambda: not set(had) & set(left_of(running.name)))
        until(lambda: not os.path.exists(f"{room}/w1"))


# ---- splits that end workers


def poisonous(line: str) -> Iterator[tuple[str, int]]:
    if "POISON" in line:
        ctypes.string_at(0)  # as a broken extension may do
    yield from ((word, 1) for word in line.split())


def leaves(line: str) -> Iterator[tuple[str, int]]:
    if "POISON" in line:
        sys.exit("a well is dry")
    yield from ((word, 1) for word in line.split())


@pytest.fixture
def poison(bench: Bench) -> str:
    path = bench.corpus.directory / "9.txt"
    path.write_text("a POISON b\n")
    return str(path)


def test_a_split_that_ends_its_workers_is_named(bench: Bench, poison: str) -> None:
    with serai.Pool("local:?slots=2") as pool, pytest.raises(TaskFailed) as caught:
        pool.mapreduce(poisonous, "sum", bench.corpus.directory)
    said = str(caught.value)
    assert f"({poison}, bytes 0 to 11) ended 3 workers" in said
    assert "SIGSEGV ended it" in said
    assert "skip=N" in said


def test_where_that_was_asked_for_it_is_left_out_and_listed(bench: Bench, poison: str) -> None:
    with serai.Pool("local:?slots=2") as pool:
        result = pool.mapreduce(poisonous, "sum", bench.corpus.directory, skip=1)
        assert dict(result) == bench.corpus.counts
        assert result.statistics.skipped == len(result.skipped) == 1
        assert poison in result.skipped[0]
        (bench.corpus.directory / "8.txt").write_text("another POISON\n")
        with pytest.raises(TaskFailed, match="as many splits as skipping allows for have failed before"):
            pool.mapreduce(leaves, "sum", bench.corpus.directory, skip=1)


def test_a_function_that_calls_exit_ends_no_worker(bench: Bench, poison: str) -> None:
    with serai.Pool("local:?slots=1") as pool:
        with pytest.raises(TaskFailed, match="failed 4 times") as caught:
            pool.mapreduce(leaves, "sum", bench.corpus.directory)
        assert "sys.exit('a well is dry') was called" in str(caught.value)
        assert poison in str(caught.value)


def test_the_command_leaves_out_so_many_as_it_is_told(bench: Bench, poison: str) -> None:
    (bench.tmp_path / "job.toml").write_text(
        "[mapreduce]\n"
        f"mapper = {json.dumps('grep -q POISON $mapreduce_map_input_file && exit 3; cat')}\n"
        'reducer = "count"\ninputs = ["texts"]\noutput = "out"\npartitions = 1\nskip = 1\n'
        '[[hosts]]\nurl = "local:"\nworkers = 2\n'
    )
    command = [*SERAI, "mapreduce", str(bench.tmp_path / "job.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"left out: the map 4 ({poison}, bytes 0 to 11) failed 4 times" in done.stderr
    assert "1 splits left out" in done.stderr
    done = subprocess.run([*command, "--skip", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "--skip N" in done.stderr


# ---- workers that die at random


@pytest.mark.parametrize("seed", [1, 2])
def test_whichever_workers_die_and_when_no_byte_changes(bench: Bench, calm: list[bytes], seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - kills from a seed
    deaths = 0
    with bench.running(bench.session([("local:", 3)], program=SLOW), patiences=FOR_LONG) as running:
        while deaths < 6 and not running.wait(draw.uniform(0.1, 0.7)):
            pids = living(running)
            if pids:
                with contextlib.suppress(ProcessLookupError):  # it was killed before, and nobody has noticed yet
                    kill([draw.choice(pids)])
                    deaths += 1
        finish(running)
    assert bench.outputs() == calm, f"seed {seed}"
    assert running.crew.again >= 1
