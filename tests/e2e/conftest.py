"""Laboratories to break, the front end as a process that can be killed, and what must be true after every test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.describe.task import State
from serai.testing.lab.fixtures import lab_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.testing.lab import Host, Lab
    from serai.testing.lab.fixtures import LabFactory

__all__ = ["lab_factory"]

# A task that begins with this waits on its host for as long as the host is held.
HELD = "/var/tmp/hold"
HOLD = f"while test -e {HELD}; do sleep 0.05; done; "
FRONT = Path(__file__).with_name("front.py")
# A host that is only slow, because this machine has much to do, is not to be given up; see `Front.notices_soon`.
TIMING = {"beat_s": 0.3, "silence_s": 20.0, "check_in_s": 40.0}
PATIENCE = {"first_s": 0.3, "most_s": 1.0, "tries": 4}
# Caches stay. Whatever an agent starts has its arguments or its directory; sshd's own processes are not counted.
LEFT = (
    "ls -d /tmp/serai-* 2>/dev/null | grep -v -e '-cache$';"
    " ps -eo user=,args= | grep -v -e '^root ' -e sshd -e 'ps -eo' || true"
)


def until(condition: Callable[[], Any], what: str, within_s: float = 40.0) -> Any:
    """Wait for a condition; fail when it does not come true in time."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return found


def left_on(host: Host) -> list[str]:
    """Processes of the host's user and scratch directories that are there now."""
    return host.run(["sh", "-c", LEFT]).stdout.split("\n")[:-1]


def nothing_left(hosts: Sequence[Host], within_s: float = 30.0) -> None:
    """Fail unless hosts that are up are soon as if nobody had ever been there."""
    found: dict[str, list[str]] = {}

    def clean() -> bool:
        found.clear()
        found.update({host.name: left for host in hosts if host.is_up and (left := left_on(host))})
        return not found

    end = time.monotonic() + within_s
    while not clean():
        assert time.monotonic() < end, f"left behind: {found}"
        time.sleep(0.05)


class Front:
    """`serai` commands run in a directory of their own.

    Attributes:
        home: the directory.
        lab: the laboratory.
        timing, patience: of runs that are started from now on.
        way_home: how nodes reach this machine, as of `serai.access.home_calling.Front`.
        remains: hosts on which a directory may be left, because nobody was there to remove it.
    """

    until = staticmethod(until)
    nothing_left = staticmethod(nothing_left)

    def __init__(self, home: Path, lab: Lab) -> None:
        self.home = home
        self.lab = lab
        self.timing = dict(TIMING)
        self.patience: dict[str, float] = dict(PATIENCE)
        self.remains: set[str] = set()
        self.way_home: dict[str, Any] | None = None
        self._started: list[subprocess.Popen[str]] = []

    def notices_soon(self) -> None:
        """Give hosts up that are silent for a moment: for tests that wait for that."""
        self.timing |= {"silence_s": 3.0, "check_in_s": 15.0}

    def on(self, *names: str, slots: int = 4, config: Path | None = None) -> list[str]:
        """The words that name hosts; all of them when none is named."""
        names = names or tuple(host.name for host in self.lab.hosts)
        query = f"?slots={slots}&ssh_config={config or self.lab.ssh_config}"
        return [word for name in names for word in ("--on", f"ssh://{name}{query}")]

    def environment(self) -> dict[str, str]:
        times = json.dumps({"timing": self.timing, "patience": self.patience, "front": self.way_home})
        here = str(Path(serai.__file__).parents[1])  # the same as is tested, wherever the command is started
        own = {"SERAI_TEST_TIMES": times, "SERAI_STATE": str(self.home / ".state"), "PYTHONPATH": here}
        return {**os.environ, **own}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command; its output is read by whoever waits for it."""
        process = subprocess.Popen(
            [sys.executable, str(FRONT), *words],
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *words: str, within_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.finish(self.start(*words), within_s)

    @staticmethod
    def finish(process: subprocess.Popen[str], within_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Wait for the end of a command."""
        out, err = process.communicate(timeout=within_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def hold(self, *names: str) -> None:
        """Let tasks that begin with `HOLD` go no further on some hosts, or on all."""
        for name in names or [host.name for host in self.lab.hosts]:
            self.lab.host(name).run(["touch", HELD], check=True)

    def let_go(self, *names: str) -> None:
        """Let them go on, on some hosts, or on every one that is up."""
        for host in self.lab.hosts:
            if host.is_up and (not names or host.name in names):
                host.run(["rm", "-f", HELD], check=True)

    @contextlib.contextmanager
    def together(self, *names: str) -> Iterator[None]:
        """Hold what is started until all of some hosts are up, so that each has its part of a short run."""
        names = names or tuple(host.name for host in self.lab.hosts)
        self.hold(*names)
        yield
        self.until(lambda: set(names) <= self.up(), "all are up")
        self.let_go()

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    # ---- the journal, read as anyone may

    def directory(self) -> Path | None:
        """The only run's directory, once it is there."""
        found = list((self.home / ".state").glob("runs/*/journal.db"))
        assert len(found) < 2
        return found[0].parent if found else None

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        directory = self.directory()
        if directory is None:
            return []
        with contextlib.closing(sqlite3.connect(f"file:{directory}/journal.db?mode=ro", uri=True, timeout=10)) as db:
            try:
                return db.execute(sql).fetchall()
            except sqlite3.OperationalError:  # the table is about to be made
                return []

    def done(self) -> set[int]:
        """Tasks that the journal knows to be done."""
        return {row[0] for row in self.query(f"SELECT task FROM result WHERE state = {int(State.DONE)}")}  # noqa: S608

    def up(self) -> set[str]:
        """Hosts whose executor has checked in."""
        return {row[0] for row in self.query("SELECT name FROM node WHERE state = 'up'")}

    def busy_on(self, name: str) -> bool:
        """Whether a host has brought a result."""
        return bool(self.query(f"SELECT 1 FROM result WHERE node = '{name}' LIMIT 1"))  # noqa: S608 - our own names


@pytest.fixture(scope="session")
def trio(lab_factory: LabFactory) -> Lab:
    """Three hosts; a test leaves them as it found them."""
    return lab_factory(3)


@pytest.fixture
def front(trio: Lab, tmp_path: Path) -> Iterator[Front]:
    """A front end whose pool is the three hosts. After the test nothing is left on any of them."""
    one = Front(tmp_path, trio)
    yield one
    one.end()
    for host in trio.hosts:
        if not host.is_up:
            host.start()
        host.resume()
        host.mend()
        host.slow(None)
    for name in one.remains:
        trio.host(name).run(["sh", "-c", "rm -rf /tmp/serai-*"])
    try:
        nothing_left(trio.hosts)
    finally:
        for host in trio.hosts:
            host.run(["sh", "-c", "rm -rf /var/tmp/* /tmp/serai-*"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory of this machine with room for a megabyte."""
    at = tmp_path / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(at)], check=True)
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)
