"""Inputs by URL on this machine: found, read in pieces, tried again, and refused with their names."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import serai
from serai.apps import fetching
from serai.apps.inputs import expand, expanded, ssh_configs
from serai.clock import SystemClock
from serai.describe.poolfile import site_from_url
from serai.describe.task import Cause
from serai.dispatch.carrier import Timing
from serai.dispatch.history.archive import Archive
from serai.dispatch.run import Settings
from serai.errors import TransferFailed, UsageError
from serai.travel.executor.wire import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIG = bytes(range(256)) * (3 * CHUNK // 256) + b"end"
NAMES = ["a b.txt", "ü'\".txt", "new\nline.txt", "b[1].txt"]


class Faulty(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """Files in memory, of a server with troubles of its own."""

    protocol = "faulty"
    losses = 0  # so many times is the connection lost after the first piece
    longer_by = 0  # what a file has shrunk by since its size was asked
    waits: threading.Event | None = None  # before the first byte
    opened = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("faulty://"))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **kwargs)
        tag = {"ETag": hash(self.cat_file(path))} if found["type"] == "file" else {}
        return {**found, **tag, "size": found["size"] + type(self).longer_by}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        type(self).opened += 1
        file = super()._open(path, mode, **kwargs)
        return _Losing(file.getvalue()) if mode == "rb" else file


class _Losing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if Faulty.waits is not None:
            Faulty.waits.wait(60)
        if self.tell() and Faulty.losses:
            Faulty.losses -= 1
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(size)


@pytest.fixture(autouse=True)
def _faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    for name, value in (("losses", 0), ("longer_by", 0), ("waits", None), ("opened", 0)):
        monkeypatch.setattr(Faulty, name, value)
    monkeypatch.setattr(fetching, "PAUSES_S", (0.01, 0.01))


@pytest.fixture(autouse=True)
def files() -> Iterator[MemoryFileSystem]:
    memory = MemoryFileSystem()
    for name in NAMES:
        memory.pipe_file(f"/d/{name}", name.encode())
    memory.pipe_file("/d/sub/deep.txt", b"deep")
    memory.pipe_file("/big", BIG)
    memory.pipe_file("/empty", b"")
    yield memory
    memory.store.clear()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def pool(runs: Path) -> Iterator[serai.Pool]:
    settings = Settings(timing=Timing(beat_s=0.2, silence_s=5.0))
    with serai.Pool("local:?slots=2", options=serai.Options(runs=runs, settings=settings)) as pool:
        yield pool


# ---- at the front end


def test_patterns_become_files_sorted_by_name() -> None:
    source = serai.files("memory://d/*.txt")
    assert [item.inputs for item in source] == [(f"memory:///d/{name}",) for name in sorted(NAMES)]
    assert [item.inputs for item in serai.files("memory:///d/**/deep.txt")] == [("memory:///d/sub/deep.txt",)]


def test_a_name_with_a_bracket_is_a_name() -> None:
    assert expand(["memory:///d/b[1].txt"]) == ["memory:///d/b[1].txt"]


def test_what_is_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y"):
        (tmp_path / name).touch()
    assert expand(["local:x", f"file://{tmp_path}/y", f"any://{tmp_path}/x", f"any://localhost{tmp_path}/y", "z"]) == [
        "x",
        f"{tmp_path}/y",
        f"{tmp_path}/x",
        f"{tmp_path}/y",
        "z",
    ]
    assert expand(["local:*"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory:///d/*.csv", "no file matches 'memory:///d/\\*.csv'"),
        ("memory:///d/none", "there is no file 'memory:///d/none'"),
        ("memory:///d", "'memory:///d' is a directory"),
        ("local:none", "there is no file 'local:none'"),
        ("local:*.none", "no file matches"),
        ("nonesuch://x/y", "nonesuch"),
        ("any://no-such-host.invalid/x", "no-such-host.invalid"),
    ],
)
def test_mistakes_name_the_url(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        serai.files(url)


def test_a_password_is_not_repeated() -> None:
    for url in ("https://me:secret@host/x", "zip://x::ssh://me:secret@host/y", "ssh://me:secret@host/*"):
        with pytest.raises(UsageError) as caught:
            serai.files(url)
        assert "password" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_of_many_files_in_a_directory_the_missing_one_is_found() -> None:
    urls = [f"memory:///d/{name}" for name in NAMES] + ["memory:///d/sub/deep.txt", "memory:///d/none"]
    with pytest.raises(UsageError, match="there is no file 'memory:///d/none'"):
        expand(urls)
    assert expand(urls[:-1]) == urls[:-1]


def test_items_of_json_lines_may_have_patterns() -> None:
    items = [serai.Item(("x", "memory:///d/a*")), serai.Item(("y*",)), serai.Item(line="1")]
    assert list(expanded(items, {})) == [serai.Item(("x", "memory:///d/a b.txt")), *items[1:]]


def test_a_host_has_the_ssh_config_of_its_site() -> None:
    sites = [site_from_url("ssh://me@lab1:22?ssh_config=/c1"), site_from_url("ssh://lab2"), site_from_url("local:")]
    assert ssh_configs(sites) == {"me@lab1:22": "/c1", "lab1": "/c1"}
    assert ssh_configs([sites[0], sites[2]]) == {"me@lab1:22": "/c1", "lab1": "/c1", "": "/c1"}


# ---- while a run goes on


def test_inputs_are_sent_and_have_their_names(pool: serai.Pool, runs: Path, tmp_path: Path) -> None:
    source = serai.files("memory://d/*.txt")
    done = list(
        pool.run('sh -c \'cat "$1" && printf %s "$2" > "$3"\' sh {in} {stem} {out:.o}', source, out=str(tmp_path))
    )
    assert [outcome.error for outcome in done] == [None] * len(NAMES)
    assert sorted(outcome.stdout.decode() for outcome in done) == sorted(NAMES)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{name[:-4]}.o": name[:-4] for name in NAMES
    }
    (told,) = _notes(runs, pool.name, done[0].task)
    assert told == f"inputs: {done[0].item.inputs[0]} sent"


def _notes(runs: Path, name: str, task: int) -> list[str]:
    with Archive(runs).open(name, time.time()) as history:
        assert not [note for note in history.notes() if note.task]  # told of each task, not of the run
        return [note.text for note in history.task(task).notes]


def test_large_and_empty_ones_and_columns(pool: serai.Pool) -> None:
    items = [
        serai.Item(("memory:///big", "memory:///empty"), columns={"third": "memory:///d/a b.txt"}),
        serai.Item(("memory:///empty", "memory:///big"), columns={"third": "memory:///d/a b.txt"}),
    ]
    source = _WithColumns(items)
    one, other = sorted(pool.run("wc -c {in} {in:third}", source), key=lambda outcome: outcome.task)
    assert [line.split()[0] for line in one.stdout.splitlines()] == [b"%d" % n for n in (len(BIG), 0, 7, len(BIG) + 7)]
    assert other.error is None


class _WithColumns(list[serai.Item]):
    columns = ("third",)


def test_a_lost_connection_goes_on_where_it_was(pool: serai.Pool) -> None:
    Faulty.losses = 2
    (outcome,) = pool.run("cksum {in}", ["faulty:///big"])
    (whole,) = pool.run("cksum {in}", ["memory:///big"])
    assert outcome.stdout.split()[:2] == whole.stdout.split()[:2]
    assert (Faulty.losses, Faulty.opened) == (0, 3)


def test_one_that_is_lost_for_good_fails_alone(pool: serai.Pool) -> None:
    Faulty.losses = 100
    done = {outcome.item.inputs: outcome for outcome in pool.run("cat {in}", ["faulty:///big", "memory:///d/a b.txt"])}
    assert isinstance(done["faulty:///big",].error, TransferFailed)
    assert done["faulty:///big",].detail == "cannot read its input faulty:///big: Connection reset by peer"
    assert done["faulty:///big",].cause is Cause.INPUT
    assert done["memory:///d/a b.txt",].stdout == b"a b.txt"
    assert Faulty.opened == 3


def test_one_that_is_not_as_long_as_it_was_is_refused(pool: serai.Pool) -> None:
    for by in (5, -5):
        Faulty.longer_by = by
        (outcome,) = pool.run("cat {in}", ["faulty:///big"])
        assert outcome.detail == "cannot read its input faulty:///big: it changed while it was read"


def test_one_that_is_another_than_was_catalogued_is_refused() -> None:
    files = Faulty()
    files.pipe_file("/changes/x", BIG)
    fetcher = fetching.Fetcher({}, SystemClock())
    (found,) = fetcher.look(["faulty:///changes/x"])
    assert b"".join(piece for piece in fetcher.whole(found.origin, found.stamp) if piece) == BIG
    files.pipe_file("/changes/x", BIG[::-1])
    with pytest.raises(TransferFailed, match="changed"):
        list(fetcher.whole(found.origin, found.stamp))


def test_one_that_is_not_there(pool: serai.Pool) -> None:
    items = ["memory:///none", "memory:///d", "nonesuch://x/y", "memory:///d/a b.txt"]
    done = {outcome.item.inputs[0]: outcome for outcome in pool.run("cat {in}", items)}
    assert done[items[0]].detail == "cannot read its input memory:///none: No such file or directory"
    assert done[items[1]].detail == "cannot read its input memory:///d: it is a directory"
    assert "nonesuch" in done[items[2]].detail
    assert done[items[3]].error is None


def test_an_executor_is_not_given_up_while_a_slow_source_is_waited_for(pool: serai.Pool, runs: Path) -> None:
    Faulty.waits = threading.Event()
    outcomes = pool.run("cat {in}", ["faulty:///d/a b.txt"])
    threading.Timer(7.0, Faulty.waits.set).start()
    (outcome,) = outcomes
    assert outcome.stdout == b"a b.txt"
    with Archive(runs).open(pool.name, time.time()) as history:
        assert [note.text for note in history.notes()] == []  # else it had ended, and another one had begun


def test_a_source_that_says_nothing_is_given_up(pool: serai.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "STALL_S", 0.5)
    monkeypatch.setattr(fetching, "LIFE_S", 0.1)
    Faulty.waits = threading.Event()
    (outcome,) = pool.run("cat {in}", ["faulty:///d/a b.txt"])
    Faulty.waits.set()
    assert outcome.detail == "cannot read its input faulty:///d/a b.txt: nothing came for 0.5 s"


def test_a_source_that_gives_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "STALL_S", 0.5)
    monkeypatch.setattr(fetching, "PAUSES_S", ())
    ended = threading.Event()

    class Trickling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"" if ended.wait(0.05) else super().read(1)

    monkeypatch.setattr(Faulty, "_open", lambda _self, _path, **_kwargs: Trickling(BIG))
    with pytest.raises(TransferFailed, match=r"cannot read its input faulty:///big: .* as good as nothing"):
        list(fetching.Fetcher({}, SystemClock()).whole("faulty:///big", ("None",) * 7))
    ended.set()


def test_outputs_have_no_place_beside_a_url(pool: serai.Pool) -> None:
    (outcome,) = pool.run("cp {in} {out:.x}", ["memory:///d/a b.txt"])
    assert "there is no place for {out:.x} beside memory:///d/a b.txt" in outcome.detail


def test_commands_without_urls_do_not_import_fsspec(tmp_path: Path) -> None:
    program = (
        "import sys, serai\n"
        "with serai.Pool(max_workers=1) as pool:\n"
        "    assert [one.ok for one in pool.run('cat {in}', [sys.argv[1]])] == [True]\n"
        "assert 'fsspec' not in sys.modules\n"
    )
    (tmp_path / "x").touch()
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], check=True, timeout=120)


# ---- on the host itself


def test_what_lies_on_the_node_is_used_in_place(pool: serai.Pool, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("in place")
    url = f"any://{socket.gethostname()}{tmp_path}/a b"
    (outcome,) = pool.run('sh -c \'readlink "$1"; cat "$1"\' sh {in}', [url])
    assert outcome.stdout == f"{tmp_path}/a b\nin place".encode()
    assert _notes(runs, pool.name, outcome.task) == [f"inputs: {url} in place"]
    assert (tmp_path / "a b").exists()


LEASE = """
import fcntl, os, signal, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while True:
    time.sleep(60)
"""


def test_what_cannot_be_used_in_place_is_sent(pool: serai.Pool, runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("sent")
    url = f"any://{socket.gethostname()}{path}"
    # A lease: who opens the file without waiting is refused, once; who waits gets it.
    with subprocess.Popen([sys.executable, "-c", LEASE, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            (outcome,) = pool.run('sh -c \'test -L "$1" || cat "$1"\' sh {in}', [url])
        finally:
            holder.kill()
    assert outcome.stdout == b"sent"
    assert _notes(runs, pool.name, outcome.task) == [
        f"inputs: {url} in place",
        f"inputs: {url} sent, because it cannot be used in place (Resource temporarily unavailable)",
    ]


def test_files_of_a_bundle_are_opened_before_their_turn(pool: serai.Pool) -> None:
    memory = MemoryFileSystem()
    names = [f"faulty:///n/{number}" for number in range(60)]
    for name in names:
        memory.pipe_file(name.removeprefix("faulty://"), name.encode())
    done = list(pool.run("cat {in}", [serai.Item((one, other, one)) for one, other in pairwise(names)]))
    assert sorted(outcome.stdout.decode() for outcome in done) == sorted(a + b + a for a, b in pairwise(names))
    for thread in [one for one in threading.enumerate() if one.name == "fetch"]:
        thread.join(40)
        assert not thread.is_alive()
