"""`serai job`, as the shell sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from serai.cli.main import serai as group
from serai.errors import UsageError

SERAI = [sys.executable, "-m", "serai", "job"]
END_S = 60.0


def job(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*SERAI, *words], input=stdin, capture_output=True, timeout=END_S, check=False)


def test_it_runs_with_its_streams_and_exit_code() -> None:
    words = ["sh", "-c", "cat; pwd; echo $WORD >&2; exit 7"]
    done = job("run", "-e", "WORD=a b", "-C", "/", "local:", "--", *words, stdin=b"read\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"read\n/\n", b"a b\n")
    assert job("list", "local:").stdout == b""


def test_a_command_that_is_not_there_is_named() -> None:
    done = job("run", "-n", "local:", "no-such-program")
    assert done.returncode == 1
    assert done.stderr == b"serai: local: there is no program no-such-program\n  command: no-such-program\n"
    assert b"identifier is empty" in job("wait", "").stderr


def test_detached_it_is_taken_up_again() -> None:
    script = "echo out; echo err >&2; exec sleep 1000"
    first = job("run", "--detach", "local:", "--", "sh", "-c", script).stdout.decode().strip()
    last = first.rpartition("[")[2].rstrip("]")
    assert first.startswith("[local:]-[")
    assert b"RUNNING" in job("list", "local:").stdout
    assert job("suspend", first).returncode == 0
    assert b"SUSPENDED" in job("state", "local:", last).stdout
    assert job("resume", first).returncode == 0
    assert job("wait", "--timeout", "0.1", first).returncode == 3
    assert job("cancel", first).returncode == 0
    assert job("wait", first).returncode == 128 + signal.SIGTERM
    out, err = job("logs", first), job("logs", "--stderr", "--follow", first)
    assert (out.stdout, out.stderr, out.returncode) == (b"out\n", b"", 0)
    assert (err.stdout, err.stderr, err.returncode) == (b"err\n", b"", 0)
    assert job("remove", first).returncode == 0
    assert job("state", first).returncode == 2


def test_ctrl_c_is_passed_on_and_a_second_one_cancels() -> None:
    words = ["sh", "-c", "trap 'echo once' INT; echo ready; while :; do sleep 0.05; done"]
    with subprocess.Popen(
        [*SERAI, "run", "-n", "local:", "--", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"once\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 128 + signal.SIGTERM


def test_it_ends_with_whoever_reads_its_output() -> None:
    words = [*SERAI, "run", "-n", "local:", "--", "yes"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(END_S) == 1
    assert job("list", "local:").stdout == b""


@pytest.mark.parametrize(
    "words",
    [
        ["state", "nowhere"],
        ["state", "local:"],
        ["run", "-e", "X", "local:", "true"],
        ["run", "local:", "-n", "true"],
        ["run", "local:", "echo $HOME"],
    ],
)
def test_what_cannot_be_understood_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        group.main(["job", *words], standalone_mode=False)


def test_the_help_is_quick() -> None:
    began = time.monotonic()
    assert b"logs" in job("--help").stdout
    assert time.monotonic() - began < 30  # it opens nothing that could be waited for
