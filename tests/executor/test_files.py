"""Inputs as they come and are laid down, outputs as they go."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.travel.executor import stage, store, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.executor.conftest import AgentHarness, Ended

OK, MISSING_OUTPUT, INPUT, OUTPUT = 0, 6, 7, 8


@pytest.fixture
def agent(lasting: AgentHarness) -> AgentHarness:
    lasting.seen.clear()
    return lasting


def put(agent: AgentHarness, data: bytes, lane: int = 0, **head: Any) -> int:
    """Send an input in pieces, as a front end does, and return its key."""
    key = agent.number()
    put_piece(agent, key, data, lane, **head)
    return key


def put_piece(agent: AgentHarness, key: int, data: bytes, lane: int = 0, **head: Any) -> None:
    whole = {"size": len(data), "mode": 0o644, **head}
    for at in range(0, max(1, len(data)), wire.CHUNK):
        agent.send(wire.FILE, lane, key, {**whole, "at": at}, data[at : at + wire.CHUNK])


def names(place: Path) -> list[str]:
    return [one.name for one in place.iterdir()]


def output(agent: AgentHarness, index: int = 0) -> dict[str, tuple[int, bytes] | None]:
    """Put an output together from its pieces: {path below it: (mode, bytes), or None for a directory}."""
    found: dict[str, tuple[int, bytes] | None] = {}
    for one in [one for one in agent.seen if one.op == wire.OUTPUT and one.head.get("output") == index]:
        agent.seen.remove(one)
        name = one.head.get("under", "")
        if one.head.get("directory"):
            found[name] = None
        else:
            before = (found.get(name) or (0, b""))[1]
            assert one.head["at"] == len(before)
            found[name] = one.head["mode"], before + one.body
    return found


# ---- inputs


def test_own_inputs_are_moved_and_shared_ones_linked(agent: AgentHarness) -> None:
    big = os.urandom(2 * wire.CHUNK + 17)
    own, empty, shared = put(agent, big), put(agent, b""), put(agent, b"shared", wire.EVERY_LANE)
    assert agent.base is not None
    pairs = [(own, "deep/er/own"), (empty, "empty")]
    links = [[shared, "shared"], [shared, "d/again"], [shared, "shared"]]
    script = "cksum < deep/er/own; wc -c < empty; cat shared d/again; stat -c %h shared; test -L shared || echo file"
    ended = agent.shell(script, shared=links, inputs=pairs)
    wanted = subprocess.run(["cksum"], input=big, capture_output=True, check=True).stdout
    assert (ended.cause, ended.out) == (OK, wanted + b"0\nsharedshared3\nfile\n")
    assert agent.shell("cat shared", lane=1, shared=links).out == b"shared"  # still there for others
    ended = agent.shell("true", inputs=pairs)  # moved: they were one task's own
    assert (ended.cause, ended.detail) == (INPUT, "cannot lay down the input deep/er/own: No such file or directory")


def test_modes_travel(agent: AgentHarness) -> None:
    key = put(agent, b"#!/bin/sh\necho ran\n", mode=0o755)
    assert agent.shell("./tool", inputs=[(key, "tool")]).out == b"ran\n"
    key = put(agent, b"data", mode=0o400)
    assert agent.shell("stat -c %a data", inputs=[(key, "data")]).out == b"600\n"


def test_directories(agent: AgentHarness) -> None:
    key = agent.number()
    for under in (".", "sub", "sub/empty"):
        agent.send(wire.FILE, 0, key, {"under": under, "directory": 1})
    put_piece(agent, key, b"1", under="a")
    put_piece(agent, key, b"2", under="sub/b")
    ended = agent.shell("cd data && find . | sort && cat a sub/b", inputs=[(key, "data")])
    assert ended.out == b".\n./a\n./sub\n./sub/b\n./sub/empty\n12"


def test_inputs_that_are_dropped_are_gone(agent: AgentHarness) -> None:
    assert agent.base is not None
    keys = [put(agent, b"1"), agent.number()]
    put_piece(agent, keys[1], b"2", under="deep/file")
    assert agent.shell("true").cause == OK
    places = [agent.base / "in" / str(key) for key in keys]
    assert all(place.exists() for place in places)
    agent.send(wire.DROP, 0, 0, {"keys": [*keys, 999_999]})
    agent.until(lambda: not any(place.exists() for place in places), "they are gone")


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out", ".", "", "a/.."])
def test_no_input_leaves_the_directory(agent: AgentHarness, path: str) -> None:
    key = put(agent, b"x")
    pairs = [(key, path)]
    for ended in (
        agent.shell("true", inputs=pairs),
        agent.shell("true", shared=pairs),
        agent.shell("true", outputs=[path]),
    ):
        assert (ended.cause, ended.detail) == (INPUT, f"{path} would leave the task's directory")


def test_no_piece_leaves_its_input(agent: AgentHarness) -> None:
    key = agent.number()
    put_piece(agent, key, b"x", under="../../escaped")
    ended = agent.shell("true", inputs=[(key, "x")])
    assert ended.cause == INPUT
    assert ended.detail == "the input x did not arrive whole: ../../escaped would leave its directory on here"


def test_an_input_is_used_where_it_lies(agent: AgentHarness, tmp_path: Path) -> None:
    there = tmp_path / "it ü\n"
    there.write_bytes(b"there")
    ended = agent.shell("cat d/here; test -L d/here && readlink d/here", inputs=[(str(there), "d/here")])
    assert ended.out == b"there" + str(there).encode() + b"\n"
    assert there.read_bytes() == b"there"  # only the link is gone


def test_an_input_that_cannot_be_used_where_it_lies_sends_its_task_back(agent: AgentHarness, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good").write_bytes(b"good")
    places = [str(tmp_path / name) for name in ("none", "good", "", "pipe")] + ["relative"]
    tasks = [agent.number() for _ in places]
    own = put(agent, b"own")
    inputs: list[list[Any]] = [[[place, "it"]] for place in places]
    inputs[0].insert(0, [own, "own"])
    outcome = agent.outcome(agent.bundle(agent.work("cat", "it"), tasks, 0, b"", **{"in": inputs}))
    assert sorted(outcome.returned) == sorted(set(tasks) - {tasks[1]})
    assert outcome.ended[tasks[1]].out == b"good"
    told = [agent.wait(wire.NOT_HERE).head for _ in range(4)]
    assert [one["path"] for one in told] == [places[0], *places[2:]]
    assert [one["why"] for one in told] == [
        "No such file or directory",
        "it is not a file",
        "it is not a file",
        "its path is not absolute",
    ]
    assert agent.shell("ls").out == b""  # nothing stays


def test_no_input_lies_in_a_shared_one(agent: AgentHarness) -> None:
    directory, other = agent.number(), put(agent, b"x")
    put_piece(agent, directory, b"1", under="file")
    ended = agent.shell("true", shared=[[directory, "data"]], inputs=[(other, "data/sub/more")])
    assert (ended.cause, ended.detail) == (INPUT, "the input data/sub/more would lie inside of another input")
    assert agent.shell("ls data", shared=[[directory, "data"]]).out == b"file\n"


@pytest.mark.parametrize("kinds", ["own own", "shared own", "shared shared"])
def test_two_inputs_of_one_name_are_refused(agent: AgentHarness, kinds: str) -> None:
    pairs = [(put(agent, b"1"), "name"), (put(agent, b"2"), "name")]
    count = kinds.split().count("shared")
    ended = agent.shell("true", shared=pairs[:count], inputs=pairs[count:])
    assert (ended.cause, ended.detail) == (INPUT, "two inputs are both called name")


def test_an_input_with_a_zero_byte_in_its_name(agent: AgentHarness) -> None:
    key = put(agent, b"1")
    assert agent.shell("true", inputs=[(key, "a\0b")]).cause == INPUT
    key = agent.number()
    put_piece(agent, key, b"1", under="a\0b")
    assert agent.shell("true", inputs=[(key, "name")]).detail == (
        "the input name did not arrive whole: embedded null byte on here"
    )


def test_the_front_end_says_that_an_input_is_bad(start: Callable[..., AgentHarness]) -> None:
    agent = start()
    agent.hello()
    own, shared = put(agent, b"1"), put(agent, b"2")
    agent.send(wire.FILE, 0, own, {"bad": "it shrank"})
    agent.send(wire.FILE, wire.EVERY_LANE, shared, {"bad": "it grew"})
    for lane in (0, 1):  # one that was there and one that is started later
        ended = agent.shell("true", lane=lane, shared=[[shared, "s"]])
        assert (ended.cause, ended.detail) == (INPUT, "the input s did not arrive whole: it grew on here")
        ended = agent.shell("true", lane=lane, inputs=[(own, "o")])
        assert (ended.cause, ended.detail) == (INPUT, "the input o did not arrive whole: it shrank on here")
    assert agent.shell("echo fine").out == b"fine\n"


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "serai-test", str(scratch)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs privilege")
    yield scratch
    subprocess.run(["umount", "-l", str(scratch)], check=True)


def lay_too_much(agent: AgentHarness, words: str) -> None:
    key = put(agent, bytes(3 << 20))
    ended = agent.shell("true", inputs=[(key, "big")])
    assert (ended.cause, ended.detail) == (INPUT, f"the input big did not arrive whole: {words} on here")
    assert agent.base is not None
    assert not names(agent.base / "in")  # what had come of it does not keep the disk full
    assert agent.shell("cat small", inputs=[(put(agent, b"fine"), "small")]).out == b"fine"


def test_a_full_disk(small_disk: Path, start: Callable[..., AgentHarness]) -> None:
    assert small_disk.exists()
    agent = start()
    agent.hello()
    lay_too_much(agent, "No space left on device")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no prlimit here")
def test_a_file_that_is_too_large_for_the_system(start: Callable[..., AgentHarness]) -> None:
    agent = start()
    agent.hello()
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    lay_too_much(agent, "File too large")


# ---- outputs


def test_outputs_travel(agent: AgentHarness) -> None:
    big = b"0123456789abcdef" * (wire.CHUNK // 8 + 3)
    script = f"yes 0123456789abcdef | tr -d '\\n' | head -c {len(big)} > out/big; : > empty; chmod 755 empty; "
    script += "mkdir -p tree/sub/none; echo a > tree/a; echo b > tree/sub/b; mkdir nothing"
    ended = agent.shell(script, outputs=["out/big", "empty", "tree", "nothing"])
    assert (ended.cause, ended.files) == (OK, [len(big), 0, -1, -1])
    assert {one.lane for one in agent.seen if one.op == wire.OUTPUT} == {0}
    assert output(agent, 0) == {"": (0o644, big)}
    assert output(agent, 1) == {"": (0o755, b"")}
    assert output(agent, 2) == {
        ".": None,
        "a": (0o644, b"a\n"),
        "sub": None,
        "sub/b": (0o644, b"b\n"),
        "sub/none": None,
    }
    assert output(agent, 3) == {".": None}


def test_outputs_say_their_lane(agent: AgentHarness) -> None:
    assert agent.shell("echo > x", lane=7, outputs=["x"]).cause == OK
    assert [one.lane for one in agent.seen if one.op == wire.OUTPUT] == [7]


def test_an_output_that_is_missing(agent: AgentHarness) -> None:
    ended = agent.shell("echo > a", outputs=["a", "b"])
    assert (ended.cause, ended.code) == (MISSING_OUTPUT, 0)
    assert ended.detail == "it ended well but did not write its output b"
    assert agent.shell("exit 2", outputs=["a"]).cause == 1


def refused(agent: AgentHarness, script: str) -> Ended:
    ended = agent.shell(script, outputs=["x"])
    assert ended.cause == OUTPUT
    return ended


def test_outputs_that_are_no_files(agent: AgentHarness) -> None:
    for script in ("mkfifo x", "mkdir x; mkfifo x/y", "ln -s /dev/zero x"):
        assert refused(agent, script).detail == "cannot read its output x: it is neither a file nor a directory"
    assert refused(agent, "mkdir x; ln -s nowhere x/y").detail == "cannot read its output x: No such file or directory"


class Growing:
    """Takes an output's pieces, and writes to it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, frame: bytes) -> None:
        if wire.unpack(frame)[3]["at"] == 0:
            with self.path.open("ab") as file:
                file.write(b"more")


def test_an_output_that_changes_while_it_is_read(tmp_path: Path) -> None:
    one = stage.Stage(str(tmp_path), 0)
    path = Path(one.directory, "x")
    path.write_bytes(bytes(10))
    with pytest.raises(stage.StageError, match="it changed while it was read") as caught:
        one.send(1, 2, ["x"], Growing(path))
    assert caught.value.cause == OUTPUT


def test_outputs_written_where_they_belong(agent: AgentHarness, tmp_path: Path) -> None:
    part = tmp_path / "part"
    landing = [(str(part), str(part / "x")), (str(part), str(part / "d"))]
    ended = agent.shell(f"echo 12 > {part}/x; mkdir {part}/d", landing=landing)
    assert (ended.cause, ended.files) == (OK, [3, -1])
    ended = agent.shell("true", landing=[(str(part), str(part / "y"))])
    assert (ended.cause, ended.detail) == (MISSING_OUTPUT, "it ended well but did not write its output y")
    (tmp_path / "file").write_text("")
    ended = agent.shell("true", landing=[(str(tmp_path / "file" / "part"), "x")])
    assert ended.cause == INPUT


# ---- without privilege, which root cannot be shown


def as_nobody(act: Callable[[Path], bool], place: Path) -> bool:
    """Do something in a process without privilege, if this one has it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.chdir(place)
            if not os.geteuid():
                os.chown(place, 65534, 65534)
                os.setgid(65534)
                os.setuid(65534)
            code = 0 if act(Path()) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def remove_locked(place: Path) -> bool:
    (place / "a/b/c").mkdir(parents=True)
    (place / "a/b/c/file").write_text("")
    (place / "a/link").symlink_to("/etc")
    for name in ("a/b/c", "a/b", "a"):
        (place / name).chmod(0)
    return stage.remove(str(place / "a")) and not names(place)


def test_what_its_owner_may_not_write_to_is_removed_all_the_same(tmp_path: Path) -> None:
    assert as_nobody(remove_locked, tmp_path)


@pytest.mark.skipif(sys.platform == "darwin", reason="flock is everywhere")
def test_a_base_is_made_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    first = Path(store.make_base(str(tmp_path), "r1"))
    os.utime(first, (0, 0))
    second = Path(store.make_base(str(tmp_path), "r2"))
    assert first.is_dir()  # nobody knows whether it is used
    assert second.is_dir()


def test_a_node_where_nothing_can_be_written_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with pytest.raises(OSError, match="full disk"):
        store.make_base(None, "r")
