"""Commands: how they are started, what is kept of them, and that none costs its lane."""

from __future__ import annotations

import os
import string
import sys
import time
from typing import TYPE_CHECKING

import pytest

from serai.travel.executor import wire
from serai.travel.executor.bundle import FLUSH_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.executor.conftest import AgentHarness

EXIT, NO_COMMAND, INPUT, EXECUTOR = 1, 5, 7, 10
KEEP = 4096


@pytest.fixture
def agent(lasting: AgentHarness) -> AgentHarness:
    lasting.seen.clear()
    return lasting


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", -9)])
def test_exit_codes_and_signals(agent: AgentHarness, script: str, code: int) -> None:
    ended = agent.shell(script)
    assert (ended.cause, ended.code) == (EXIT if code else 0, code)


def streamed(agent: AgentHarness, task: int, which: int) -> bytes:
    """Put a stream together from its pieces, which have come before the result."""
    pieces = [one for one in agent.seen if one.op == wire.OUTPUT and one.ident == task and one.head["stream"] == which]
    whole = b""
    for one in pieces:
        assert one.head["at"] == len(whole)
        whole += one.body
    assert not pieces or pieces[0].head["size"] == len(whole)
    return whole


@pytest.mark.parametrize("size", [0, 1, KEEP, KEEP + 1, 3 * wire.CHUNK + 5])
def test_streams_are_kept_whole(agent: AgentHarness, size: int) -> None:
    script = f"import sys; b = bytes(range(256)) * {size // 256 + 1}; w = sys.stdout.buffer, sys.stderr.buffer"
    script += f"; [f.write(b[:{size}]) for f in w]"
    task = agent.number()
    bundle = agent.bundle(agent.work(sys.executable, "-S", "-c", script), [task])
    ended = agent.outcome(bundle).ended[task]
    wanted = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert ended.cause == 0
    if size <= KEEP:
        assert (ended.out, ended.err) == (wanted, wanted)
    else:
        assert (ended.out, ended.err) == (b"", b"")
        assert streamed(agent, task, 0) == streamed(agent, task, 1) == wanted
    assert agent.shell("true").out == b""


def test_the_two_streams_are_kept_apart_and_in_order(agent: AgentHarness) -> None:
    ended = agent.shell("echo 1; echo a >&2; echo 2; echo b >&2")
    assert (ended.out, ended.err) == (b"1\n2\n", b"a\nb\n")


def test_a_task_that_takes_append_away_spoils_nothing_for_the_next(agent: AgentHarness) -> None:
    script = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, 0); os.write(1, b'12345')"
    assert agent.one(sys.executable, "-S", "-c", script).out == b"12345"
    assert agent.shell("echo next").out == b"next\n"


def test_the_environment(agent: AgentHarness) -> None:
    script = "echo $SERAI_NODE $SERAI_RUN $SERAI_LANE $MINE; echo $SERAI_TASK"
    task = agent.number()
    bundle = agent.bundle(agent.work("sh", "-c", script, env={"MINE": "yes é"}), [task], lane=3)
    first, second, _ = agent.outcome(bundle).ended[task].out.decode().split("\n")
    assert first == f"here {agent.run} 3 yes é"
    assert second == str(task)
    assert agent.shell("echo -$MINE-").out == b"--\n"


def test_standard_input_is_empty_and_nothing_else_is_open(agent: AgentHarness) -> None:
    assert agent.shell("cat").out == b""
    for lane in (0, 1):  # the second one was started while the first one had its pipes
        listing = agent.one("ls", "/proc/self/fd", lane=lane).out.split()
        assert listing == [b"0", b"1", b"2", b"3"]  # 3 is what ls reads the directory by


def test_it_has_a_process_group_of_its_own_in_no_terminal(agent: AgentHarness) -> None:
    script = "import os; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getppid())"
    assert agent.one(sys.executable, "-S", "-c", script).out == b"True True\n"


def test_signals_act_as_usual(agent: AgentHarness) -> None:
    assert agent.shell("kill -PIPE $$").code == -13
    assert agent.shell("kill -INT $$").code == -2
    assert agent.one("bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}").out == b"y\n141\n"


def test_the_directory(agent: AgentHarness, tmp_path: Path) -> None:
    assert agent.one("pwd", cwd=str(tmp_path)).out == os.fsencode(tmp_path) + b"\n"
    own = agent.one("pwd").out.strip()
    assert agent.base is not None
    assert own == os.fsencode(agent.base / "task-0")
    ended = agent.one("pwd", cwd=str(tmp_path / "not there"))
    assert ended.cause == NO_COMMAND
    assert ended.detail == f"there is no directory {tmp_path / 'not there'} to run it in"
    assert agent.one("pwd").out.strip() == own


@pytest.mark.parametrize(
    "script",
    ["touch file; mkdir -p a/b; ln -s / link", 'rm -rf "$PWD"', 'mv "$PWD" "$PWD.away"', 'chmod 0 "$PWD"', "chmod 0 ."],
)
def test_nothing_of_a_task_is_there_for_the_next(agent: AgentHarness, script: str) -> None:
    assert agent.shell(script).cause == 0
    ended = agent.shell("ls -A; touch works")
    assert (ended.cause, ended.out) == (0, b"")
    assert agent.wait(wire.BEAT)
    assert not [one for one in agent.seen if one.op == wire.LANE_DIED]


def test_what_cannot_be_started(agent: AgentHarness, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("")
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    long = ["true", "x" * 200_000]
    for argv, words in (
        (["no-such-program"], "there is no program no-such-program"),
        (["/no/such/program"], "there is no program /no/such/program"),
        ([str(data)], f"cannot start {data}: Permission denied"),
        ([str(tmp_path)], f"cannot start {tmp_path}: Permission denied"),
        ([str(script)], f"cannot start {script}: the interpreter that its first line names is not there"),
        (long, "its arguments are too long for this system (200004 bytes)"),
        (["true", "zero\0byte"], "cannot start true: embedded null byte"),
        (["zero\0byte"], "cannot start zero\0byte: embedded null byte"),
        ([""], "there is no program "),
        ([], "cannot start it: the command is empty"),
    ):
        ended = agent.one(*argv)
        assert (ended.cause, ended.code) == (NO_COMMAND, None)
        assert ended.detail == words
    assert agent.one("true", env={"A=B": "c"}).cause == NO_COMMAND
    assert agent.one("true", cwd="zero\0byte").cause == NO_COMMAND
    assert agent.shell("echo fine").out == b"fine\n"


def test_a_script_without_a_first_line_is_run_by_the_shell(agent: AgentHarness, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $# $1\nexit 4\n")
    script.chmod(0o755)
    ended = agent.one(str(script), "a b", "c")
    assert (ended.code, ended.out) == (4, b"2 a b\n")


def test_arguments_arrive_as_they_are(agent: AgentHarness) -> None:
    odd = ["", " ", *string.printable, "é", "\U0001f980", "$HOME", "`id`", "{}", "-n", "\\", os.fsdecode(b"\xff\xfe")]
    script = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    ended = agent.one(sys.executable, "-S", "-c", script, *odd)
    assert ended.out.split(b"\0") == [os.fsencode(word) for word in odd]


def test_each_task_of_a_bundle_has_its_own_arguments(agent: AgentHarness) -> None:
    ids = [agent.number() for _ in range(3)]
    bundle = agent.bundle(agent.work("echo"), ids, argv=[["echo", str(n)] for n in range(3)])
    ended = agent.outcome(bundle).ended
    assert [ended[task].out for task in ids] == [b"0\n", b"1\n", b"2\n"]


def test_programs_are_found_on_the_path_of_their_work(agent: AgentHarness, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "tool"
        program.write_text(f"#!/bin/sh\necho {name}\n")
        program.chmod(0o755)
    for name in ("one", "two", "one"):
        ended = agent.one("tool", env={"PATH": f"{tmp_path / name}:{os.environ['PATH']}"})
        assert ended.out == f"{name}\n".encode()
    (tmp_path / "one" / "tool").rename(tmp_path / "two" / "other")
    both = {"PATH": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}
    assert agent.one("tool", env=both).out == b"two\n"
    (tmp_path / "two" / "tool").unlink()
    assert agent.one("tool", env=both).cause == NO_COMMAND


def test_a_work_that_was_never_sent(agent: AgentHarness) -> None:
    task = agent.number()
    ended = agent.outcome(agent.bundle(999, [task])).ended[task]
    assert (ended.cause, ended.detail) == (EXECUTOR, "the lane does not know its work")
    assert agent.shell("echo fine").out == b"fine\n"


def test_thousands_of_quick_ones(agent: AgentHarness) -> None:
    work = agent.work("/bin/true")
    half = 600
    began = time.monotonic()
    bundles = [(agent.bundle(work, ids, lane), ids) for lane, ids in enumerate((range(1, half), range(half, 2 * half)))]
    for bundle, ids in bundles:
        outcome = agent.outcome(bundle)
        assert list(outcome.ended) == list(ids)
        assert {one.cause for one in outcome.ended.values()} == {0}
        # Results keep each other company for as long as they may, however long each of them takes.
        assert outcome.frames <= (time.monotonic() - began) / FLUSH_S + 3


def test_results_do_not_wait_behind_a_long_task(agent: AgentHarness) -> None:
    ids = [agent.number() for _ in range(3)]
    argv = [["true"], ["true"], ["sleep", "1000"]]
    bundle = agent.bundle(agent.work("true"), ids, argv=argv)
    frame = agent.wait(wire.RESULT)
    assert frame.head["ids"][0] == ids[0]
    if len(frame.head["ids"]) == 1:
        frame = agent.wait(wire.RESULT)
    assert frame.head["ids"][-1] == ids[1]
    assert not frame.head.get("last")
    agent.send(wire.CANCEL, 0, 0, {"ids": ids})
    assert list(agent.outcome(bundle).ended) == [ids[2]]


def test_large_bundles_pass_both_ways(agent: AgentHarness) -> None:
    """More than pipes hold, both ways, in several bundles and lanes at once."""
    ids = range(1, 41)
    big = "x" * 100_000
    bundles = []
    for lane in (0, 1):
        work = agent.work("printf", "%s")
        bundles += [agent.bundle(work, ids, lane, argv=[["printf", "%.3000s", big]] * len(ids)) for _ in range(2)]
    for bundle in bundles:
        ended = agent.outcome(bundle).ended
        assert {one.out for one in ended.values()} == {b"x" * 3000}


def test_an_agent_that_was_started_with_signals_ignored(start: Callable[..., AgentHarness]) -> None:
    """SIGCHLD, ignored by whoever started it, would take all exit codes away."""
    from serai.travel.boot import EXECUTOR  # noqa: PLC0415 - only here

    agent = start(source="import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + EXECUTOR.pipe_source())
    agent.hello()
    assert agent.shell("exit 7").code == 7
