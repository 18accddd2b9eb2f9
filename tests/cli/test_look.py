"""The commands that look at runs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

import serai
from serai.apps.plan import Plan, encode
from serai.cli import look, sentences, tables
from serai.describe.task import Cause, Item, Needs, State
from serai.dispatch.control.channel import Channel
from serai.dispatch.front_end import ENDED, PID, PID_STARTED, front_end_facts
from serai.dispatch.history.moment import Pace
from serai.dispatch.journal import Batch, Journal
from serai.dispatch.schedule.events import Retry
from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import click

NAME = "1114-221320-abcd"
BINARY = bytes(range(256)) + b"\r\nno end of line"
COMMANDS: dict[str, click.Command] = {
    "status": look.status, "explain": look.explain, "logs": look.logs, "runs": look.runs,
}  # fmt: skip


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERAI_STATE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")  # of whatever terminal the tests are run in
    return tmp_path


def run(line: str) -> Result:
    command, *words = shlex.split(line)
    result = CliRunner().invoke(COMMANDS[command], words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def out(line: str) -> str:
    result = run(line)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout, "no colours for what is no terminal"
    assert "--json" in line or all(len(one) <= 100 for one in result.stdout.splitlines()), result.stdout
    return result.stdout


def result_row(task: int, state: State, cause: Cause, code: int, began: float) -> tuple[Any, ...]:
    return (task, int(state), int(cause), code, int(began * 1e6), 3_200_000, 120_000)


@pytest.fixture
def journal(state: Path) -> Iterator[Journal]:
    """A run of 1000 commands that goes on, with nodes of every kind."""
    now = time.time()
    directory = state / "runs" / NAME
    directory.mkdir(parents=True)
    journal = Journal(directory / "journal.db", fresh=True)
    argv = ["run", "samtools sort -o {out:.bam} {in}", "data/*.bam"]
    journal.set_run(front_end_facts() | {"kind": "command", "began": now - 190, "argv": argv})
    needs = Needs(memory_bytes=4 * 10**9, software=("samtools",))
    retry = Retry(times=2, first_s=60.0, most_s=120.0)
    plan = Plan("samtools sort -o {out:.bam} {in}", "/home/me", out_dir="out", needs=needs, retry=retry)
    journal.add_work(1, "command", plan.describe())
    journal.add_items(1, 1, [encode(Item(inputs=(f"data/{n}.bam",))) for n in range(1, 1001)], 1000)
    journal.add_work(2, "command", {"command": "train", "needs": {"cores": 64}})
    journal.add_items(2, 1001, None, 1)
    has = {"samtools": True}
    nodes: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("lab1", "up", "", {"cores": 4, "memory_bytes": 16 * 10**9, "software": has}),
        ("lab2", "up", "", {"cores": 8, "memory_bytes": 2 * 10**9, "software": has}),
        ("lab3", "up", "", {"cores": 2, "memory_bytes": 32 * 10**9, "software": {"samtools": False}}),
        ("lab4", "waiting", "lab4: no answer within 10 s\n  hint: is it \x1b[31mswitched on?", None),
        ("lab5", "given up", "lab5: no credential was accepted", None),
        ("lab6", "given up", "lab6: no credential was accepted", None),
    ]
    for name, standing, why, ad in nodes:
        journal.set_node(name, f"ssh://{name}", standing, now - 30, ad, why)
    batch = Batch()
    done = [result_row(n, State.DONE, Cause.OK, 0, now - 190 + n * 0.9) for n in range(1, 200) if n % 41]
    failed = [result_row(n, State.FAILED, Cause.EXIT, 1, now - 190 + n * 0.9) for n in range(1, 200) if not n % 41]
    batch.results += [(done, "lab1", 0), (failed, "lab1", 1)]
    batch.streams += [(n, 1, f'samtools: "data/{n}.bam" is cut short\n'.encode(), None) for n in range(41, 200, 41)]
    batch.streams += [(1, 0, BINARY, None), (1, 1, b"err", None), (82, 0, b"no end of line", None)]
    batch.opened += [(k + 1, "lab1", k, now - 8, json.dumps([210 + k * 3, 211 + k * 3, 212 + k * 3])) for k in range(4)]
    batch.attempts += [
        (230, now - 3, "lab1", int(Cause.EXIT), ""),
        (1, now - 300, "lab1", int(Cause.NODE_LOST), "gone"),
    ]
    batch.notes += [
        (now - 100, "lab4", 0, "lab4: it has been silent for 15 s"),
        (now - 20, "lab1", 215, "a copy is queued"),
    ]
    journal.write(batch)
    beat = {"lanes": {"0": [210, 3.2], "1": [213, 7.0]}, "load": 3.91, "memory_free_bytes": 9, "disk_free_bytes": 8}
    journal.set_beats({"lab1": beat}, now - 1)
    yield journal
    journal.close()


# ---- status


@pytest.mark.usefixtures("journal")
def test_status_of_a_run_that_goes_on() -> None:
    text = out("status")
    assert text.startswith(f"{NAME}  running since ")
    assert "serai run 'samtools sort -o {out:.bam} {in}' 'data/*.bam'" in text
    assert "195 of 1,001 done, 4 failed, 4 running, 8 assigned, 790 queued" in text
    assert " left" in text
    assert "lab1  up        4 of 4   195       4   3.9" in text
    assert "    no answer within 10 s\n" in text
    assert "?[31mswitched on?" in text
    assert 'exit code 1: samtools: "data/41.bam" is cut short  (tasks 41, 82, 123, 164)' in text
    assert "lab1 task 215: a copy is queued" in text


@pytest.mark.usefixtures("journal")
def test_columns_stand_below_each_other() -> None:
    lines = out("status").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("node"))
    end = lines[start].index("done") + len("done")
    rows = [line for line in lines[start + 1 :] if line.startswith("lab")]
    assert len(rows) == 6
    assert all(line[end - 1].isdigit() and line[end : end + 2] == "  " for line in rows)


@pytest.mark.usefixtures("journal")
def test_status_as_an_object() -> None:
    found = json.loads(out("status --json"))
    assert found["run"]["name"] == NAME
    assert found["run"]["state"] == "running"
    assert found["counts"] == {
        "total": 1001, "seen": 1001, "done": 195, "failed": 4, "cancelled": 0,
        "running": 4, "assigned": 8, "queued": 790,
    }  # fmt: skip
    assert found["nodes"][0]["running"][0] == {"lane": 0, "task": 210, "for_s": 3.2}
    assert found["failures"][0]["count"] == 4
    assert found["left_s"] > 0
    named = (tables.as_json.__doc__ or "").replace("\n", " ")
    assert all(
        f"``{key}``" in named
        for key in [*found, *found["run"], *found["counts"], *found["nodes"][0]]
        if "_per_" not in key
    )


def test_status_after_the_end(journal: Journal) -> None:
    journal.set_run({ENDED: time.time()})
    text = out("status")
    assert "  finished at " in text
    assert "195 of 1,001 done, 4 failed, 802 not done" in text
    assert "left" not in text
    assert json.loads(out("status --json"))["left_s"] is None


def test_status_after_a_front_end_was_killed(journal: Journal) -> None:
    journal.set_run({PID: 2**22 + 7, PID_STARTED: 1})
    assert "  interrupted; began at " in out("status")
    assert "802 not done" in out("status")
    assert f"serai resume {NAME} takes it up again" in out("status")
    assert "the run was interrupted" in out("explain 211")
    assert f"until serai resume {NAME}." in out("explain 211").replace("\n  ", " ")


@pytest.mark.usefixtures("state")
def test_status_without_runs() -> None:
    with pytest.raises(UsageError, match="there are no runs yet"):
        run("status")
    assert "there are no runs yet" in run("runs").stderr


def test_many_nodes_are_not_all_shown(journal: Journal) -> None:
    for number in range(100):
        journal.set_node(f"n{number}", "ssh://n", "up", 0.0, {"cores": 1})
    assert "and 86 more nodes, 86 of them up" in out("status")


def test_watching_in_lines_ends_with_the_run(journal: Journal) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from serai.cli.look import status; status()", "--watch"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert child.stdout is not None
    try:
        assert "195 of 1,001 done, 4 failed, 4 running" in child.stdout.readline()
        batch = Batch()
        batch.results.append(([result_row(210, State.DONE, Cause.OK, 0, time.time())], "lab1", 0))
        journal.write(batch)
        assert "196 of 1,001 done" in child.stdout.readline()
        journal.set_run({ENDED: time.time()})
        assert "finished at" in child.stdout.readline()
        assert child.stdout.read() == ""
        assert child.wait(40) == 0
    finally:
        child.kill()
        child.communicate()


def test_watching_on_a_terminal(journal: Journal) -> None:
    """With a real terminal: it shows the screen anew, and the last one stays."""
    ours, theirs = os.openpty()
    code = "import os; os.environ['COLUMNS'] = '90'; from serai.cli.look import status; status()"
    environment = dict(os.environ) | {"TERM": "xterm", "LINES": "60"}
    child = subprocess.Popen([sys.executable, "-c", code, "-w"], stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    shown = bytearray()
    ended = threading.Event()

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # how Linux says that nobody has the other end
                break
            if not data:
                break
            shown.extend(data)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        wait_until(lambda: b"195 of 1,001 done" in shown)
        journal.set_run({ENDED: time.time()})
        assert child.wait(40) == 0
        assert ended.wait(40)
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert b"finished at" in shown
    assert b"\x1b[" in shown


def wait_until(true: Callable[[], object], deadline_s: float = 40.0) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# ---- explain


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (1, ["with data/1.bam.", "Attempt 1 on lab1 ended badly", "gone.", "It ended well on lab1, lane 0.",
             "took 3.2s",
             "at most 123 MB of memory", "That was attempt 2.", "It wrote /home/me/out/1.bam.",
             f"It printed 272 B on standard output and 3 B on standard error: serai logs {NAME}:1"]),
        (41, ['It failed on lab1, lane 1: exit code 1: samtools: "data/41.bam" is cut short.']),
        (210, ["It runs on lab1, lane 0, since "]),
        (214, ["It was sent to lab1, lane 1, as the 2nd of a bundle of 3, ", "That lane runs task 213, for ",
               "1 task before it in the bundle has not ended."]),
        (215, ["2 tasks before it in the bundle have not ended.", ": a copy is queued."]),
        (219, ["It was sent to lab1, lane 3", "It is next there, or has just begun."]),
        (230, ["Attempt 1 on lab1 ended badly", "an exit code other than 0", "It is queued behind 18 other tasks; ",
               "Attempt 2 of at most 3 may begin between "]),
        (500, ["lab1 can run it: 4 of 4 slots are in use, and 12 tasks are there now.",
               "lab2 cannot run it: it needs 4 GB of memory and this node has 2 GB.",
               "lab3 cannot run it: it needs samtools, which this node does not have.",
               "lab4 is not there and will be tried again, since ",
               ": no answer within 10 s.\n  hint: is it ?[31mswitched",
               "lab5 and lab6 were given up, since "]),
        (1001, ["lab1 cannot run it: it needs 64 cores and this node has 4.",
                "No node that is there can run it. One with at least 64 cores would."]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("journal")
def test_explain(task: int, words: list[str]) -> None:
    text = out(f"explain {task}")
    for one in words:
        assert one in text.replace("\n  ", " ") or one in text, text


@pytest.mark.usefixtures("journal")
def test_explain_a_task_of_another_run_or_of_none() -> None:
    assert f"Task 1 of run {NAME}" in out(f"explain {NAME[:6]}:1")
    with pytest.raises(UsageError) as caught:
        run("explain 1002")
    assert caught.value.hint == "it has 1001 tasks: 1 to 1001"
    with pytest.raises(UsageError, match="ssh: leads to files in one way") as caught:
        run("explain ssh://lab1/x")
    assert caught.value.hint == "serai explain any://lab1/x"
    with pytest.raises(UsageError, match="is not a task"):
        run("explain x")
    with pytest.raises(UsageError, match="there is no run 'x'"):
        run("explain x:1")


# ---- logs


@pytest.mark.usefixtures("journal")
def test_logs_are_exact() -> None:
    both = run("logs 1")
    assert (both.stdout_bytes, both.stderr_bytes) == (BINARY, b"err")
    assert run("logs 1 --stdout").output_bytes == BINARY
    assert run("logs 1 --stderr").stderr_bytes == b"err"
    assert run("logs 1 --stderr").stdout_bytes == b""
    assert run("logs 2").output_bytes == b""


@pytest.mark.usefixtures("journal")
def test_logs_of_earlier_attempts() -> None:
    result = run("logs 1 --attempts")
    assert result.stdout_bytes == BINARY
    assert result.stderr.startswith("Attempt 1 on lab1 ended badly at ")
    assert result.stderr.endswith(": gone.\nerr")


@pytest.mark.usefixtures("journal")
def test_logs_of_all_that_failed() -> None:
    lines = out("logs --failed").splitlines()
    assert lines[:2] == [
        '==> task 41 on lab1, after 3.2s: exit code 1: samtools: "data/41.bam" is cut short <==',
        'samtools: "data/41.bam" is cut short',
    ]
    assert len([line for line in lines if line.startswith("==> task")]) == 4
    assert "no end of linesamtools" in "".join(lines)
    assert out(f"logs --failed --stdout {NAME}").splitlines()[2] == "no end of line"


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("line", ["logs 500", "logs 211"])
def test_logs_of_a_task_that_has_not_ended(line: str) -> None:
    with pytest.raises(UsageError, match="has not ended") as caught:
        run(line)
    assert "serai explain" in str(caught.value.hint)


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    "line", ["logs", "logs x", "logs 5000", "logs nothing:1", "logs --failed nothing", "status nothing"]
)
def test_wrong_names(line: str) -> None:
    with pytest.raises(SeraiError) as caught:
        run(line)
    assert isinstance(caught.value, UsageError)
    assert caught.value.hint


def test_logs_of_a_long_stream_that_is_gone(journal: Journal) -> None:
    batch = Batch()
    batch.results.append(([result_row(300, State.DONE, Cause.OK, 0, time.time())], "lab1", 0))
    batch.streams.append((300, 0, None, "/nowhere/300.1.out"))
    journal.write(batch)
    assert "an unknown amount (its file is gone) on standard output" in out("explain 300")
    with pytest.raises(SeraiError, match="cannot read what the task printed"):
        run("logs 300")


# ---- runs


def test_runs_and_pruning(journal: Journal, state: Path) -> None:
    old = state / "runs" / "0101-000000-old1"
    old.mkdir()
    ended = Journal(old / "journal.db", fresh=True)
    ended.set_run({"kind": "run", "began": 1.0, ENDED: 11.0, "argv": ["serai", "run", "true"]})
    ended.close()
    (old / "big").write_bytes(b"x" * 10_000_000)
    first, second, third = out("runs").splitlines()
    assert first.split() == ["run", "state", "began", "took", "done", "failed", "other", "command"]
    assert second.startswith(f"{NAME}  running ")
    assert third.split()[:2] == ["0101-000000-old1", "finished"]
    assert "and 1 older: serai runs --last 0 lists all" in out("runs -n 1")
    assert [one["state"] for one in json.loads(out("runs --json"))] == ["running", "finished"]
    journal.set_run({PID: 2**22 + 7, PID_STARTED: 1, "began": 2.0})
    os.utime(journal.path, (2.0, 2.0))
    wal = journal.path.with_name("journal.db-wal")
    os.utime(wal, (2.0, 2.0))
    text = out("runs --prune 30d")
    assert text.startswith("removed 1 run, 10 MB\n")
    assert f"kept, because they were interrupted and can go on: {NAME}" in text
    assert not old.exists()
    assert json.loads(out("runs --prune 30d --json"))["removed"] == []
    with pytest.raises(UsageError, match="is not a duration"):
        run("runs --prune soon")


def test_runs_of_mapreduce_are_pruned_too(state: Path) -> None:
    began = '{"what": "began", "print": "x", "split_bytes": 1, "partitions": 1}\n'
    for name, events, age_s in (
        ("ended", began + '{"what": "ended", "failed": null}\n', 3e6),
        ("interrupted", began, 3e6),
        ("unresumable", '{"what": "began", "print": ""}\n', 3e6),
        ("young", began + '{"what": "ended", "failed": null}\n', 0),
        ("living", began + '{"what": "ended", "failed": null}\n', 3e6),
    ):
        path = state / "mapreduce" / name / "events.jsonl"
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_text(events)
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    with contextlib.closing(Channel(state / "mapreduce" / "living", {"about": lambda _: iter([{"name": "living"}])})):
        said = json.loads(out("runs --prune 30d --json"))
    assert said["removed"] == ["ended", "unresumable"]
    assert said["kept"] == ["interrupted"]
    assert sorted(path.name for path in (state / "mapreduce").iterdir()) == ["interrupted", "living", "young"]


def _mapreduce(state: Path, name: str, *events: dict[str, Any], ended_s: float) -> None:
    path = state / "mapreduce" / name / "events.jsonl"
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    os.utime(path, (ended_s, ended_s))


@pytest.mark.usefixtures("journal")
def test_runs_of_mapreduce_are_listed_with_the_others(state: Path) -> None:
    began = {
        "t": 1.0,
        "what": "began",
        "session": "w",
        "path": "w.toml",
        "print": "x",
        "split_bytes": 1,
        "partitions": 3,
    }
    part = {"t": 5.0, "what": "done", "number": 1, "part": {"path": "p"}}
    _mapreduce(state, "0101-2-failed", began, part, {"t": 8.0, "what": "ended", "failed": "why"}, ended_s=108.0)
    _mapreduce(state, "0101-1-killed", began | {"path": ""}, part, ended_s=55.0)
    _mapreduce(state, "0101-0-broken", {"what": "?"}, ended_s=50.0)
    _titles, newest, failed, killed = out("runs").splitlines()
    assert newest.startswith(f"{NAME}  running ")
    assert failed.split()[:2] + failed.split()[-7:] == [
        "0101-2-failed", "finished", "8s", "1", "2", "0", "serai", "mapreduce", "w..."]  # fmt: skip
    assert killed.split()[:2] + killed.split()[-6:] == [
        "0101-1-killed", "interrupted", "5s", "1", "0", "2", "mapreduce", "w"]  # fmt: skip
    assert "and 2 older" in out("runs -n 1")
    assert [one["kind"] for one in json.loads(out("runs --json"))][1:] == ["mapreduce"] * 2


def test_a_run_of_mapreduce_that_was_taken_up_to_its_end_can_be_pruned(state: Path) -> None:
    facts = {"what": "began", "session": "w", "print": "x", "split_bytes": 1, "partitions": 3, "resumes": None}
    began = facts | {"t": 1.0}
    _mapreduce(state, "first", began, ended_s=1.0)
    _mapreduce(state, "second", began | {"resumes": "first"}, ended_s=2.0)
    assert json.loads(out("runs --prune 30d --json"))["kept"] == ["first", "second"]
    _mapreduce(state, "third", began | {"resumes": "second"}, {"t": 2, "what": "ended", "failed": None}, ended_s=3.0)
    said = json.loads(out("runs --prune 30d --json"))
    assert (said["removed"], said["kept"]) == (["first", "second", "third"], [])


def test_a_run_that_cannot_be_read_is_named(journal: Journal, state: Path) -> None:
    (state / "runs" / "broken").mkdir()
    (state / "runs" / "broken" / "journal.db").write_bytes(b"x" * 5000)
    result = run("runs")
    assert journal.path.parent.name in result.stdout
    assert "broken/journal.db" in result.stderr


# ---- a real run


def test_a_real_pool(state: Path) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("not three")
        os.write(1, b"\xff\n")
        return number

    with serai.Pool("local:?slots=2", options=serai.Options(runs=state / "runs", echo=False)) as pool:
        futures = [pool.submit(work, number) for number in range(1, 6)]
        assert [future.exception(20) is None for future in futures] == [True, True, False, True, True]
        assert "4 done, 1 failed" in out("status").replace(" of 5", "")
        assert run("logs 1").stdout_bytes == b"\xff\n"
    text = out("explain 3")
    assert "It failed on local, lane" in text
    assert "Traceback" in text
    assert "ValueError: not three" in out("logs --failed")


# ---- words


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (None, ""),
        ("a line", "a line"),
        ({"in": ["a", "b"], "line": None}, "a, b"),
        ({"columns": {"x": "1"}, "line": "1"}, "x=1"),
        ({"line": "7"}, "7"),
        (["a", "b"], "a, b"),
        ([1, None], "[1, null]"),
    ],
)
def test_what_is_a_tasks_own(item: object, words: str) -> None:
    assert sentences.item_words(item) == words


@pytest.mark.parametrize(
    ("per_s", "words"),
    [
        (123.4, "123 tasks a second"),
        (1.0, "1 task a second"),
        (0.5, "30 tasks a minute"),
        (0.0001, "0.36 tasks a hour"),
    ],
)
def test_a_pace(per_s: float, words: str) -> None:
    assert tables.pace_words(Pace(per_s, 60)) == words.replace("a hour", "an hour")


@pytest.mark.parametrize(("number", "word"), [(1, "1st"), (2, "2nd"), (11, "11th"), (23, "23rd"), (112, "112th")])
def test_ordinals(number: int, word: str) -> None:
    assert sentences.ordinal(number) == word


def test_many_names() -> None:
    assert sentences.names(["a"]) == "a"
    assert sentences.names(list("abcde")) == "a, b, c, d and e"
    assert sentences.names(list("abcdefg")) == "a, b, c, d and 3 more"


def test_help_is_quick_to_come() -> None:
    code = "import sys, serai.cli.look; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "sqlite3", "serai.dispatch.history", "execnet"} & set(loaded)
