"""A node's tasks log in at the front, with what the run gave them and no longer than it lives. Two real sshds."""

from __future__ import annotations

import getpass
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import serai
from serai.access.home_calling import Front, HomeCalling
from serai.access.home_calling.keys import AuthorizedKeys, Mode, line_for, with_line, without_lines
from serai.access.home_calling.node import read_made
from serai.clock import SystemClock
from serai.errors import AccessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.access.conftest import Sshd

    from serai.access.openssh import Connection

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def home(lab: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The sshd of the front end's machine."""
    server = type(lab)(tmp_path_factory.mktemp("home"), "home", extra="Subsystem sftp internal-sftp\n")
    yield server
    server.stop()


@pytest.fixture
def front(home: Sshd) -> Iterator[Front]:
    before = home.authorized.read_bytes()
    yield Front(port=home.port, authorized_keys=home.authorized, host_keys=(Path(f"{home.host_key}.pub").read_text(),))
    assert home.authorized.read_bytes() == before, "nothing is left"


@pytest.fixture
def node(connect: Callable[..., Connection]) -> Connection:
    connection = connect()
    connection.open()
    return connection


def named(run: str) -> str:
    """A run of this process: rooms on nodes lie in a directory that all share."""
    return f"{run}-{os.getpid()}"


def rooms(run: str) -> list[Path]:
    return list(Path("/tmp").glob(f"serai-home-{named(run)}-*"))


def task(node: Connection, environment: dict[str, str], command: str) -> subprocess.CompletedProcess[bytes]:
    """A task of the node: it knows the environment it is given, and nothing of home-calling."""
    words = ["env", *(f"{name}={value}" for name, value in environment.items()), "sh", "-c", command]
    return node.run(words, deadline_s=60)


def test_files_go_both_ways_and_nothing_else_does(front: Front, home: Sshd, node: Connection, tmp_path: Path) -> None:
    there, here, back = (tmp_path / name for name in ("there", "here", "back"))
    there.write_bytes(os.urandom(300_000))
    home.authorized.chmod(0o640)
    with HomeCalling(named("r1"), "files", state=tmp_path, clock=CLOCK, front=front) as calling:
        line = home.authorized.read_text().splitlines()[-1]
        assert line.startswith('restrict,expiry-time="20')
        assert ',from="127.0.0.1,::1",command="internal-sftp" ssh-ed25519 ' in line
        assert stat.S_IMODE(home.authorized.stat().st_mode) == 0o640
        environment = calling.prepare(node, sys.executable)
        assert environment["SERAI_HOME"] == "ssh://home"
        room = rooms("r1")[0]
        assert stat.S_IMODE(room.stat().st_mode) == 0o700
        assert stat.S_IMODE((room / "key").stat().st_mode) == 0o600
        done = task(node, environment, f"scp -q home:{there} {here} && scp -q {here} front:{back}")
        assert done.returncode == 0, done.stderr
        assert back.read_bytes() == there.read_bytes()
        done = task(node, environment, f"echo 'ls {tmp_path}' | sftp -q -b - home")
        assert b"there" in done.stdout
        done = task(node, environment, f"ssh home touch {tmp_path}/ran")
        assert done.returncode != 0
        assert not (tmp_path / "ran").exists()
        done = task(node, environment, f"ssh -o ClearAllForwardings=no -W 127.0.0.1:{home.port} home </dev/null")
        assert b"SSH-2.0" not in done.stdout
        key = (room / "key").read_text()
        assert key.splitlines()[1] not in home.log.read_text() + repr(calling) + repr(vars(calling))
    assert not rooms("r1")
    old = tmp_path / "old"
    old.write_text(key)
    old.chmod(0o600)
    words = ["ssh", "-F", str(home.config), "-i", str(old), "-o", f"IdentityFile={old}", "home", "true"]
    words[2] = home.config_with("", (home.key, old))
    assert subprocess.run(words, capture_output=True, timeout=20, check=False).returncode == 255, (
        "the key is worth nothing"
    )


def test_commands_where_they_were_asked_for(front: Front, home: Sshd, node: Connection, tmp_path: Path) -> None:
    with HomeCalling(named("r2"), Mode.SHELL, state=tmp_path, clock=CLOCK, front=front) as calling:
        environment = calling.prepare(node, sys.executable)
        assert task(node, environment, "echo hello | ssh home cat").stdout == b"hello\n"
        done = task(node, environment, f"ssh -o ClearAllForwardings=no -W 127.0.0.1:{home.port} home </dev/null")
        assert b"administratively prohibited" in done.stderr, done
        done = task(node, environment, "ssh -tt home tty </dev/null")
        assert b"/dev/pts" not in done.stdout
        assert b"internal-sftp" not in home.authorized.read_bytes().splitlines()[-1]
        subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "repo")], check=True, timeout=20)
        done = task(node, environment, f"git clone -q home:{tmp_path}/repo {tmp_path}/clone")
        assert (tmp_path / "clone/.git").is_dir(), done.stderr
        done = task(node, environment, "ssh -G elsewhere")
        assert b"hostname elsewhere" in done.stdout, "other names are the node's own business"
        assert b"serai-home" not in done.stdout


def test_an_address_is_tried_first_and_the_connection_after_it(front: Front, node: Connection, tmp_path: Path) -> None:
    for run, address, through in (("d1", "127.0.0.1", False), ("d2", "127.0.0.77", True)):
        place = Front(address, front.port, getpass.getuser(), front.authorized_keys, front.host_keys)
        with HomeCalling(named(run), "shell", state=tmp_path, clock=CLOCK, front=place) as calling:
            environment = calling.prepare(node, sys.executable)
            assert task(node, environment, "ssh home echo yes").stdout == b"yes\n"
            assert [(room / "s").exists() for room in rooms(run)] == [through]


def test_a_front_that_is_not_the_one_known_gets_no_login(
    front: Front, lab: Sshd, node: Connection, tmp_path: Path
) -> None:
    wrong = Front(port=front.port, authorized_keys=front.authorized_keys,
                  host_keys=(Path(f"{lab.host_key}.pub").read_text(),))  # fmt: skip
    with (
        HomeCalling(named("r3"), "files", state=tmp_path, clock=CLOCK, front=wrong) as calling,
        pytest.raises(AccessError, match="cannot call home") as refused,
    ):
        calling.prepare(node, sys.executable)
    assert "through the connection: Host key verification failed." in refused.value.tried
    assert not rooms("r3")


def test_the_credential_ends_with_its_time(front: Front, node: Connection, tmp_path: Path) -> None:
    with (
        HomeCalling(named("r4"), "files", state=tmp_path, clock=CLOCK, front=front, lifetime_s=-60) as calling,
        pytest.raises(AccessError) as refused,
    ):
        calling.prepare(node, sys.executable)
    assert "Permission denied" in refused.value.tried[0]


CRASHING = """
import sys, time
from pathlib import Path
from serai.access.home_calling import Front, HomeCalling
from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
run, state, config, control, port, authorized, key = sys.argv[1:]
connection = Connection(Target("lab", config=config), control_dir=Path(control), clock=SystemClock(), interactive=False)
connection.open()
front = Front(port=int(port), authorized_keys=Path(authorized), host_keys=(Path(key).read_text(),))
calling = HomeCalling(run, "files", state=Path(state), clock=SystemClock(), front=front)
calling.open()
calling.prepare(connection, sys.executable)
print("ready", flush=True)
time.sleep(60)
"""


def test_after_a_crash_the_next_start_sweeps(
    front: Front, home: Sshd, lab: Sshd, node: Connection, tmp_path: Path, control_dir: Path
) -> None:
    crashed, line = named("crashed"), f"serai-home-{named('crashed')}".encode()
    words = [sys.executable, "-c", CRASHING, crashed, str(tmp_path), str(lab.config), str(control_dir)]
    process = subprocess.Popen(
        [*words, str(home.port), str(home.authorized), f"{home.host_key}.pub"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(serai.__file__))},
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n"
        with HomeCalling(named("other"), "files", state=tmp_path, clock=CLOCK, front=front):
            assert line in home.authorized.read_bytes(), "it lives"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert line in home.authorized.read_bytes()
    assert rooms("crashed")
    with HomeCalling(named("next"), "files", state=tmp_path, clock=CLOCK, front=front) as calling:
        assert line not in home.authorized.read_bytes()
        calling.prepare(node, sys.executable)
        assert not rooms("crashed")
        assert len(rooms("next")) == 1
    assert not rooms("next")


def test_a_node_that_is_lost_holds_nothing_up(
    front: Front, node: Connection, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    with HomeCalling(named("r5"), "files", state=tmp_path, clock=CLOCK, front=front) as calling:
        calling.prepare(node, sys.executable)
        node.close()
        again = connect()
        again.open()
        calling.prepare(again, sys.executable)
        assert len(rooms("r5")) == 1, "what the lost connection made is gone"
        began = time.monotonic()
    assert time.monotonic() - began < 15  # 3 s for a node to remove what it has, and 20 s for one that is there


# ---- the file


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMldpmaYRmQVZPFXnUCt93wWlHwbFyyM0i7Yy3tyITr1 someone"


@given(st.binary(max_size=200), st.sampled_from(list(Mode)), st.booleans())
def test_a_line_comes_and_goes(content: bytes, mode: Mode, by_loopback: bool) -> None:
    line = line_for(KEY, "run-1", mode, expires=2e9, by_loopback=by_loopback)
    whole = content if not content or content.endswith(b"\n") else content + b"\n"
    added = with_line(content, line)
    assert without_lines(added, "run-1", 1e9) == without_lines(whole, "run-1", 1e9)
    assert without_lines(added, "another", 1e9).endswith(line.encode() + b"\n")
    assert without_lines(added, "another", 2.1e9) == without_lines(whole, "another", 2.1e9)


def test_the_lines_of_others_stay(tmp_path: Path) -> None:
    theirs = b'# mine\r\ncommand="x serai-home-r" ssh-rsa AAAA me\nssh-rsa AAAA serai-home-other'
    path = tmp_path / "keys"
    path.write_bytes(theirs)
    link = tmp_path / "link"
    link.symlink_to(path)
    AuthorizedKeys(link, tmp_path / "state").change(lambda text: without_lines(text, "r", 0.0))
    assert path.read_bytes() == theirs
    AuthorizedKeys(link, tmp_path / "state").change(lambda text: text + b"\n")
    assert link.is_symlink()
    assert path.read_bytes() == theirs + b"\n"


def test_many_change_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "ssh/authorized_keys"

    def come_and_go(number: int) -> None:
        file = AuthorizedKeys(path, tmp_path / "state")
        line = line_for(KEY, f"r{number}", Mode.FILES, expires=2e9, by_loopback=True)
        file.change(lambda text: with_line(text, line))
        if number % 2:
            file.change(lambda text: without_lines(text, f"r{number}", 1e9))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come_and_go, range(24)))
    left = {line.rpartition("-")[2] for line in path.read_text().splitlines()}
    assert left == {f"r{number}" for number in range(0, 24, 2)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["authorized_keys"]


@pytest.mark.parametrize("said", ["", "serai-home-made /etc /bin", "serai-home-made /tmp/serai-home-x/../.. /bin"])
def test_a_directory_that_is_none_of_ours_is_refused(said: str) -> None:
    with pytest.raises(AccessError):
        read_made(said, "lab")


@pytest.mark.parametrize("run", ["", "a b", "x\ny", "../x", "-x"])
def test_what_is_no_run_is_refused(run: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        HomeCalling(run, "files", state=tmp_path, clock=CLOCK)
    with pytest.raises(UsageError):
        HomeCalling("run", run, state=tmp_path, clock=CLOCK)
    with pytest.raises(UsageError):
        Front(address=run)
