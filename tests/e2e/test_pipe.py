"""The stream to an agent, without a network: what a shell may say before it, silence, and letting go."""

from __future__ import annotations

import functools
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from serai.travel.boot import EXECUTOR
from serai.travel.executor import wire
from serai.travel.stream import PipeLink, StartFailed

if TYPE_CHECKING:
    import socket

PARCEL = EXECUTOR.packed()
START_S = 60.0
STARTED: list[subprocess.Popen[bytes]] = []


def shell(script: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
    STARTED.append(
        subprocess.Popen(
            ["/bin/sh", "-c", script], stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
        )
    )
    return STARTED[-1]


def nobody(_frame: bytes | None) -> None:
    """Who does not listen."""


def test_what_a_login_shell_says_is_passed_over() -> None:
    heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    link = PipeLink(
        functools.partial(shell, f"echo welcome; {EXECUTOR.command('python3')}"), PARCEL, heard.put, START_S
    )
    try:
        hello = {"run": "r", "beat": 5.0, "silence": 15.0, "keep": 1000, "node": "n"}
        link.send(wire.pack(wire.HELLO, head=hello))
        frame = heard.get(timeout=START_S)
        assert frame is not None
        assert wire.peek(frame)[0] == wire.AD
    finally:
        link.close()
    assert heard.get(timeout=START_S) is None
    assert STARTED[-1].returncode == 0
    with pytest.raises(OSError, match=r".+"):
        link.send(b"x")
    link.close()


@pytest.mark.parametrize("script", ["exit 3", "head -c 10 > /dev/null; exit 3", "head -c 3000000 /dev/zero; exit 3"])
def test_an_early_end_is_told_with_its_status(script: str) -> None:
    with pytest.raises(StartFailed) as told:
        PipeLink(functools.partial(shell, script), PARCEL, nobody, START_S)
    assert told.value.returncode in {3, None, -13, 141}


def test_silence_has_a_deadline_and_leaves_no_process() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        PipeLink(functools.partial(shell, "exec sleep 100"), PARCEL, nobody, 0.3)
    assert time.monotonic() - began < 30  # who is silent is so for 100 s
    assert STARTED[-1].returncode is not None


def test_a_link_that_is_full_can_be_closed() -> None:
    mark = r"printf '\000serai\000'; exec sleep 100"
    link = PipeLink(functools.partial(shell, mark), PARCEL, nobody, START_S)
    ended = threading.Event()

    def pour() -> None:
        try:
            while True:
                link.send(bytes(1 << 20))
        except OSError:
            ended.set()

    threading.Thread(target=pour, daemon=True).start()
    assert not ended.wait(0.5)
    link.close(0.2)
    assert ended.wait(40)
    assert STARTED[-1].returncode is not None
