"""`serai release` and `serai cancel` reach into a `serai run` that goes on in another process."""

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

from serai.cli.steering.orders import node_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-m", "serai"]
SOON_S = 40.0
TWO = ("--on", "local://a?slots=1", "--on", "local://b?slots=1")


def until(what: Callable[[], Any], why: str, deadline_s: float = SOON_S) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def serai(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=40, check=False)


def status(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(serai("status", "--json", run).stdout)
    return found


class Going:
    """A `serai run` in the background."""

    def __init__(self, *words: str, room: str = "runs") -> None:
        self._room = Path(os.environ["SERAI_STATE"], room)
        before = self.names()
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        until(lambda: self.names() - before or self.process.poll() is not None, "it is there")
        assert self.process.poll() is None, self.process.communicate()
        (self.name,) = self.names() - before
        self.directory = self._room / self.name

    def names(self) -> set[str]:
        """The runs that can be reached."""
        return {path.parent.name for path in self._room.glob("*/control")}

    def end(self) -> tuple[int, str]:
        """Wait for it; returns its exit code and what it said."""
        _, said = self.process.communicate(timeout=SOON_S)
        return self.process.returncode, said


@pytest.fixture
def going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Going]]:
    monkeypatch.chdir(tmp_path)
    there: list[Going] = []

    def begin(*words: str, **more: str) -> Going:
        there.append(Going(*words, **more))
        return there[-1]

    yield begin
    for one in there:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=SOON_S)


def wait_for(path: str) -> str:
    """A command that ends when a file is there: its name and, after it, what the command is given."""
    return f"sh -c 'while [ ! -e \"{path}$1\" ]; do sleep 0.05; done' sh"


def test_a_node_is_let_go_of_while_the_others_go_on(going: Callable[..., Going]) -> None:
    run = going("run", wait_for("go") + " {line}", "--each", "1..8", *TWO)
    until(lambda: all(node["running"] for node in status(run.name)["nodes"]), "both work")
    runs = {node["name"]: node["running"][0]["task"] for node in status(run.name)["nodes"]}
    wrong = serai("release", "aa")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no node is called aa\n  hint: did you mean a?" in wrong.stderr
    soon = serai("release", "a", "--wait", "1s")
    assert soon.returncode == 1, "what it runs has not ended"
    assert "a: no new tasks; 1 task there ends" in soon.stdout
    assert f"serai status {run.name}" in soon.stderr
    last = serai("release", "b")
    assert last.returncode == 2
    assert "no node would be left but b" in last.stderr
    assert "--last" in last.stderr
    for one in set(range(1, 9)) - {runs["b"]}:
        Path(f"go{one}").touch()
    done = serai("release", "a", "--json", "--run", run.name[:6])
    assert done.returncode == 0, done.stderr
    Path(f"go{runs['b']}").touch()
    assert json.loads(done.stdout.splitlines()[-1])["standing"] == "released"
    code, said = run.end()
    assert code == 0
    assert "8 done" in said
    assert "serai release: a will be let go of" in said
    assert {node["name"]: node["state"] for node in status(run.name)["nodes"]}["a"] == "released"
    assert not (run.directory / "control").exists()
    over = serai("release", "b", "--run", run.name)
    assert over.returncode == 2
    assert f"run {run.name} finished at" in over.stderr


def test_the_last_node_too_where_that_is_wanted(going: Callable[..., Going]) -> None:
    run = going("run", wait_for("go") + " '' {line}", "--each", "1..4", "--on", "local:?slots=1")
    until(lambda: status(run.name)["nodes"][0]["busy"], "it works")
    assert serai("release", "local", "--last", "--wait", "1s").returncode == 1
    Path("go").touch()
    code, said = run.end()
    assert code == 3
    assert f"nothing is lost: serai resume {run.name}" in said
    again = serai("resume", run.name)
    assert again.returncode == 0, again.stderr


def test_tasks_are_cancelled_and_the_others_go_on(going: Callable[..., Going]) -> None:
    run = going("run", wait_for("go") + " {line}", "--each", "1..3", "--on", "local:?slots=1")
    until(lambda: status(run.name)["nodes"][0]["busy"], "it works")
    done = serai("cancel", "1", f"{run.name}:3")
    assert (done.returncode, done.stdout) == (0, f"{run.name}: 2 tasks cancelled\n"), done.stderr
    again = serai("cancel", "3", "--run", run.name)
    assert again.returncode == 2
    assert "nothing is cancelled: task 3 has ended" in again.stderr
    Path("go2").touch()
    code, said = run.end()
    assert code == 1
    assert "1 done, 2 cancelled" in said
    assert "It was cancelled" in serai("explain", f"{run.name}:1").stdout


def test_a_whole_run_is_cancelled_and_can_be_taken_up(going: Callable[..., Going]) -> None:
    run = going("run", wait_for("go") + " '' {line}", "--each", "1..30", "--on", "local:?slots=2")
    other = going("run", wait_for("go"))
    which = serai("cancel", "1")
    assert which.returncode == 2
    assert "2 runs go on: which one?\n  hint: --run NAME: " in which.stderr
    assert run.name in which.stderr
    assert other.name in which.stderr
    done = serai("cancel", run.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cancelled"] == 30
    code, said = run.end()
    assert code == 1
    assert "serai cancel ended everything" in said
    assert "0 done, 30 cancelled" in said
    assert "failed:" not in said
    assert other.process.poll() is None
    Path("go").touch()
    assert other.end()[0] == 0
    again = serai("resume", run.name)
    assert again.returncode == 0, again.stderr
    assert "30 done" in again.stderr


def test_a_run_that_was_killed_is_not_taken_for_one_that_goes_on(going: Callable[..., Going]) -> None:
    run = going("run", wait_for("go"))
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(SOON_S)
    assert (run.directory / "control").exists()
    none = serai("release", "local")
    assert none.returncode == 2
    assert "no run goes on here" in none.stderr
    assert not (run.directory / "control").exists()
    named = serai("cancel", run.name)
    assert f"run {run.name} interrupted" in named.stderr
    Path("go").touch()
    assert serai("resume", run.name).returncode == 0


def test_mistakes(going: Callable[..., Going]) -> None:
    going("run", wait_for("go"))
    for words, said in {
        ("cancel", "a", "b"): "name one run, or tasks",
        ("cancel", "a:1", "b:2"): "these are tasks of 2 runs: a, b",
        ("cancel", "nonesuch"): "no run 'nonesuch' goes on here",
        ("cancel", "x:y"): "is not a task",
        ("release", "local", "--wait", "soon"): "soon",
    }.items():
        done = serai(*words)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_mapreduce_run_is_cancelled(going: Callable[..., Going]) -> None:
    Path("in.txt").write_text("a b\n" * 100, encoding="ascii")
    Path("s.toml").write_text(
        f'[mapreduce]\nmapper = """{wait_for(str(Path("go").resolve()))}; cat"""\nreducer = "sum"\n'
        'inputs = ["in.txt"]\noutput = "counted"\n[[hosts]]\nurl = "local:"\nworkers = 1\n',
        encoding="utf-8",
    )
    run = going("mapreduce", "s.toml", room="mapreduce")
    refused = serai("release", "local")
    assert refused.returncode == 2
    assert "a MapReduce run lets go of no host" in refused.stderr
    done = serai("cancel", run.name)
    assert done.returncode == 0, done.stderr
    code, said = run.end()
    assert code == 1
    assert "it was cancelled from elsewhere: serai cancel" in said
    assert not list(Path("counted").glob("*"))


def test_what_is_said_of_a_node() -> None:
    node = {"node": "a", "standing": "up", "tasks": 2, "files": 1}
    assert node_words(node) == "no new tasks; 2 tasks there end and 1 file that only it has is copied"
    assert node_words(node | {"tasks": 0, "files": 3}) == "no new tasks; 3 files that only it has are copied"
    assert node_words(node | {"tasks": 0, "files": 0}) == "it has nothing left to do"
    assert node_words(node | {"files": None, "standing": "waiting"}) == "it is waiting, and is waited for no longer"
    assert node_words(node | {"standing": "released"}) == "released"
