"""Real sshds on free ports of 127.0.0.1, as the current user, with keys and configs of their own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.ports import unused_port

from serai.access.openssh import Connection, Target
from serai.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
USER = getpass.getuser()


class Sshd:
    """A server, its client's key and its client's ssh_config with one host, ``lab``."""

    def __init__(self, room: Path, name: str = "lab", extra: str = "") -> None:
        assert _SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists when it starts as root
        self.room, self.name, self.port = room, name, self.free_port()
        room.mkdir(parents=True, exist_ok=True)
        self.host_key = self.new_key(room / "host_key")
        self.key = self.new_key(room / "id")
        self.log = room / "sshd.log"
        self.authorized = room / "authorized_keys"
        shutil.copy(f"{self.key}.pub", self.authorized)
        self.known_hosts = room / "known_hosts"
        kind, blob = Path(f"{self.host_key}.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {blob}\n")
        self.config = room / "config"
        self.config.write_text(self.host(name))
        conf = room / "sshd_config"
        conf.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.authorized}\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n{extra}"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [_SSHD, "-D", "-e", "-f", str(conf)], stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        self.until(
            lambda: "Server listening" in self.log.read_text() or self.process.poll() is not None, "sshd listens"
        )
        assert self.process.poll() is None, self.log.read_text()

    @staticmethod
    def until(condition: Callable[[], object], what: str, deadline_s: float = 40.0) -> None:
        """Wait for a condition; fail when it does not come true in time."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
            time.sleep(0.01)

    @staticmethod
    def free_port() -> int:
        return unused_port()

    @staticmethod
    def new_key(path: Path, passphrase: str = "") -> Path:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", str(path)]
        subprocess.run(words, check=True)
        return path

    def host(self, name: str, extra: str = "") -> str:
        """A Host block of ssh_config."""
        return (
            f"Host {name}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {USER}\n  IdentityFile {self.key}\n"
            f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {self.known_hosts}\n{extra}"
        )

    def config_with(self, extra: str, change: tuple[object, object] = ("", "")) -> str:
        """Another config for the same host, with further settings (two blanks before each) or a part replaced."""
        path = self.room / f"config-{len(list(self.room.glob('config-*')))}"
        old, new = map(str, change)
        text = self.host(self.name, extra)
        path.write_text(text.replace(old, new) if old else text)
        return str(path)

    def connections(self) -> int:
        """How many TCP connections it has taken so far."""
        return self.log.read_text().count("Connection from ")

    def last(self) -> str:
        """The client's port of the connection that it took last; see `has_ended`."""
        return self.log.read_text().rpartition("Connection from 127.0.0.1 port ")[2].split()[0]

    def has_begun(self, port: str) -> bool:
        """Whether a command was started over that connection."""
        return f"Starting session: command for {USER} from 127.0.0.1 port {port} " in self.log.read_text()

    def has_ended(self, port: str) -> bool:
        """Whether that connection has ended; others of earlier tests may end later than they do."""
        return f"Disconnected from user {USER} 127.0.0.1 port {port}\n" in self.log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)


def _need_sshd() -> None:
    if _SSHD is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no sshd: install openssh-server")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    _need_sshd()
    server = Sshd(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def start_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Sshd]]:
    """Starts servers with further lines in their sshd_config."""
    _need_sshd()
    made: list[Sshd] = []

    def start(extra: str) -> Sshd:
        made.append(Sshd(tmp_path_factory.mktemp("sshd"), extra=extra))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def control_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))  # short: pytest's own are too long for a socket
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def connect(lab: Sshd, control_dir: Path) -> Iterator[Callable[..., Connection]]:
    """Makes connections, by default to ``lab``, that nobody is asked for, and closes them at the end."""
    made: list[Connection] = []

    def make(host: str = "lab", *, config: str | None = None, deadline_s: float = 20.0) -> Connection:
        made.append(
            Connection(
                Target(host, config=config or str(lab.config)),
                control_dir=control_dir,
                clock=SystemClock(),
                connect_deadline_s=deadline_s,
                interactive=False,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Another server, that is strict: one session at a time, two keys, one cipher."""
    _need_sshd()
    server = Sshd(
        tmp_path_factory.mktemp("second"), extra="MaxSessions 1\nMaxAuthTries 2\nCiphers aes256-gcm@openssh.com\n"
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def files_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that lets a login have its files and nothing else."""
    _need_sshd()
    extra = "Subsystem sftp internal-sftp\nForceCommand internal-sftp\n"
    server = Sshd(tmp_path_factory.mktemp("files-only"), extra=extra)
    yield server
    server.stop()


@pytest.fixture
def with_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that has the subsystem that most have."""
    _need_sshd()
    server = Sshd(tmp_path_factory.mktemp("with-sftp"), extra="Subsystem sftp internal-sftp\n")
    yield server
    server.stop()
