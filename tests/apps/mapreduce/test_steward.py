"""The steward, as a process behind its stream: it keeps what it is told to, and nothing when it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.travel.boot import STEWARD
from serai.travel.frames import pack, unpack
from serai.travel.steward import BEAT, DROP, END, ENDED, FURNISH, ROOM, START, TROUBLE, sweep
from serai.travel.stream import PipeLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOUND = sorted(Path.home().glob(".pyenv/versions/3.[0-9]*/bin/python3"))
OTHERS = [path for path in FOUND if int(path.parts[-3].split(".")[1]) >= 8]


class Behind:
    """A steward and what it says."""

    def __init__(self, python: str) -> None:
        self.said: list[tuple[int, dict[str, Any]]] = []
        self.ended = False

        def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
            command = [python, "-u", "-c", STEWARD.program()]
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
            return self.process

        self.link = PipeLink(start, STEWARD.packed(), self.hear, 30.0)

    def hear(self, frame: bytes | None) -> None:
        if frame is None:
            self.ended = True
        else:
            op, _, _, head, _ = unpack(frame)
            self.said.append((op, head))

    def tell(self, op: int, head: dict[str, Any], body: bytes = b"") -> None:
        self.link.send(pack(op, 0, 0, head, body))

    def heard(self, op: int) -> dict[str, Any] | None:
        return next((head for said, head in self.said if said == op), None)

    def furnish(self, scratch: Path, files: dict[str, bytes]) -> None:
        named = [{"name": name, "mode": 0o600, "size": len(data)} for name, data in files.items()]
        self.tell(FURNISH, {"scratch": str(scratch), "files": named}, b"".join(files.values()))

    def start(self, program: str, env: dict[str, str] | None = None, name: str = "w1") -> None:
        self.tell(START, {"id": name, "argv": ["-c", program], "env": env or {}, "stdin": "parcel"})


@pytest.fixture
def steward() -> Iterator[Behind]:
    behind = Behind(sys.executable)
    yield behind
    behind.link.close(40.0)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_a_worker_gets_its_room_and_its_end_is_told(steward: Behind, tmp_path: Path, until: Callable[..., Any]) -> None:
    steward.furnish(tmp_path, {"parcel": b"hello", "token": b"secret", "bin/0": b"#!/bin/sh\n"})
    facts = until(lambda: steward.heard(ROOM))
    room = Path(facts["room"])
    assert room.parent == tmp_path.resolve()
    assert room.stat().st_mode & 0o777 == 0o700
    assert (room / "token").stat().st_mode & 0o777 == 0o600
    assert facts["python"] == list(sys.version_info[:3])
    steward.start("import os, sys; print(os.getcwd(), sys.stdin.read(), os.environ['X']); sys.exit(7)", {"X": "y"})
    ended = until(lambda: steward.heard(ENDED))
    assert ended["code"] == 7
    assert ended["said"].split() == [str(room / "w1"), "hello", "y"]


def test_at_the_end_nothing_is_left_not_even_of_what_is_stopped(
    steward: Behind, tmp_path: Path, until: Callable[..., Any]
) -> None:
    steward.furnish(tmp_path, {"parcel": b""})
    until(lambda: steward.heard(ROOM))
    note = tmp_path / "pids"
    steward.start(
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(note)!r}, 'w').write('%d %d.' % (os.getpid(), child.pid))\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pause()\n"
    )
    pids = [int(word) for word in until(lambda: note.exists() and note.read_text().endswith(".") and note.read_text())
            .rstrip(".").split()]  # fmt: skip
    os.kill(pids[0], signal.SIGSTOP)
    steward.tell(END, {"grace_s": 0.2})
    until(lambda: steward.ended)
    until(lambda: not any(alive(pid) for pid in pids))
    assert os.listdir(tmp_path) == ["pids"]


def test_while_it_has_workers_it_says_that_it_lives_and_ends_one_that_does_not(
    steward: Behind, tmp_path: Path, until: Callable[..., Any]
) -> None:
    steward.furnish(tmp_path, {"parcel": b""})
    room = until(lambda: steward.heard(ROOM))["room"]
    assert steward.heard(BEAT) is None
    note = tmp_path / "pid"
    steward.start(
        "import signal, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(note)!r}, 'w').write('%d.' % child.pid)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pause()\n"
    )
    until(lambda: len([op for op, _ in steward.said if op == BEAT]) >= 2)
    child = int(until(lambda: note.exists() and note.read_text().endswith(".") and note.read_text()).rstrip("."))
    steward.tell(DROP, {"id": "nobody"})
    steward.tell(DROP, {"id": "w1"})
    assert until(lambda: steward.heard(ENDED)) == {"id": "w1", "code": -signal.SIGKILL, "said": ""}
    until(lambda: not alive(child))
    until(lambda: not os.path.exists(f"{room}/w1"))


@pytest.mark.parametrize("how", ["stream", "signal"])
def test_a_steward_that_is_left_ends_by_itself(tmp_path: Path, until: Callable[..., Any], how: str) -> None:
    steward = Behind(sys.executable)
    steward.furnish(tmp_path, {"parcel": b""})
    until(lambda: steward.heard(ROOM))
    if how == "stream":
        steward.link.close(40.0)
    else:
        steward.process.send_signal(signal.SIGTERM)
    until(lambda: steward.process.poll() is not None)
    steward.link.close(40.0)
    assert os.listdir(tmp_path) == []


def test_files_stay_in_the_room(steward: Behind, tmp_path: Path, until: Callable[..., Any]) -> None:
    steward.furnish(tmp_path, {"../escaped": b"x"})
    assert "would leave the room" in until(lambda: steward.heard(TROUBLE))["what"]
    assert not (tmp_path / "escaped").exists()


def test_where_no_room_can_be_made_that_is_said(steward: Behind, tmp_path: Path, until: Callable[..., Any]) -> None:
    (tmp_path / "file").touch()
    steward.furnish(tmp_path / "file" / "below", {})
    assert "no room for workers" in until(lambda: steward.heard(TROUBLE))["what"]


def test_a_long_path_still_has_a_socket(steward: Behind, tmp_path: Path, until: Callable[..., Any]) -> None:
    steward.furnish(tmp_path / ("long" * 25), {})
    path = until(lambda: steward.heard(ROOM))["socket"]
    assert len(path) < 87
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(path)
    steward.link.close(40.0)
    assert not os.path.exists(os.path.dirname(path))


@pytest.mark.parametrize("python", OTHERS, ids=lambda path: path.parts[-3])
def test_every_python_of_nodes_will_do(python: Path, tmp_path: Path, until: Callable[..., Any]) -> None:
    steward = Behind(str(python))
    steward.furnish(tmp_path, {"parcel": b""})
    until(lambda: steward.heard(ROOM))
    steward.start("print('well')")
    assert until(lambda: steward.heard(ENDED))["said"] == "well\n"
    steward.link.close(40.0)
    assert os.listdir(tmp_path) == []


def test_rooms_that_a_power_cut_left_are_removed_and_no_others(
    steward: Behind, tmp_path: Path, until: Callable[..., Any]
) -> None:
    steward.furnish(tmp_path, {"parcel": b""})
    living = Path(until(lambda: steward.heard(ROOM))["room"])
    dead = Behind(sys.executable)
    dead.furnish(tmp_path, {"parcel": b"much"})
    left = Path(until(lambda: dead.heard(ROOM))["room"])
    dead.process.kill()
    until(lambda: dead.ended)
    dead.link.close(10.0)
    other = tmp_path / "serai-mr-notes"  # of no steward: nothing in it is locked
    other.mkdir()
    link = tmp_path / "serai-mr-link"
    link.symlink_to(other)
    sweep(str(tmp_path))
    assert left.exists()  # it might be one that is just being made
    for room in (living, left, other):
        os.utime(room, (1, 1))
    again = Behind(sys.executable)
    again.furnish(tmp_path, {"parcel": b""})
    new = Path(until(lambda: again.heard(ROOM))["room"])
    assert sorted(tmp_path.iterdir()) == sorted([living, new, other, link])
    again.link.close(40.0)
    assert not new.exists()
