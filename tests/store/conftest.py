"""Appliances as their own processes, started by the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access.stores import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Store:
    """A running appliance, over a directory of its own."""

    def __init__(self, room: Path, config: Path, *words: str) -> None:
        self.room, self.config, self._words = room, config, words
        room.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.lines: list[str] = []
        environment = os.environ | {"SERAI_CONFIG": str(self.config)}
        ad = () if "--adverts" in self._words else ("--no-ad",)
        listen = () if "--listen" in self._words else ("--listen", "127.0.0.1:0")
        words = [sys.executable, "-m", "serai", "store", "serve", str(self.room), *listen, *ad, *self._words]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.strip() == "ready":
                break
        text = "\n".join(self.lines)
        found = re.search(r"store +store://([^:]+):(\d+)/", text)
        assert found, text
        self.host, self.port = found[1], int(found[2])
        self.token_file = Path(text.partition("your token is in ")[2].partition("\n")[0])
        pin = re.search(r"sha256:([0-9a-f]{64})", text)
        self.fingerprint = pin[1] if pin else None
        self._rest = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._rest.start()

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    @property
    def url(self) -> str:
        return f"http{'s' if self.fingerprint else ''}://127.0.0.1:{self.port}"

    def curl(
        self, *words: str, data: bytes | None = None, token: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask by curl: the status, the headers (names in small letters) and the body."""
        head = self.config / f"head-{threading.get_ident()}"
        head.parent.mkdir(exist_ok=True)
        given = ["-H", f"Authorization: Bearer {self.token if token is None else token}"]
        done = subprocess.run(
            ["curl", "-s", "-k", "--path-as-is", "-m", "60", "-D", str(head), *given, *words],
            input=data,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done
        *_, last = [block for block in head.read_text().split("\n\n") if block.strip()]
        status, *lines = last.splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers, done.stdout

    def run(self, *words: str) -> str:
        """One of the commands."""
        environment = os.environ | {"SERAI_CONFIG": str(self.config)}
        words = (sys.executable, "-m", "serai", "store", *words)
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(40)
        self._rest.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def until(condition: Callable[[], Any], what: str, deadline_s: float = 40.0) -> Any:
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    base = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.setenv("SERAI_CONFIG", str(base / "config"))
    one = Store(base / "served", base / "config")
    yield one
    wire.close_all()
    one.stop()
    patch.undo()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """Starts appliances with options of their own."""
    monkeypatch.setenv("SERAI_CONFIG", str(tmp_path / "config"))
    started: list[Store] = []

    def start_one(*words: str, room: str = "served") -> Store:
        started.append(Store(tmp_path / room, tmp_path / "config", *words))
        return started[-1]

    yield start_one
    wire.close_all()
    for one in started:
        one.stop()
