"""Reading a run's journal: alone, beside its writer, after its writer was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.describe.task import Cause, State
from serai.dispatch.front_end import ENDED, HOST, PID, PID_STARTED, front_end_facts, process_started
from serai.dispatch.history import Archive, History
from serai.dispatch.history.liveness import state_of
from serai.dispatch.history.moment import RunState, gist
from serai.dispatch.journal import Batch, Journal
from serai.errors import JournalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = 1_700_000_000.0
NAME = "1114-221320-abcd"


def row(
    task: int, state: State = State.DONE, cause: Cause = Cause.OK, code: int = 0, ago_s: float = 10.0
) -> tuple[Any, ...]:
    """A result of one second that ended some time before NOW."""
    return (task, int(state), int(cause), code, int((NOW - ago_s - 1) * 1e6), 1_000_000, 2048)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def journal(runs: Path) -> Iterator[Journal]:
    """A living run of 20 commands on two nodes, of which nothing has happened."""
    directory = runs / NAME
    directory.mkdir(parents=True)
    journal = Journal(directory / "journal.db", fresh=True)
    journal.set_run(front_end_facts() | {"kind": "command", "began": NOW - 100, "argv": ["run", "wc {in}"]})
    journal.add_work(1, "command", {"command": "wc {in}"})
    journal.add_items(1, 1, [[f"{n}.txt"] for n in range(1, 11)], 10)
    journal.add_items(1, 11, None, 10)
    for name in ("lab1", "lab2"):
        journal.set_node(name, f"ssh://{name}?slots=2", "up", NOW - 90, {"cores": 8, "memory_bytes": 10**9})
    yield journal
    with contextlib.suppress(Exception):
        journal.close()


def look(journal: Journal, now: float = NOW) -> History:
    return History(journal.path, now)


# ---- counts


def test_all_is_queued_at_first(journal: Journal) -> None:
    with look(journal) as history:
        counts = history.counts
        assert (counts.total, counts.queued, counts.running, counts.ended) == (20, 20, 0, 0)
        assert history.run.command == "serai run 'wc {in}'"
        assert history.run.state is RunState.RUNNING
        assert history.pace.left_s(counts) is None


def test_tasks_are_counted_once_wherever_they_are(journal: Journal) -> None:
    batch = Batch()
    batch.results.append(
        ([row(1), row(2, State.FAILED, Cause.EXIT, 1), row(3, State.CANCELLED, Cause.CANCELLED)], "lab1", 0)
    )
    batch.opened += [
        (1, "lab1", 0, NOW - 5, "[2, 4, 5]"),  # task 2 has ended, and the bundle goes on
        (2, "lab2", 1, NOW - 5, "[5, 6]"),  # a copy of task 5
        (3, "lab2", 0, NOW - 5, "[7]"),
    ]
    batch.attempts.append((7, NOW - 1, "lab2", int(Cause.EXIT), ""))  # it waits for its next attempt
    journal.write(batch)
    with look(journal) as history:
        counts = history.counts
        assert (counts.done, counts.failed, counts.cancelled) == (1, 1, 1)
        assert (counts.running, counts.assigned) == (2, 1)
        assert counts.queued == 20 - 3 - 3
        nodes = {node.name: node for node in history.nodes}
        assert (nodes["lab1"].busy, nodes["lab1"].held, nodes["lab1"].slots) == (1, 2, 2)
        assert (nodes["lab2"].busy, nodes["lab2"].held) == (1, 2)
        assert (nodes["lab1"].done, nodes["lab1"].failed, nodes["lab2"].done) == (1, 1, 0)


def test_the_pace_is_that_of_late(journal: Journal) -> None:
    batch = Batch()
    batch.results.append(([row(task, ago_s=task) for task in range(1, 13)], "lab1", 0))
    journal.write(batch)
    with look(journal) as history:
        assert history.pace.window_s == 60
        assert history.pace.per_s == pytest.approx(12 / 60)
        assert history.pace.left_s(history.counts) == pytest.approx(8 / 0.2)


def test_of_functions_the_number_is_not_known_before_the_end(runs: Path) -> None:
    path = runs / "functions" / "journal.db"
    path.parent.mkdir(parents=True)
    own = Journal(path, fresh=True)
    own.set_run(front_end_facts() | {"kind": "pool", "began": NOW - 10})
    with look(own) as history:
        assert history.counts.total is None
    own.add_work(1, "function", {"name": "mine.simulate"})
    batch = Batch()
    batch.results.append(([row(1), row(2)], "local", 0))
    batch.opened.append((2, "local", 0, NOW, "[4, 5]"))
    own.write(batch)
    with look(own) as history:
        counts = history.counts
        assert (counts.total, counts.seen, counts.queued, history.pace.left_s(counts)) == (None, 5, 1, None)
        assert history.task(3).state is State.QUEUED
        with pytest.raises(UsageError) as caught:
            history.task(6)
        assert "tasks 1 to 5 are known of" in str(caught.value.hint)
    own.set_run({PID: 2**22 + 7, PID_STARTED: 1})
    with look(own) as history:
        assert (history.run.state, history.counts.total, history.counts.queued) == (RunState.INTERRUPTED, None, 3)
    own.set_run({ENDED: NOW})
    with look(own) as history:
        assert (history.counts.total, history.counts.running, history.counts.queued) == (5, 0, 3)
    own.close()


def test_of_a_stream_of_items_the_number_is_not_known_before_its_end(journal: Journal) -> None:
    journal.set_run({"total": None, "complete": False})
    with look(journal) as history:
        assert (history.counts.total, history.counts.seen, history.has_functions) == (None, 20, False)
        with pytest.raises(UsageError) as caught:
            history.task(21)
        assert caught.value.hint == "tasks 1 to 20 are known of, so it may come after those"
    journal.set_run({"total": 50})
    with look(journal) as history:
        assert (history.counts.total, history.counts.queued) == (50, 50)
        assert history.task(50).state is State.QUEUED
    journal.set_run({"complete": True, "total": 20})
    with look(journal) as history:
        assert history.counts.total == 20


# ---- nodes and tasks


def test_a_node_says_what_it_does(journal: Journal) -> None:
    batch = Batch()
    batch.results.append(([row(1)], "lab1", 0))
    batch.opened.append((1, "lab1", 1, NOW - 5, "[4, 5]"))
    journal.write(batch)
    beat = {"lanes": {"0": [1, 3.0], "1": [4, 2.5]}, "load": 0.5, "memory_free_bytes": 7, "disk_free_bytes": 8}
    journal.set_beats({"lab1": beat}, NOW - 1)
    journal.set_node("lab2", "ssh://lab2", "waiting", NOW - 3, None, "no answer")
    with look(journal) as history:
        first, second = history.nodes
        assert first.doing == ((1, 4, 2.5),), "what has ended since is not shown"
        assert (first.load, first.memory_free_bytes, first.disk_free_bytes, first.beat_at) == (0.5, 7, 8, NOW - 1)
        assert (second.up, second.why, second.ad["cores"]) == (False, "no answer", 8)
        assert history.task(4).state is State.RUNNING
        place = history.task(5).places[0]
        assert (place.node, place.lane, place.position, place.size, place.ahead) == ("lab1", 1, 2, 2, 1)
        assert history.task(5).state is State.ASSIGNED


def test_a_task_that_ended(journal: Journal, runs: Path) -> None:
    streams = runs / NAME / "streams"
    streams.mkdir()
    (streams / "2.9.out").write_bytes(b"long")
    batch = Batch()
    batch.results.append(([row(2, State.FAILED, Cause.EXIT, 3)], "lab1", 1))
    # The directory of runs was moved since the path was written.
    batch.streams += [(2, 0, None, "/elsewhere/streams/2.9.out"), (2, 1, b"why\n", None)]
    batch.details.append((2, "a detail"))
    batch.attempts.append((2, NOW - 50, "lab2", int(Cause.NODE_LOST), "gone"))
    batch.notes.append((NOW - 40, "lab2", 2, "a note"))
    journal.write(batch)
    with look(journal) as history:
        task = history.task(2)
    assert task.result is not None
    assert (task.state, task.result.exit_code, task.result.node, task.result.lane) == (State.FAILED, 3, "lab1", 1)
    assert (task.what, task.item, task.detail) == ("wc {in}", ["2.txt"], "a detail")
    assert task.attempts[0].node == "lab2"
    assert task.notes[0].text == "a note"
    assert [b"".join(stream.chunks()) for stream in task.streams] == [b"long", b"why\n"]
    assert [stream.tail(3) for stream in task.streams] == [b"ong", b"hy\n"]
    (streams / "2.9.out").unlink()
    with pytest.raises(JournalError, match="cannot read what the task printed"):
        list(task.streams[0].chunks())


def test_tasks_before_one_that_waits(journal: Journal) -> None:
    batch = Batch()
    batch.results.append(([row(1), row(2), row(18)], "lab1", 1))
    batch.opened.append((1, "lab1", 1, NOW - 5, "[3, 4, 19]"))
    journal.write(batch)
    with look(journal) as history:
        assert history.task(12).before == 11 - 2 - 2
        assert history.task(5).before == 0
        assert history.task(12).item is None


@pytest.mark.parametrize("number", [0, 21, 10**17])
def test_a_task_that_never_was(journal: Journal, number: int) -> None:
    with look(journal) as history, pytest.raises(UsageError) as caught:
        history.task(number)
    assert caught.value.hint == "it has 20 tasks: 1 to 20"


def test_failures_are_grouped_by_cause_and_message(journal: Journal) -> None:
    batch = Batch()
    failed = [row(n, State.FAILED, Cause.EXIT, 1) for n in (1, 2, 3)] + [row(4, State.FAILED, Cause.MISSING_OUTPUT)]
    batch.results.append((failed, "lab1", 1))
    batch.streams += [(n, 1, f"warning\nwc: {n}.txt: no such file\n".encode(), None) for n in (1, 2, 3)]
    batch.details.append((4, "its output is not there\nat all"))
    journal.write(batch)
    with look(journal) as history:
        first, second = history.failures
        assert history.failed_tasks() == [1, 2, 3, 4]
    assert (first.message, first.count, first.tasks) == ("exit code 1: wc: 1.txt: no such file", 3, (1, 2, 3))
    assert (second.message, second.count, second.cause) == ("its output is not there", 1, Cause.MISSING_OUTPUT)


@pytest.mark.parametrize(
    ("cause", "code", "detail", "stderr", "words"),
    [
        (Cause.EXIT, -9, "", b"", "signal 9 (SIGKILL)"),
        (Cause.EXIT, -99, "", b"", "signal 99"),
        (Cause.EXIT, 2, "", b"a\r\nb \n\n", "exit code 2: b"),
        (Cause.EXCEPTION, 0, "Traceback ...:\n  File x\nmy.Error: one\ntwo words\n", b"", "my.Error: one"),
        (Cause.EXCEPTION, 0, "", b"", "it raised an exception"),
        (Cause.TIME_LIMIT, None, "", b"", "time limit"),
        (99, None, "", b"", "cause 99"),
    ],
)
def test_the_gist_of_a_failure(cause: int, code: int | None, detail: str, stderr: bytes, words: str) -> None:
    assert gist(cause, code, detail, stderr) == words


# ---- how a run stands


@pytest.mark.parametrize(
    ("facts", "started", "state"),
    [
        ({ENDED: 5.0, PID: 7}, 70, RunState.FINISHED),
        ({PID: 7, PID_STARTED: 70, ENDED: None}, 70, RunState.RUNNING),
        ({PID: 7, PID_STARTED: 70}, 71, RunState.INTERRUPTED),  # the number was given to another process
        ({PID: 7, PID_STARTED: 70}, None, RunState.INTERRUPTED),
        ({PID: 7, PID_STARTED: None}, 0, RunState.RUNNING),
        ({PID: 7, PID_STARTED: 70, HOST: "other"}, None, RunState.RUNNING),  # cannot be looked at; it wrote just now
        ({}, None, RunState.RUNNING),
    ],
)
def test_the_state_of_a_run(facts: dict[str, Any], started: int | None, state: RunState) -> None:
    assert state_of(facts, heard_at=NOW - 1, now=NOW, here="here", start_of=lambda _: started) is state


def test_a_front_end_elsewhere_that_is_silent_is_gone() -> None:
    facts = {PID: 7, HOST: "other"}
    assert state_of(facts, heard_at=NOW - 99, now=NOW, here="here", start_of=lambda _: 1) is RunState.INTERRUPTED


def test_when_a_process_started() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_started(child.pid)
    assert process_started(child.pid) != process_started(os.getpid())
    child.kill()
    wait_until(lambda: process_started(child.pid) is None)  # before anybody has asked for its exit code, too
    child.communicate()
    assert process_started(child.pid) is None


# ---- beside the writer


def wait_until(true: Callable[[], object], deadline_s: float = 40.0) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_reader_beside_a_busy_writer(journal: Journal) -> None:
    journal.add_items(1, 21, None, 100_000)
    stop = threading.Event()
    longest = 0.0
    failure: list[BaseException] = []

    def write() -> None:
        nonlocal longest
        task = 1
        try:
            while not stop.is_set():
                batch = Batch()
                batch.results.append(([row(n) for n in range(task, task + 10)], "lab1", 0))
                batch.opened.append((task, "lab1", 0, NOW, json.dumps(list(range(task + 10, task + 20)))))
                batch.closed.append(task - 10)
                began = time.monotonic()
                journal.write(batch)
                longest = max(longest, time.monotonic() - began)
                task += 10
        except BaseException as error:  # noqa: BLE001 - the test is told
            failure.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = 0
        for _ in range(50):
            with look(journal) as history:
                counts = history.counts
                assert counts.done % 10 == 0, "a look is one moment: between two transactions"
                assert counts.done >= seen
                assert counts.running + counts.assigned == (10 if counts.done else 0)
                assert counts.done == sum(node.done or 0 for node in history.nodes)
                seen = counts.done
        wait_until(lambda: look_done(journal) > seen)
    finally:
        stop.set()
        writer.join()
    assert not failure
    assert longest < 20.0  # it waits for the disk at most, and for no reader


def look_done(journal: Journal) -> int:
    with look(journal) as history:
        return history.counts.done


def test_reading_leaves_nothing_beside_a_closed_journal(journal: Journal, runs: Path) -> None:
    journal.set_run({ENDED: NOW})
    journal.close()
    before = sorted((runs / NAME).iterdir())
    with look(journal) as history:
        assert history.counts.total == 20
    assert sorted((runs / NAME).iterdir()) == before == [runs / NAME / "journal.db"]


WRITER = """
import sys, time, pathlib
from serai.dispatch.front_end import front_end_facts
from serai.dispatch.journal import Journal, Batch
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True)
journal = Journal(path, fresh=True)
journal.set_run(front_end_facts() | {"kind": "run", "began": time.time()})
journal.add_work(1, "command", {"command": "true"})
journal.add_items(1, 1, None, 1000)
batch = Batch()
batch.results.append(([(n, 3, 0, 0, 0, 0, 0) for n in range(1, 101)], "lab1", 0))
batch.opened.append((1, "lab1", 0, time.time(), "[101, 102]"))
journal.write(batch)
journal._db.execute("PRAGMA cache_spill = 1")
journal._db.execute("PRAGMA cache_size = 1")  # so that the transaction that is cut short has reached the file
journal._db.execute("BEGIN IMMEDIATE")
journal._db.executemany("INSERT INTO result VALUES (?, 3, 0, 0, 'lab1', 0, 0, 0, 0)", [(n,) for n in range(101, 900)])
print("in the middle", flush=True)
time.sleep(60)
"""


def test_a_front_end_that_was_killed_in_the_middle_of_a_transaction(runs: Path) -> None:
    path = runs / "killed" / "journal.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "in the middle\n"
        with History(path, time.time()) as history:
            assert history.run.state is RunState.RUNNING
            assert (history.counts.done, history.counts.running, history.counts.assigned) == (100, 1, 1)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    with History(path, time.time()) as history:
        assert history.run.state is RunState.INTERRUPTED
        assert (history.counts.done, history.counts.queued, history.counts.running) == (100, 900, 0)
        assert history.task(101).state is State.QUEUED
    with Archive(runs).open(None, time.time()) as history:
        assert history.run.name == "killed"


def test_what_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with pytest.raises(JournalError, match="unable to open"):
        History(path, NOW)
    path.touch()
    with pytest.raises(JournalError) as caught:
        History(path, NOW)
    assert caught.value.hint == "is it just being made?"
    path.write_bytes(b"something else " * 1000)
    with pytest.raises(JournalError, match="not a database"):
        History(path, NOW)


def test_a_journal_of_another_format(journal: Journal) -> None:
    journal._db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="has format 99"):
        look(journal)


# ---- a real run


def test_a_real_pool(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def work(number: int) -> int:
        while number == 3 and not gate.exists():
            time.sleep(0.01)
        if number == 2:
            raise ValueError("not two")
        print("number", number)  # noqa: T201 - what the function prints is looked at
        return number

    options = serai.Options(runs=tmp_path / "runs", echo=False)
    with serai.Pool("local:?slots=2", options=options) as pool:
        futures = [pool.submit(work, number) for number in range(1, 4)]
        assert futures[0].result(40) == 1
        with pytest.raises(ValueError, match="not two"):
            futures[1].result(40)

        def runs_third() -> bool:
            with Archive(tmp_path / "runs").open(pool.name, time.time()) as history:
                return history.task(3).state is State.RUNNING

        wait_until(runs_third)
        with Archive(tmp_path / "runs").open(None, time.time()) as history:
            counts = history.counts
            assert (counts.total, counts.done, counts.failed, counts.running) == (None, 1, 1, 1)
            assert history.nodes[0].slots == 2
            assert history.failures[0].message == "ValueError: not two"
            assert b"".join(history.streams(1)[0].chunks()) == b"number 1\n"
        gate.touch()
        assert futures[2].result(40) == 3
    with Archive(tmp_path / "runs").open(None, time.time()) as history:
        assert (history.counts.done, history.counts.failed) == (2, 1)
