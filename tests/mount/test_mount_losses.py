"""A lost server is an error after the deadline, and never a hang; one that comes back is used again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.mount.mounting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.mount.mounting import Room
    from tests.store.conftest import Store

    from serai.testing.lab import Host, Lab

DEADLINE_S = 2.0
SLACK_S = 12.0  # for programs to have their turn on a busy machine; what hangs does so for ever
SIZE = 40_000_000
# Does what it is told by a line, and says how it went and how long it took.
PROGRAM = """
import os, sys, time
for line in sys.stdin:
    began = time.monotonic()
    try:
        do, path, *rest = line.split()
        if do == "read":
            with open(path, "rb", buffering=0) as file:
                said = str(len(os.pread(file.fileno(), int(rest[1]), int(rest[0]))))
        elif do == "all":
            said = str(len(open(path, "rb").read()))
        elif do == "list":
            said = str(len(os.listdir(path)))
        elif do == "write":
            with open(path, "wb") as file: file.write(bytes(int(rest[0])))
            said = "written"
    except OSError as error:
        said = "E%d" % error.errno
    print(said, round(time.monotonic() - began, 2), flush=True)
"""


class Talk:
    """A program under a mount that is told what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, *words: object) -> tuple[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        said, took = self.process.stdout.readline().split()
        return said, float(took)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def talk(room: Room) -> Iterator[Callable[..., Talk]]:
    made: list[Talk] = []

    def begin(**changes: Any) -> Talk:
        made.append(Talk(room.start(sys.executable, "-u", "-c", PROGRAM, deadline_s=DEADLINE_S, **changes)))
        return made[-1]

    yield begin
    for one in made:
        one.end()


def source_of(store: Store) -> dict[str, Any]:
    return {
        "kind": "store",
        "host": "127.0.0.1",
        "port": store.port,
        "token_file": str(store.token_file),
        "fingerprint": store.fingerprint,
        "silent_s": DEADLINE_S,
    }


def test_a_silent_server_is_an_error_in_time(talk: Callable[..., Talk], start_store: Callable[..., Store]) -> None:
    store = start_store("--tls")
    (store.room / "a").write_bytes(bytes(SIZE))
    mount = talk(source=source_of(store))
    until(lambda: mount("read", "mount/a", 0, 1000)[0] == "1000", "it answers: on a busy machine not at once")
    store.process.send_signal(signal.SIGSTOP)
    try:
        for what in (("read", "mount/a", 20_000_000, 1000), ("all", "mount/a"), ("list", "mount"),
                     ("write", "mount/new", 100)):  # fmt: skip
            said, took = mount(*what)
            assert said == "E5", what
            assert took < DEADLINE_S * 2 + SLACK_S, what
    finally:
        store.process.send_signal(signal.SIGCONT)
    until(lambda: mount("read", "mount/a", 20_000_000, 1000)[0] == "1000", "the server is used again")
    until(lambda: mount("write", "mount/new", 100)[0] == "written", "and written to")
    assert os.listdir(store.room).count("new") == 1


def test_a_server_that_is_started_again_is_used_again(
    talk: Callable[..., Talk], start_store: Callable[..., Store]
) -> None:
    store = start_store("--listen", "127.0.0.1:0")
    (store.room / "a").write_bytes(bytes(SIZE))
    mount = talk(source=source_of(store))
    until(lambda: mount("read", "mount/a", 0, 1000)[0] == "1000", "it answers: on a busy machine not at once")
    store.stop(signal.SIGKILL)
    said, took = mount("read", "mount/a", 30_000_000, 1000)
    assert said == "E5"
    assert took < DEADLINE_S + SLACK_S
    store._words = ("--listen", f"127.0.0.1:{store.port}")
    store.start()
    until(lambda: mount("read", "mount/a", 30_000_000, 1000)[0] == "1000", "it is used again")


def test_a_program_that_is_killed_while_it_waits_ends_at_once(room: Room, start_store: Callable[..., Store]) -> None:
    store = start_store()
    (store.room / "a").write_bytes(bytes(SIZE))
    words = "cat mount/a >/dev/null & echo $!; wait $!; echo ended $?"
    store_source = source_of(store) | {"silent_s": 60.0}
    process = room.start("sh", "-c", f"ls mount; read go; {words}", source=store_source, deadline_s=60.0)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    store.process.send_signal(signal.SIGSTOP)
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        until(lambda: state(pid) in {"S", "D"} and program_of(pid) == "cat", "it waits for the mount")
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert process.stdout.readline() == "ended 137\n"
        assert time.monotonic() - began < 20  # of the 60 s that it would wait
    finally:
        store.process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def test_a_signal_that_is_handled_interrupts_no_reading(room: Room, start_store: Callable[..., Store]) -> None:
    """Reading a file is not interrupted on a local disk, and few programs expect it."""
    store = start_store()
    (store.room / "a").write_bytes(b"x" * SIZE)
    code = """
import ctypes, os, signal, sys
count = []
signal.signal(signal.SIGALRM, lambda *_: count.append(1))
fd = os.open("mount/a", os.O_RDONLY)
print("open", flush=True)
sys.stdin.readline()
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
buffer = ctypes.create_string_buffer(1000)
libc = ctypes.CDLL(None, use_errno=True)
libc.pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
print("begun", flush=True)
print(libc.pread(fd, buffer, 1000, 30_000_000), ctypes.get_errno(), buffer.raw == b"x" * 1000, flush=True)
"""
    process = room.start(sys.executable, "-u", "-c", code, source=source_of(store) | {"silent_s": 20.0})
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        store.process.send_signal(signal.SIGSTOP)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "begun\n"
        for _ in range(10):  # signals come meanwhile
            time.sleep(0.05)
        store.process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "1000 0 True\n"
    finally:
        store.process.send_signal(signal.SIGCONT)
        process.communicate()


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


def program_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        return file.read().strip()


@pytest.mark.lab
def test_a_host_that_is_cut_off_ends_no_program_in_a_hang(lab: Lab, tmp_path: Path) -> None:
    host: Host = lab.hosts[0]
    host.run(["sh", "-c", "mkdir -pm 777 /tmp/data && head -c 40000000 /dev/zero > /tmp/data/a"], check=True)
    words = [sys.executable, "-m", "serai", "mount", "-F", str(lab.ssh_config), f"ssh://{host.name}/tmp/data",
             str(tmp_path), "--deadline", "3s", "--", sys.executable, "-u", "-c", PROGRAM]  # fmt: skip
    environment = os.environ | {"SERAI_CACHE": str(tmp_path.parent / "cache")}
    pipe = subprocess.PIPE
    mount = Talk(subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
    try:
        file = tmp_path / "a"
        until(lambda: mount("read", file, 0, 1000)[0] == "1000", "it answers: on a busy machine not at once")
        host.cut()
        for what in (
            ("read", file, 20_000_000, 1000),
            ("all", file),
            ("write", tmp_path / "b", 10),
            ("list", tmp_path),
        ):
            said, took = mount(*what)
            assert said == "E5", what
            assert took < 3 * 2 + SLACK_S, what
        host.mend()
        until(lambda: mount("read", file, 20_000_000, 1000)[0] == "1000", "the host is used again", 60)
        until(lambda: mount("write", tmp_path / "b", 10)[0] == "written", "and written to", 60)
        assert host.run(["sh", "-c", "wc -c < /tmp/data/b; ls -A /tmp/data"]).stdout.split() == ["10", "a", "b"]
    finally:
        host.mend()
        mount.end()
