"""A PostgreSQL server for tests: Debian's, in a directory of its own, on a unix socket only.

The server refuses to run as root: then it runs as ``nobody``. The fixture is `postgres`; where the programs are missing
a test that asks for it is skipped, and with CI=true, as root, fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from serai.errors import DeadlineExceeded, SeraiError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PACKAGE = "postgresql"  # Debian's and Ubuntu's
START_S = 60.0


def programs() -> Path | None:
    """Where the server's programs are: the newest that Debian installed, else those on the PATH; None for nowhere."""
    found = [
        path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if (path.parent / "postgres").exists()
    ]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    path = shutil.which("initdb")
    return Path(path).parent if path else None


class PostgresServer:
    """A server that ends with the block; `url` is how it is reached.

    Args:
        durable: whether commits wait for the disk.
    """

    def __init__(self, *, durable: bool = False) -> None:
        bin_directory = programs()
        if bin_directory is None:
            raise SeraiError("there is no PostgreSQL on this machine", hint=f"apt-get install {PACKAGE}")
        self._bin = bin_directory
        self._durable = durable
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.directory = Path(tempfile.mkdtemp(prefix="serai-pg-", dir="/tmp"))  # short enough for a socket
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql:///postgres?host={self.directory}&user={self._user}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            if os.geteuid() == 0:
                shutil.chown(self.directory, self._user)
            self._run(
                "initdb", "-D", self._data, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "-N", "-U", self._user
            )
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def start(self) -> None:
        """Start it (again), and wait until it takes connections."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "max_connections": "50"}
        if not self._durable:
            options |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **self._as_user(),
            )  # fmt: skip
        waited_s = 0.0
        while subprocess.run([self._bin / "pg_isready", "-q", "-h", self.directory], check=False).returncode:
            if self._process.poll() is not None:
                raise SeraiError("PostgreSQL ended", hint=(self.directory / "log").read_text(errors="replace")[-2000:])
            if waited_s > START_S:
                raise DeadlineExceeded(f"PostgreSQL took no connection within {START_S:g} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
            waited_s += 0.05

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT at once, SIGINT in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(START_S)

    def sql(self, text: str) -> str:
        """What psql prints for it, bare."""
        words = ["psql", "-h", str(self.directory), "-U", self._user, "-d", "postgres", "-Atqc", text]
        return self._run(*words)

    def _run(self, name: str, *words: str) -> str:
        done = subprocess.run(
            [self._bin / name, *words], capture_output=True, text=True, timeout=START_S, check=False, cwd="/",
            **self._as_user(),
        )  # fmt: skip
        if done.returncode:
            raise SeraiError(f"{name} ended with {done.returncode}", hint=(done.stderr or done.stdout)[-2000:])
        return str(done.stdout)

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid():
            return {}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def need_postgres() -> None:
    """Skip the test, or with CI=true and as root fail it, where there is no PostgreSQL."""
    if programs() is None:
        fail = os.environ.get("CI") == "true" and os.geteuid() == 0
        (pytest.fail if fail else pytest.skip)(f"there is no PostgreSQL: apt-get install {PACKAGE}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole session of tests."""
    need_postgres()
    with PostgresServer() as server:
        yield server
