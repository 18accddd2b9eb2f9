"""``chirp://`` against a real chirp_server: fsspec's own suites, the house's contract, and the commands."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.tests import abstract
from tests.ports import unused_port
from tests.store.conftest import until

from serai.access.files import filesystem_for
from serai.access.plain import chirp_wire
from serai.access.plain.chirp_wire import Server, connected, word
from serai.access.plain.chirp_writing import ChirpWriting
from serai.access.stores.chirp import ChirpFileSystem
from serai.apps.inputs import expand
from serai.errors import AccessError, HostUnreachable, LoginRefused, UsageError
from serai.testing.files import FilesContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.files import Lose

NOBODY = 65534
_count = itertools.count()
_lacking = shutil.which("chirp_server") is None
needs_server = pytest.mark.skipif(_lacking, reason="chirp_server cannot be had: apt-get install coop-computing-tools")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that takes everybody of this host, and its users by name."""
    with tempfile.TemporaryDirectory(prefix="chirp-") as scratch:  # pytest's own no other user may enter
        base = Path(scratch)
        (base / "root").mkdir()
        (base / "root/.__acl").write_text("address:127.0.0.1 rwldax\nhostname:localhost rwldax\nunix:* rwldax\n")
        port = unused_port()
        words = ["chirp_server", "-r", f"{base}/root", "-y", scratch, "-p", str(port), "-I", "127.0.0.1"]
        words += ["-a", "unix", "-a", "hostname", "-a", "address", "-u", "127.0.0.1", "-c", scratch]
        if os.geteuid() == 0:  # it does not work as root
            words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *words]
            for path in (base, base / "root", base / "root/.__acl"):
                os.chown(path, NOBODY, NOBODY)
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, cwd=scratch)
        until(lambda: _listens(port), "chirp_server listens")
        yield port
        chirp_wire.close_all()
        server.terminate()
        server.wait(10)


def serai(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "serai", *words], capture_output=True, text=True, check=False)


@needs_server
class TestSuites(
    abstract.AbstractFixtures,
    abstract.AbstractCopyTests,
    abstract.AbstractGetTests,
    abstract.AbstractOpenTests,
    abstract.AbstractPipeTests,
    abstract.AbstractPutTests,
):
    @pytest.fixture
    def fs(self, port: int) -> Any:
        return ChirpFileSystem("127.0.0.1", port, auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, fs: Any) -> str:
        path = f"/there{next(_count)}"
        fs.mkdir(path)
        return path


@needs_server
class TestContract(FilesContract):
    many = 300
    another_version = b"another"  # times are whole seconds

    @pytest.fixture
    def fs(self, port: int) -> Any:
        return ChirpFileSystem("127.0.0.1", port)

    @pytest.fixture
    def room(self, fs: Any) -> str:
        path = f"/room{next(_count)}"
        fs.mkdir(path)
        return path

    @pytest.fixture
    def lose(self) -> Lose:
        return chirp_wire.close_all


@needs_server
@pytest.mark.parametrize(("auth", "who"), [("unix", "unix:"), ("hostname", "hostname:localhost"), ("address", "127.")])
def test_it_is_told_who_we_are(port: int, auth: str, who: str) -> None:
    fs, path = filesystem_for(f"chirp://127.0.0.1:{port}/x y?auth={auth}")
    assert who in fs.host_facts().user
    assert path == "/x y"


@needs_server
def test_the_commands_work_on_it(port: int, tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    files = {f"sub/f{n}": bytes([n]) * n for n in range(20)} | {"large": os.urandom(9_000_000)}
    for name, data in files.items():
        (tmp_path / "d" / name).write_bytes(data)
    there = f"chirp://localhost:{port}/commands"

    def well(*words: str) -> str:
        done = serai(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    well("cp", "-r", f"{tmp_path}/d", there)
    assert well("ls", there).split() == ["large", "sub"]
    well("cp", "-r", there, f"{tmp_path}/back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
    well("rm", "-r", there)
    assert not filesystem_for(there)[0].exists("/commands")
    with pytest.raises(FileNotFoundError, match=f"localhost:{port}"):
        filesystem_for(there)[0].cat_file("/commands")


@pytest.fixture
def closed(port: int) -> str:
    """A directory with a file, whose names those who are known by their address may not see."""
    path = f"/closed{next(_count)}"
    fs = ChirpFileSystem("127.0.0.1", port, auto_mkdir=True)
    fs.pipe_file(f"{path}/file", b"x")
    with connected(Server("127.0.0.1", port)) as wire:
        wire.ask(b"setacl", word(path), b"address:127.0.0.1", b".")
    return path


@needs_server
def test_a_pattern_in_a_directory_that_cannot_be_read_says_so(port: int, closed: str, tmp_path: Path) -> None:
    fs = ChirpFileSystem("127.0.0.1", port, auth="address")
    for ask in (fs.glob, fs.expand_path, fs.rm):
        with pytest.raises(PermissionError):
            ask(f"{closed}/*")
    with pytest.raises(PermissionError):
        fs.get(closed, str(tmp_path / "got"), recursive=True)
    assert ChirpFileSystem("127.0.0.1", port).glob(f"{closed}/*") == [f"{closed}/file"]
    pattern = f"chirp://127.0.0.1:{port}{closed}/*?auth=address"
    with pytest.raises(UsageError, match=r"cannot be looked for: Permission denied"):
        expand([pattern])
    (tmp_path / "good").write_bytes(b"good\n")
    (tmp_path / "into").mkdir()
    for command, rest in (("ls", []), ("cat", [f"{tmp_path}/good"]), ("cp", [f"{tmp_path}/good", f"{tmp_path}/into"])):
        done = serai(command, pattern, *rest)
        assert done.returncode == 1
        assert "Permission denied" in done.stderr
        assert done.stdout == ("good\n" if command == "cat" else "")
    assert (tmp_path / "into/good").read_bytes() == b"good\n"  # the other operands are seen to


@needs_server
def test_what_chirps_own_client_wrote_is_read(port: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"by chirp_put")
    subprocess.run(["chirp_put", "-a", "address", f"{tmp_path}/x", f"127.0.0.1:{port}", "/by put"], check=True)
    fs = ChirpFileSystem("127.0.0.1", port)
    assert fs.cat_file("/by put") == b"by chirp_put"
    fs.pipe_file("/by us", b"by us")
    done = subprocess.run(
        ["chirp_get", "-a", "address", f"127.0.0.1:{port}", "/by us", "-"], capture_output=True, check=True
    )
    assert done.stdout == b"by us"


@needs_server
def test_many_requests_share_a_few_connections(port: int) -> None:
    chirp_wire.close_all()
    fs = ChirpFileSystem("127.0.0.1", port)
    for n in range(50):
        fs.pipe_file(f"/many{n}", b"x")
    assert len(chirp_wire._all) == 1


@contextlib.contextmanager
def _talker(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that says what it is told to, a text for each line that comes, and then nothing any more."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            with contextlib.suppress(OSError):
                peer, _ = listening.accept()
                with peer, peer.makefile("rb") as lines:
                    for answer in answers:
                        heard.append(lines.readline())
                        peer.sendall(answer)
                    lines.read()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield listening.getsockname()[1], heard
        chirp_wire.close_all()
    thread.join(40)


def test_a_server_that_does_not_answer_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chirp_wire, "CONNECT_S", 0.3)
    with _talker() as (port, _), pytest.raises(HostUnreachable, match=f"127.0.0.1:{port}.*did not answer"):
        ChirpFileSystem("127.0.0.1", port).ls("/")
    with pytest.raises(HostUnreachable, match="does not answer"):
        ChirpFileSystem("127.0.0.1", port).ls("/")


def test_a_server_makes_no_file_that_it_likes(tmp_path: Path) -> None:
    mine = tmp_path / "authorized_keys"
    with _talker(b"yes\n%s\n" % bytes(mine), b"no\n") as (port, heard):
        with pytest.raises((LoginRefused, HostUnreachable)), connected(Server("127.0.0.1", port, ("unix",))):
            pass
        assert heard == [b"unix\n", b"no\n"]
    assert not mine.exists()


def test_who_lets_nobody_in_and_who_speaks_something_else_is_told() -> None:
    with (
        _talker(b"no\n", b"no\n", b"no\n") as (port, heard),
        pytest.raises(LoginRefused, match="hostname: it is not asked for"),
    ):
        ChirpFileSystem("127.0.0.1", port).ls("/")
    assert heard == [b"unix\n", b"hostname\n", b"address\n"]
    with (
        _talker(b"yes\nyes\nyes\naddress\n127.0.0.1\n", b"HTTP/1.1 400\n") as (port, _),
        pytest.raises(AccessError, match="no Chirp"),
    ):
        ChirpFileSystem("127.0.0.1", port, auth="address").info("/")


@pytest.mark.parametrize("wrong", ["chirp:///x", "chirp://h/x?auth=kerberos", "chirp://h:x/y"])
def test_urls_that_cannot_be(wrong: str) -> None:
    with pytest.raises(UsageError):
        filesystem_for(wrong)


@pytest.mark.parametrize(("path", "said"), [("/a b%c", b"/a%20b%25c"), ("/n\nx", b"/n%0Ax"), ("/é", b"/%C3%A9")])
def test_names_travel_as_words(path: str, said: bytes) -> None:
    assert word(path) == said


FACTS = b"1 2 %d 1 0 0 0 %d 4096 8 1 1 1\n"
LOGIN = (b"yes\nyes\nyes\naddress\n127.0.0.1\n",)


def test_a_server_that_takes_no_byte_is_not_asked_for_ever() -> None:
    opened = b"3\n" + FACTS % (0o100644, 0)
    with _talker(*LOGIN, opened, *[b"0\n"] * 50) as (port, heard):
        files = ChirpFileSystem("127.0.0.1", port, auth="address").far
        with pytest.raises(AccessError, match="speaks no Chirp"):
            files.write_at("/x", [b"abc"])
    assert len(heard) < 10


@pytest.mark.parametrize("answer", [b"5\nabcde", b"2000000\n"])
def test_a_server_gives_no_more_than_it_was_asked_for(answer: bytes) -> None:
    with _talker(*LOGIN, b"3\n" + FACTS % (0o100644, 4), answer) as (port, _):
        fs = ChirpFileSystem("127.0.0.1", port, auth="address")
        with pytest.raises(AccessError, match="speaks no Chirp"):
            b"".join(fs.far.read_from("/x", 0, 4))


def test_facts_that_are_none_are_told_as_such() -> None:
    with _talker(*LOGIN, b"0\nso many words\n") as (port, _):
        with pytest.raises(AccessError, match="speaks no Chirp"):
            ChirpFileSystem("127.0.0.1", port, auth="address").info("/x")
        assert not any(one.whole for one in chirp_wire._all)


def test_names_that_lead_out_of_their_directory_are_not_listed() -> None:
    facts = FACTS % (0o100644, 1)
    rows = b"".join(name + b"\n" + facts for name in (b"well", b"../../.profile", b"/etc/x", b"a/b", b".."))
    directory = FACTS % (0o040755, 0)
    with _talker(*LOGIN, b"0\n" + directory, b"0\n" + rows + b"\n") as (port, _):
        found = ChirpFileSystem("127.0.0.1", port, auth="address").find("/top")
    assert found == ["/top/well"]


def test_a_file_that_cannot_be_finished_is_given_up_without_the_connection_that_others_have_by_then() -> None:
    answers = (b"3\n" + FACTS % (0o100644, 0), b"0\n", b"-1\n", b"0\n")
    with _talker(*LOGIN, *answers) as (port, heard):
        files = ChirpFileSystem("127.0.0.1", port, auth="address").far
        writing = ChirpWriting(files, "/x", "w", keep=False, mode=None)
        with pytest.raises(PermissionError), writing:
            pass
    assert [line.split()[0] for line in heard[1:]] == [b"open", b"close", b"chmod", b"unlink"]
