"""Copies between this machine and a host behind a real sshd."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from serai.data.copying.ends import Tree, sort_tree
from serai.data.transfer import Tally, Wishes, copy, move, store_stream, sync
from serai.errors import HostUnknown, HostUnreachable, UsageError
from serai.travel.copying import lots

if TYPE_CHECKING:
    from collections.abc import Callable

R = Wishes(recursive=True)
BIG = 40 << 20
ODD = ["-r", "a b", "new\nline", "*?[x]", "\udcff\udcfe", "ünï", "#%41", "'\"$(x)`", "~", "a" * 250]


def content(root: Path) -> dict[str, Any]:
    """Names, permissions and contents."""
    return {
        os.fspath(path.relative_to(root)): (
            "link" if path.is_symlink() else path.lstat().st_mode,
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(root.rglob("*"))
    }


def until(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.01)


@pytest.fixture(params=["local to local", "local to ssh", "ssh to local", "ssh to ssh"])
def ends(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What stands before a path of the source, and of the destination."""
    source, target = ("" if end == "local" else request.getfixturevalue("ssh") for end in request.param.split(" to "))
    return source, target


def test_a_tree_arrives_as_it_was(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    top = tmp_path / "from"
    for name in ODD:
        (top / name).mkdir(parents=True)
        (top / name / "file").write_bytes(os.fsencode(name))
    (top / "big").write_bytes(os.urandom(3 << 20))
    (top / "empty").touch(mode=0o600)
    (top / "run").touch(mode=0o755)
    (top / "closed").mkdir(mode=0o500)
    (top / "link").symlink_to("big")
    (top / "lost").symlink_to("\udcffnowhere")
    outcome = copy([f"{source}{top}"], f"{target}{tmp_path}/to", R)
    assert outcome.complaints == []
    assert content(tmp_path / "to") == content(top)
    assert outcome.files == len(ODD) + 5


def test_permissions_and_times_are_kept_when_that_is_asked_for(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    (tmp_path / "from/sub").mkdir(parents=True)
    for name, size in (("small", 10), ("large", 2 << 20)):
        path = tmp_path / "from/sub" / name
        path.write_bytes(bytes(size))
        path.chmod(0o466)
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    os.utime(tmp_path / "from/sub", ns=(1, 1_111_111_111_000_000_000))
    assert copy([f"{source}{tmp_path}/from"], f"{target}{tmp_path}/to", Wishes(recursive=True, times=True)).ok
    for name in ("small", "large"):
        found = (tmp_path / "to/sub" / name).stat()
        assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o466, 1_234_567_890_123_456_789)
    assert (tmp_path / "to/sub").stat().st_mtime_ns == 1_111_111_111_000_000_000


def test_a_large_file_goes_on_where_it_stopped(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    data = os.urandom(BIG)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b.serai-partial").write_bytes(data[: BIG // 2])
    notes: list[str] = []
    tally = Tally(notes.append)
    assert copy([f"{source}{tmp_path}/a"], f"{target}{tmp_path}/b", tally=tally).ok
    assert any(f"goes on after {BIG // 2} bytes" in note for note in notes), notes
    assert (tmp_path / "b").read_bytes() == data
    assert not (tmp_path / "b.serai-partial").exists()


@pytest.mark.parametrize("left", ["other bytes", "too many"])
def test_a_partial_file_of_something_else_is_begun_anew(ends: tuple[str, str], tmp_path: Path, left: str) -> None:
    source, target = ends
    data = os.urandom(2 << 20)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b.serai-partial").write_bytes(b"x" * 100_000 if left == "other bytes" else data + b"more")
    assert copy([f"{source}{tmp_path}/a"], f"{target}{tmp_path}/b").ok
    assert (tmp_path / "b").read_bytes() == data


COPY = "import sys; from serai.data.transfer import copy; sys.exit(not copy(sys.argv[1:-1], sys.argv[-1]).ok)"


@pytest.mark.parametrize("direction", ["to", "from"])
def test_what_was_killed_leaves_a_partial_file_that_is_taken_up(ssh: str, tmp_path: Path, direction: str) -> None:
    data = os.urandom(1 << 20) * 400
    source = tmp_path / "a"
    source.write_bytes(data)
    urls = [str(source), f"{ssh}{tmp_path}/b"] if direction == "to" else [f"{ssh}{source}", f"{tmp_path}/b"]
    process = subprocess.Popen([sys.executable, "-c", COPY, *urls])
    partial = tmp_path / "b.serai-partial"
    until(lambda: (partial.exists() and partial.stat().st_size) or process.poll() is not None, "bytes arrive")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "b").exists()
    size = partial.stat().st_size
    assert 0 < size < len(data)
    notes: list[str] = []
    until(lambda: copy(urls[:1], urls[1], tally=Tally(notes.append)).ok, "whoever wrote it has gone")
    assert any("goes on after" in note for note in notes)
    assert (tmp_path / "b").read_bytes() == data


def test_an_interrupt_ends_it_soon_and_leaves_the_partial_file_only(ssh: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20) * 400)
    process = subprocess.Popen(
        [sys.executable, "-m", "serai", "cp", str(tmp_path / "a"), f"{ssh}{tmp_path}/b"], stderr=subprocess.PIPE
    )
    partial = tmp_path / "b.serai-partial"
    until(lambda: partial.exists() and partial.stat().st_size, "bytes arrive")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, b"")
    assert sorted(os.listdir(tmp_path)) == ["a", "b.serai-partial"]


def test_two_copies_to_one_place_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(2 << 20))
    with (tmp_path / "b.serai-partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        outcome = copy([str(tmp_path / "a")], str(tmp_path / "b"))
    assert outcome.complaints == [f"cannot create regular file '{tmp_path}/b': another copy writes it now"]


@pytest.mark.parametrize("size", [2 << 20, 20 << 20], ids=["by the porter", "by a session of its own"])
def test_a_copy_that_was_cut_off_is_waited_for_on_its_host(ssh: str, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    other = (tmp_path / "b.serai-partial").open("wb")
    other.write(data[: size // 10])
    other.flush()
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(2.0, other.close)
    timer.start()
    outcome = copy([str(tmp_path / "a")], f"{ssh}{tmp_path}/b")
    timer.join()
    assert outcome.ok, outcome.complaints
    assert (tmp_path / "b").read_bytes() == data


def test_a_copy_that_goes_on_is_not_waited_for(tmp_path: Path) -> None:
    partial = tmp_path / "b.serai-partial"
    enough = threading.Event()

    def write_on() -> None:
        while not enough.wait(0.01):
            other.write(b"x")
            other.flush()

    with partial.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=write_on)
        writer.start()
        try:
            with pytest.raises(BlockingIOError, match="another copy writes it now"):
                lots.land(str(tmp_path / "b"), 0, [], patience_s=600)
        finally:
            enough.set()
            writer.join()


def test_what_another_copy_has_finished_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    partial = tmp_path / "b.serai-partial"
    partial.write_bytes(b"whole")
    with partial.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def finish() -> None:
            partial.rename(tmp_path / "b")
            fcntl.flock(other, fcntl.LOCK_UN)

        timer = threading.Timer(0.5, finish)
        timer.start()
        with pytest.raises(BlockingIOError, match="another copy writes it now"):
            lots.land(str(tmp_path / "b"), 0, [b"other"], patience_s=600)
        timer.join()
    assert (tmp_path / "b").read_bytes() == b"whole"


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    top = tmp_path / "from"
    (top / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (top / name).write_bytes(b"x")
    os.mkfifo(top / "pipe")
    outcome = copy([f"{source}{top}", f"{source}{tmp_path}/nope"], f"{target}{tmp_path}", R)
    assert any("nope': No such file" in what for what in outcome.complaints)
    outcome = copy([f"{source}{top}"], f"{target}{tmp_path}/to", R)
    assert outcome.complaints == [f"'{source}{top}/pipe' is neither a file nor a directory nor a link: not copied"]
    assert sorted(content(tmp_path / "to")) == ["a", "sub", "sub/b"]


def test_a_file_that_vanishes_between_look_and_copy_is_named(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    for name, size in (("a", 5), ("b", 5), ("large", 2 << 20), ("other", 2 << 20)):
        (tmp_path / name).write_bytes(bytes(size))

    class Meddler(Tally):
        def expect(self, files: int, size: int) -> None:
            (tmp_path / "a").unlink()
            (tmp_path / "large").unlink()

    (tmp_path / "to").mkdir()
    urls = [f"{source}{tmp_path}/{name}" for name in ("a", "b", "large", "other")]
    outcome = copy(urls, f"{target}{tmp_path}/to", tally=Meddler())
    assert sorted(outcome.complaints) == [
        f"cannot open '{source}{tmp_path}/{name}' for reading: No such file or directory" for name in ("a", "large")
    ]
    assert sorted(content(tmp_path / "to")) == ["b", "other"]


def test_an_error_of_the_destination_is_named(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    for name, size in (("a", 5), ("large", 2 << 20)):
        (tmp_path / name).write_bytes(bytes(size))

    class Meddler(Tally):
        def expect(self, files: int, size: int) -> None:
            (tmp_path / "to").rmdir()

    (tmp_path / "to").mkdir()
    urls = [f"{source}{tmp_path}/{name}" for name in ("a", "large")]
    outcome = copy(urls, f"{target}{tmp_path}/to", tally=Meddler())
    assert sorted(outcome.complaints) == [
        f"cannot create regular file '{target}{tmp_path}/to/{name}': No such file or directory"
        for name in ("a", "large")
    ]


def test_patterns_are_expanded_where_nothing_has_their_name(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    for name in ("x1", "x2", "y1", "[x]1"):
        (tmp_path / name).write_text(name)
    (tmp_path / "to").mkdir()
    assert copy([f"{source}{tmp_path}/[x]*", f"{source}{tmp_path}/[x]1"], f"{target}{tmp_path}/to").ok
    assert sorted(content(tmp_path / "to")) == ["[x]1", "x1", "x2"]


def test_a_file_in_use_is_replaced_whole_and_keeps_its_permissions(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    (tmp_path / "a").write_text("new")
    old = tmp_path / "b"
    old.write_text("old")
    old.chmod(0o751)
    with old.open() as reader:
        assert copy([f"{source}{tmp_path}/a"], f"{target}{old}").ok
        assert reader.read() == "old"
    assert (old.read_text(), old.stat().st_mode & 0o777) == ("new", 0o751)


def test_any_file_system_of_fsspec_is_an_end(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True) if memory.exists("/box") else None
    (tmp_path / "from/sub").mkdir(parents=True)
    (tmp_path / "from/a").write_bytes(b"a")
    (tmp_path / "from/sub/large").write_bytes(os.urandom(3 << 20))
    assert copy([f"{source}{tmp_path}/from"], "memory://box", R).ok
    assert memory.cat("/box/a") == b"a"
    outcome = copy(["memory://box"], f"{target}{tmp_path}/to", R)
    assert outcome.complaints == []
    assert content(tmp_path / "to") == content(tmp_path / "from")
    memory.rm("/box", recursive=True)


def test_a_name_in_a_store_that_leads_out_of_its_tree_is_not_copied(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("/leading/in/good", "/leading/in/../out"):
        memory.store[name] = MemoryFile(memory, name, b"x")
    try:
        outcome = copy(["memory://leading/in"], f"{tmp_path}/to", R)
    finally:
        memory.store.clear()
    assert outcome.complaints
    assert all("cannot be in a directory" in complaint for complaint in outcome.complaints)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["good"]


def test_a_login_that_may_have_its_files_only_is_an_end(
    start_sshd: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = start_sshd("Subsystem sftp internal-sftp\nForceCommand internal-sftp\n")
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(only.config))
    (tmp_path / "from/dir").mkdir(parents=True)
    (tmp_path / "from/dir/small").write_bytes(b"small")
    (tmp_path / "from/large").write_bytes(os.urandom(3 << 20))
    assert copy([f"{tmp_path}/from"], f"ssh://lab{tmp_path}/there", R).ok
    assert copy([f"ssh://lab{tmp_path}/there"], f"{tmp_path}/back", R).ok
    for name in ("dir/small", "large"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()


def test_sync_moves_only_what_differs(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "sub").mkdir(parents=True)
    for name, data in {"a": b"a", "sub/b": b"b", "large": bytes(2 << 20)}.items():
        (here / name).write_bytes(data)
    (here / "link").symlink_to("a")
    urls = f"{source}{here}", f"{target}{there}"
    assert sync(*urls, dry_run=True).plan.copies.files == 4
    assert not there.exists()
    assert sync(*urls).outcome.files == 4
    assert content(there) == content(here)
    assert sync(*urls).plan.empty
    (here / "a").write_bytes(b"A")
    os.utime(here / "a", ns=(5, 5))
    (here / "sub/b").chmod(0o600)
    (there / "extra/deep").mkdir(parents=True)
    again = sync(*urls)
    assert ([job.origin for job in again.plan.copies.small], again.deleted) == ([f"{here}/a"], 0)
    assert content(there)["sub/b"] == content(here)["sub/b"]
    assert sync(*urls, delete=True).deleted == 2
    assert content(there) == content(here)
    (there / "a").write_bytes(b"B")
    os.utime(there / "a", ns=(5, 5))
    assert sync(*urls).plan.empty
    assert sync(*urls, checksum=True).outcome.files == 1
    assert (there / "a").read_bytes() == b"A"


def test_sync_replaces_what_is_of_another_kind(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for path in (here / "d", there / "f", there / "full"):
        path.mkdir(parents=True)
    (here / "f").write_text("f")
    (here / "full").write_text("full")
    (here / "l").symlink_to("f")
    (there / "d").write_text("a file")
    (there / "l").write_text("a file")
    (there / "full/x").write_text("x")
    first = sync(str(here), str(there))
    assert first.outcome.complaints == [
        f"a directory that is not empty is in the place of '{here}/full': --delete removes it"
    ]
    assert sync(str(here), str(there), delete=True).outcome.ok
    assert content(there) == content(here)
    assert sync(str(here), str(there), delete=True).plan.empty


def test_move_renames_or_copies_and_removes(ends: tuple[str, str], tmp_path: Path) -> None:
    source, target = ends
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/f").write_text("f")
    (tmp_path / "to").mkdir()
    assert move([f"{source}{tmp_path}/d"], f"{target}{tmp_path}/to").ok
    assert not (tmp_path / "d").exists()
    assert (tmp_path / "to/d/sub/f").read_text() == "f"
    assert not move([f"{source}{tmp_path}/to"], f"{target}{tmp_path}/to/d").ok
    assert (tmp_path / "to/d/sub/f").exists()


def test_move_across_file_systems_keeps_a_source_of_which_something_stayed(tmp_path: Path) -> None:
    with_pipe = tmp_path / "d"
    with_pipe.mkdir()
    (with_pipe / "f").write_text("f")
    os.mkfifo(with_pipe / "pipe")
    other = Path("/dev/shm") / f"serai-{os.getpid()}"
    other.mkdir()
    try:
        if other.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm and the temporary directory are one file system")
        assert not move([str(with_pipe)], str(other)).ok
        assert (with_pipe / "f").exists()
        (with_pipe / "pipe").unlink()
        assert move([str(with_pipe / "f")], str(other)).ok
        assert not (with_pipe / "f").exists()
    finally:
        subprocess.run(["rm", "-rf", str(other)], check=True)


def test_a_stream_becomes_a_file(ends: tuple[str, str], tmp_path: Path) -> None:
    _, target = ends
    pieces = [os.urandom(1 << 20) for _ in range(3)]
    assert store_stream(iter(pieces), f"{target}{tmp_path}/a") == 3 << 20
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)
    with pytest.raises(IsADirectoryError):
        store_stream(iter(pieces), f"{target}{tmp_path}")
    with pytest.raises(FileNotFoundError):
        store_stream(iter(pieces), f"{target}{tmp_path}/no/such")


@pytest.mark.parametrize(
    "names",
    [["../x"], ["a", "a/../../x"], ["/etc/x"], ["link", "link/x"], ["a", "a", "a"], ["x/y"], ["a/", "a//b"], ["a\0b"]],
)
def test_names_that_lead_out_of_a_tree_are_not_believed(names: list[str]) -> None:
    tree: Tree = {}, {}
    facts = {"a": "directory", "link": "link", "": "directory"}
    rows = [[name, [facts.get(name, "file"), 1, 0o644, 1, None, None, 1, 1]] for name in ["", *names]]
    sort_tree(rows, tree)
    assert set(tree[0]) <= {"", "a", "link"}
    assert names[-1] in tree[1]


def test_a_host_that_is_not_there_is_said_once_and_the_rest_goes_on(ssh: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "to").mkdir()
    outcome = copy(["ssh://no-such-host.invalid/x", f"{ssh}{tmp_path}/a"], str(tmp_path / "to"))
    assert len(outcome.complaints) == 1
    assert "no-such-host" in outcome.complaints[0]
    assert (tmp_path / "to/a").exists()
    with pytest.raises((HostUnknown, HostUnreachable)):
        copy([str(tmp_path / "a")], "ssh://no-such-host.invalid/x")
    with pytest.raises(UsageError):
        copy(["nonesuch://x/y"], str(tmp_path / "to"))
