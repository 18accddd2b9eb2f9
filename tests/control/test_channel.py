"""The channel of a run: who gets in, what is told, and what is left when a run is dead."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.dispatch.control.asking import Living, ask, choose, living
from serai.dispatch.control.channel import SOCKET, Channel
from serai.errors import DeadlineExceeded, SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def about(_asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield {"command": "wc"}


def echo(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
    yield {"said": asked["word"]}
    yield None
    yield {"said": "more"}


def wrong(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield {}
    if asked.get("odd"):
        raise RuntimeError("odd")
    raise UsageError("not so", hint="but so")


def endless(_asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
    yield {"begun": True}
    while True:
        yield None


SOMEBODY_ELSE = """
import os, socket, sys
os.fchdir(os.open(sys.argv[1], os.O_DIRECTORY))
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
sock.connect("control")
try:
    sock.sendall(b'{"do": "about"}\\n')
    print(sock.recv(100) or "nothing")
except (BrokenPipeError, ConnectionResetError):
    print("nothing")
"""
ORDERS = {"about": about, "echo": echo, "wrong": wrong, "endless": endless}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "runs" / "0101-r"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    channel = Channel(directory, ORDERS)
    yield directory
    channel.close()
    channel.close()
    assert not list(directory.iterdir())


def test_news_come_in_order_and_mistakes_are_told(run: Path) -> None:
    assert list(ask(run, "echo", {"word": "x" * 100_000})) == [{"said": "x" * 100_000}, {"said": "more"}]
    with pytest.raises(UsageError, match="not so") as caught:
        list(ask(run, "wrong"))
    assert caught.value.hint == "but so"
    with pytest.raises(SeraiError, match="RuntimeError: odd"):
        list(ask(run, "wrong", {"odd": True}))
    with pytest.raises(UsageError, match="does not know how to dance"):
        list(ask(run, "dance"))
    assert list(ask(run, "about")) == [{"command": "wc"}], "and it goes on"


@pytest.mark.parametrize("line", [b"", b"x\n", b"[1]\n", b"\xff\n", b"{}\n", b'{"do": ["about"]}\n'])
def test_what_is_no_request_is_refused_and_harms_nobody(run: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(str(run / SOCKET))
        sock.sendall(line)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as stream:
            assert "refused" in json.loads(stream.readline())
    assert list(ask(run, "about"))


def test_only_its_user_may_enter(run: Path) -> None:
    assert stat.S_IMODE((run / SOCKET).stat().st_mode) == 0o600
    open_to_all = run.parent / "open"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        Channel(open_to_all, ORDERS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_else_is_not_answered_even_where_the_modes_let_them_in(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    directory.mkdir(mode=0o700)
    channel = Channel(directory, ORDERS)
    try:
        directory.chmod(0o777)
        (directory / SOCKET).chmod(0o777)
        words = [sys.executable, "-c", SOMEBODY_ELSE, str(directory)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        assert done.stdout.strip() == "nothing", done
        assert next(ask(directory, "about")) == {"command": "wc"}
    finally:
        channel.close()


def test_a_run_that_ends_meanwhile_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    directory.mkdir(mode=0o700)
    channel = Channel(directory, ORDERS)
    news = ask(directory, "endless")
    assert next(news) == {"begun": True}
    channel.close()
    assert list(news) == [{"over": True}]
    with pytest.raises(FileNotFoundError):
        next(ask(directory, "about"))


def test_a_run_that_says_nothing_is_given_up(run: Path) -> None:
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.05 s"):
        list(ask(run, "endless", silent_s=0.05))
    news = ask(run, "endless", silent_s=10.0)
    assert next(news) == {"begun": True}
    assert next(news) == {}, "a sign of life, before it is given up"


def test_too_many_at_a_time_are_sent_away(run: Path) -> None:
    many = [ask(run, "endless") for _ in range(16)]
    assert [next(news) for news in many] == [{"begun": True}] * 16
    assert list(ask(run, "about")) == [{"over": True}]
    for news in many:
        news.close()
    end = time.monotonic() + 10
    while list(ask(run, "about")) != [{"command": "wc"}]:
        assert time.monotonic() < end, "their places are free again"
        time.sleep(0.05)


def test_the_living_are_found_and_what_the_dead_left_is_removed(run: Path) -> None:
    dead = run.parent / "0101-dead"
    dead.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(dead / SOCKET))
    left.close()
    rooms = [run.parent, run.parent / "nonesuch"]
    assert living(rooms) == [Living("0101-r", run, {"command": "wc"})]
    assert not (dead / SOCKET).exists()
    channel = Channel(dead, ORDERS)  # it was taken up again
    try:
        assert [one.name for one in living(rooms)] == ["0101-dead", "0101-r"]
    finally:
        channel.close()


FORKS = """
import os, sys, time
from pathlib import Path
from serai.dispatch.control.channel import Channel
channel = Channel(Path(sys.argv[1]), {})
if not os.fork():  # and it has let go of what it has no part in
    print(os.getpid(), flush=True)
    os.kill(os.getppid(), 9)
time.sleep(60)
"""


def test_a_child_of_a_dead_run_does_not_keep_it_alive(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "r"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    words = [sys.executable, "-W", "ignore", "-c", FORKS, str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait(20)
        try:
            assert (directory / SOCKET).exists()
            assert living([directory.parent]) == []
            assert not (directory / SOCKET).exists()
        finally:
            os.kill(child, 9)


def test_a_run_that_is_taken_up_while_it_is_held_to_be_dead_keeps_its_channel(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = run.parent / "0101-again"
    again.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(again / SOCKET))
    channels: list[Channel] = []

    def refused(directory: Path, *words: Any, **more: Any) -> Any:
        if directory == again:
            channels.append(Channel(again, ORDERS))  # between the question and what follows from there being no answer
            raise ConnectionRefusedError
        return ask(directory, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr("serai.dispatch.control.asking.ask", refused)
        living([run.parent])
    try:
        assert "0101-again" in {one.name for one in living([run.parent])}
    finally:
        channels[0].close()


def test_where_there_can_be_no_more_threads_who_asks_is_sent_away_and_others_are_answered_later(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, threading.Event()

    def starts(thread: threading.Thread) -> None:
        if thread.name == "control-order" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    assert list(ask(run, "about")) == [{"over": True}]
    assert refused.is_set()
    assert list(ask(run, "about")) == [{"command": "wc"}]


def test_one_that_hangs_is_named_and_not_waited_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = run.parent / "0101-hangs"
    hangs.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(hangs / SOCKET))
        server.listen()
        monkeypatch.setattr("serai.dispatch.control.asking.LOOK_S", 0.2)
        found = {one.name: one for one in living([run.parent])}
        assert found["0101-hangs"].words == "0101-hangs (it does not answer)"
        assert "0101-r" in found


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / "r"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    channel = Channel(directory, ORDERS)
    try:
        assert [one.name for one in living([directory.parent])] == ["r"]
    finally:
        channel.close()


def test_channels_leave_no_threads(tmp_path: Path) -> None:
    def ours() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("control")]

    tmp_path.chmod(0o700)
    Channel(tmp_path, ORDERS).close()
    end = time.monotonic() + 10
    while ours():
        assert time.monotonic() < end, ours()
        time.sleep(0.01)


def test_which_run_is_meant() -> None:
    runs = [Living(name, Path(name), {"command": "wc"}) for name in ("0101-a", "0101-b", "0202-c")]
    assert choose(runs, "0202").name == "0202-c"
    assert choose(runs[:1], None).name == "0101-a"
    for name, said in {None: "3 runs go on: which one", "0101": "2 runs begin with '0101'", "x": "no run 'x'"}.items():
        with pytest.raises(UsageError, match=said) as caught:
            choose(runs, name)
        assert "0101-a (wc)" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no run goes on here"):
        choose([], None)
