"""`serai run` and `serai resume` as a user meets them: real processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = [sys.executable, "-m", "serai"]
SOON_S = 40.0


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def serai(*words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *words], capture_output=True, timeout=120, check=False, **more)


def until(what: Callable[[], Any], deadline_s: float = SOON_S) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def landing() -> list[str]:
    return [str(path) for path in Path().rglob(".serai-*")]


def run_name() -> str:
    (run,) = (Path(os.environ["SERAI_STATE"]) / "runs").iterdir()
    return run.name


def gone(pid: str) -> bool:
    return not Path("/proc", pid.strip() or "none").exists()


def test_files_with_nasty_names_and_outputs() -> None:
    names = ["a b", "-n", "$(touch evil)", "x;y", "q'\"", "ü"]
    Path("in").mkdir()
    for name in names:
        Path("in", name).write_text(name, encoding="utf-8")
    Path("o").mkdir()
    Path("o", "x;y").write_text("old", encoding="ascii")
    done = serai("run", "cp {in} {out}", *(f"in/{name}" for name in names), "--out", "o")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text(encoding="utf-8") for path in Path("o").iterdir()} == {n: n for n in names}
    assert not Path("evil").exists()


def test_failures_are_told_and_counted() -> None:
    done = serai("run", "sh -c 'echo why >&2; exit $1' sh {line}", "--each", "0..2")
    assert done.returncode == 1
    assert b"exit code 2" in done.stderr
    assert b"1 done, 2 failed" in done.stderr
    done = serai("run", "cat {in}", "nonesuch")
    assert done.returncode == 1
    assert b"nonesuch" in done.stderr


def test_an_output_is_replaced_only_when_whole() -> None:
    for name in "ab":
        Path(name).write_text(name, encoding="ascii")
        Path(f"{name}.x").write_text("old", encoding="ascii")
    done = serai("run", 'sh -c \'echo half > "$2"; test "$1" = a\' sh {in} {out:.x}', "a", "b")
    assert done.returncode == 1
    assert (Path("a.x").read_text(encoding="ascii"), Path("b.x").read_text(encoding="ascii")) == ("half\n", "old")
    assert landing() == []


def test_missing_outputs_and_two_tasks_with_one() -> None:
    done = serai("run", "true {out}", "--each", "1..1", "--out", "o")
    assert done.returncode == 1
    assert b"did not write its output" in done.stderr
    for name in ("p", "q"):
        Path(name).mkdir()
        Path(name, "same").write_text(name, encoding="ascii")
    done = serai("run", "cp {in} {out}", "p/same", "q/same", "--out", "o")
    assert done.returncode == 1
    assert b"already that of task 1" in done.stderr
    assert b"--keep-dirs" in done.stderr
    assert Path("o/same").read_text(encoding="ascii") == "p"


def test_streams_come_through_whole() -> None:
    data = os.urandom(10_000_000)
    Path("big").write_bytes(data)
    assert serai("run", "cat {in}", "big").stdout == data
    done = serai("run", "sh -c 'printf \"\\377\\0x\"; printf err >&2'", "--show", "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff\0x", b"err")


def test_json_is_json_on_every_line() -> None:
    done = serai("run", "sh -c 'echo \"$1\"; exit $1' sh {line}", "--each", "0..1", "--json")
    assert done.returncode == 1
    *tasks, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["state"], one["exit_code"], one["stdout"]) for one in sorted(tasks, key=str)] == [
        ("0", "done", 0, "0\n"),
        ("1", "failed", 1, "1\n"),
    ]
    assert (summary["event"], summary["done"], summary["failed"], summary["total"]) == ("summary", 1, 1, 2)


def test_sources() -> None:
    Path("t.csv").write_text('name,n\n"a, b",1\nc,2\n', encoding="ascii")
    Path("l.txt").write_text("one\ntwo\n", encoding="ascii")
    assert sorted(serai("run", "echo {name}={n}", "--each", "t.csv").stdout.splitlines()) == [b"a, b=1", b"c=2"]
    assert sorted(serai("run", "echo {line}", "--each", "l.txt").stdout.splitlines()) == [b"one", b"two"]
    assert sorted(serai("run", "echo {line}", "--each", "-", input=b"x y\n\xff\n").stdout.splitlines()) == [
        b"x y",
        b"\xff",
    ]
    assert serai("run", "echo {in}", "a", "b", "c", "--group", "2", "--show", "none").returncode == 1


def test_environment_and_directory() -> None:
    Path("d").mkdir()
    done = serai("run", "sh -c 'echo $A; pwd'", "--env", "A=1 2", "--workdir", str(Path("d").resolve()))
    assert done.stdout.decode() == f"1 2\n{Path('d').resolve()}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["echo {in}"],
        ["echo", "file"],
        ["echo {line}", "--each", "nonesuch.txt"],
        ["echo", "--on", "nonesuch:"],
        ["echo", "--time-limit", "soon"],
        ["echo", "--memory", "much"],
        ["echo", "--env", "NO_SUCH_VARIABLE_HERE"],
        ["echo", "--send", "nonesuch"],
        ["cp {in} {out}", "/etc/passwd"],
        ["cp x {out}", "--each", "1..2"],
        ["wc", "-w", "/etc/passwd"],
        ["wc {in}", "no-such-*.txt"],
        ["echo", "--memory", "4"],
        ["./nonesuch {line}", "--each", "1..2"],
        ["cat {in} {line}", "pyproject.toml"],
        ["echo 'a"],
        ["echo", "--nonesuch"],
    ],
)
def test_mistakes_exit_with_2_and_start_nothing(words: list[str]) -> None:
    done = serai("run", *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr
    assert b"Traceback" not in done.stderr
    assert not list(Path(os.environ["SERAI_STATE"]).glob("runs/*"))


def test_a_store_that_nobody_knows_is_warned_of() -> None:
    Path("lab.toml").write_text(
        '[[store]]\nname = "nestore.bologna"\n[[site]]\nurl = "local:"\nnearest_storage = "nestore.bolonga"\n',
        encoding="ascii",
    )
    done = serai("run", "sleep 1", "--on", "lab.toml")
    assert done.returncode == 0, done.stderr
    warned = b"tells of the store nestore.bolonga, to which local refers; did you mean nestore.bologna?"
    assert done.stderr.count(warned) == 1, done.stderr
    assert b"nestore.bolonga" in serai("status").stdout
    assert warned in serai("nodes", "--on", "lab.toml").stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["wc", "-w", "x"], b"serai run 'wc -w {in}' FILES"),
        (["cp {in} {out}", "/etc/passwd"], b"--out DIR"),
        (["cp {in} {out}", "/etc/passwd", "--out", "ssh://lab1/o"], b"serai cp -r results ssh://lab1/o"),
        (["echo {line}", "--each", "5"], b"did you mean 1..5?"),
        (["echo {line}", "--each", "3-5"], b"did you mean 3..5?"),
        (["echo", "--memory", "4"], b"--memory 4GB"),
        (["echo", "--on", "lab1,lab2"], b"did you mean --on ssh://lab1 --on ssh://lab2?"),
        (["echo", "--shw", "json"], b"--show"),
    ],
)
def test_what_was_meant_is_said(words: list[str], hint: bytes) -> None:
    done = serai("run", *words)
    assert done.returncode == 2
    assert hint in done.stderr


def test_outputs_go_to_a_directory_of_this_machine_by_its_url_too() -> None:
    assert serai("run", "cp {in} {out}", "/etc/passwd", "--out", "local:o").returncode == 0
    assert sorted(os.listdir()) == ["o"]


def test_a_pattern_that_the_shell_was_kept_from_is_a_pattern_all_the_same() -> None:
    for name in ("b1", "b2", "[x]"):
        Path(name).write_text(name, encoding="ascii")
    done = serai("run", "cat {in}", "b*", "[x]")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in (b"b1", b"b2", b"[x]"))


def test_what_was_tried_is_told_once_for_each_node() -> None:
    done = serai("run", "true", "--on", "ssh://no-such-host.invalid")
    assert done.returncode == 3, done.stderr
    assert b"tried: no-such-host.invalid: the name" in done.stderr
    assert done.stderr.count(b"nothing is lost: serai resume") == 1
    assert done.stderr.count(b"tried:") == 1, done.stderr


def test_limits_needs_retries_and_fail_fast() -> None:
    done = serai("run", "sleep 60", "--time-limit", "300ms")
    assert (done.returncode, b"limit" in done.stderr) == (1, True)
    done = serai("run", "true", "--software", "nonesuch")
    assert (done.returncode, b"local: it needs nonesuch" in done.stderr) == (1, True)
    done = serai("run", "sh -c 'echo x >> tries; test $(wc -l < tries) = 2'", "--retries", "1")
    assert (done.returncode, Path("tries").read_text(encoding="ascii")) == (0, "x\nx\n")
    began = time.monotonic()
    done = serai("run", "sh -c 'test $1 != 1 && sleep 60' sh {line}", "--each", "1..9", "--fail-fast")
    assert (done.returncode, time.monotonic() - began < 45) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_nothing_runs_and_it_can_be_taken_up(number: int) -> None:
    command = "sh -c 'test -e go || { echo $$ > pid.$1; exec sleep 60; }; echo $1 >> ran' sh {line}"
    with subprocess.Popen([*COMMAND, "run", command, "--each", "1..4"], stderr=subprocess.PIPE) as process:
        until(lambda: len(list(Path().glob("pid.*"))) >= 1)
        process.send_signal(number)
        _, said = process.communicate(timeout=90)
    assert process.returncode == 130
    assert b"serai resume" in said
    assert all(gone(path.read_text(encoding="ascii")) for path in Path().glob("pid.*"))
    Path("go").touch()
    done = serai("resume")
    assert done.returncode == 0, done.stderr
    assert sorted(Path("ran").read_text(encoding="ascii").split()) == ["1", "2", "3", "4"]


def test_killed_it_leaves_nothing_and_is_taken_up_where_it_was() -> None:
    for n in range(12):
        Path(f"i{n:02}").touch()
    command = "sh -c 'echo $1 >> ran; echo half > \"$2\"; case $1 in i0[0-5]);; *) test -e go || { echo $$ > pid.$1; exec sleep 60; };; esac' sh {in} {out}"  # noqa: E501
    names = [f"i{n:02}" for n in range(12)]
    with subprocess.Popen([*COMMAND, "run", command, *names, "--out", "o"], stderr=subprocess.DEVNULL) as process:
        until(lambda: len(list(Path().glob("pid.*"))) >= 1 and len(list(Path("o").glob("i*"))) == 6)
        busy = serai("resume")
        process.kill()
    assert (busy.returncode, b"another process" in busy.stderr) == (3, True)
    until(lambda: all(gone(path.read_text(encoding="ascii")) for path in Path().glob("pid.*")))
    assert sorted(path.name for path in Path("o").glob("i*")) == names[:6]
    Path("go").touch()
    done = serai("resume", run_name())
    assert done.returncode == 0, done.stderr
    ran = Path("ran").read_text(encoding="ascii").split()
    assert [ran.count(name) for name in names[:6]] == [1] * 6
    assert sorted(set(ran)) == names
    assert sorted(path.name for path in Path("o").iterdir()) == names
    again = serai("resume")
    assert (again.returncode, b"12 done" in again.stderr) == (0, True)
    assert Path("ran").read_text(encoding="ascii").split() == ran


def test_failures_of_before_count_when_taken_up_and_run_again_when_asked() -> None:
    command = "sh -c 'test -e go || test $1 = 1' sh {line}"
    assert serai("run", command, "--each", "1..3").returncode == 1
    again = serai("resume")
    assert (again.returncode, b"1 done, 2 failed" in again.stderr) == (1, True)
    Path("go").touch()
    assert serai("resume", "--failed").returncode == 0


@pytest.mark.parametrize("command", ["'seq 1 100000'", "'echo {line}' --each 1..3000"])
def test_a_reader_that_goes_away(command: str) -> None:
    text = f"{sys.executable} -m serai run {command} | head -1"
    done = subprocess.run(["bash", "-c", text], capture_output=True, timeout=120, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_closed_streams_and_a_source_that_says_nothing() -> None:
    text = f"{sys.executable} -m serai run 'echo x' <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", text], timeout=120, check=False).returncode == 0
    command = [*COMMAND, "run", "touch {line}", "--each", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"made\n")
        process.stdin.flush()
        until(Path("made").exists)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(60) == 130
        assert time.monotonic() - began < 40
        assert process.stderr is not None
        assert b"Fatal" not in process.stderr.read()


def test_the_live_view_shows_everything_and_ends_with_the_summary() -> None:
    text = f"{sys.executable} -m serai run 'sh -c \"seq 1 30000; echo last\"'"
    done = subprocess.run(["script", "-qec", text, "/dev/null"], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0
    assert b"29999" in done.stdout
    assert b"last" in done.stdout
    assert b"1 done" in done.stdout.splitlines()[-1]
    text += " > file"
    subprocess.run(["script", "-qec", text, "/dev/null"], capture_output=True, timeout=120, check=True)
    assert Path("file").read_text(encoding="ascii").splitlines() == [*map(str, range(1, 30001)), "last"]
