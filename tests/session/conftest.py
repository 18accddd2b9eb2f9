"""Keys, an agent and an environment that belong to one test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.session.finding import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True, mode=0o700)
    return path


@pytest.fixture
def around(home: Path) -> Callable[..., Surroundings]:
    """Surroundings with an environment of variables given, and nothing of this process's but PATH."""

    def make(now: float = NOW, *, ask_instance: bool = False, **environment: str) -> Surroundings:
        path = {"PATH": os.environ["PATH"], "HOME": str(home)}
        return Surroundings(path | environment, str(home), os.getuid(), now, ask_instance)

    return make


@pytest.fixture
def keygen(home: Path) -> Callable[..., Path]:
    """Makes keys in ~/.ssh."""

    def make(name: str = "id_ed25519", *words: str, passphrase: str = "") -> Path:
        path = home / ".ssh" / name
        kind = () if "-t" in words else ("-t", "ed25519")
        subprocess.run(
            ["ssh-keygen", "-q", *kind, "-N", passphrase, "-C", f"comment of {name}", *words, "-f", str(path)],
            check=True,
            timeout=30,
        )
        return path

    return make


@pytest.fixture
def sign(keygen: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a certificate beside a key; times are in UTC."""
    authority = keygen("authority")

    def make(key: Path, *words: str) -> Path:
        subprocess.run(
            ["ssh-keygen", "-q", "-s", str(authority), "-I", "the id", *words, f"{key}.pub"],
            check=True,
            timeout=30,
            env=os.environ | {"TZ": "UTC"},
        )
        return Path(f"{key}-cert.pub")

    return make


class Agent:
    """An ssh-agent with a socket of its own."""

    def __init__(self, room: Path) -> None:
        self.socket = str(room / "a")
        self._room = room
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        end = time.monotonic() + 40
        while not os.path.exists(self.socket):
            assert time.monotonic() < end, "no agent"
            time.sleep(0.01)

    def add(self, key: Path, passphrase: str = "") -> None:
        asked = self._room / "askpass"
        asked.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        asked.chmod(0o700)
        environment = os.environ | {
            "SSH_AUTH_SOCK": self.socket, "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"
        }  # fmt: skip
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment, timeout=30)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(40)


@pytest.fixture
def agent() -> Iterator[Agent]:
    room = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))  # short: pytest's own are too long for a socket
    one = Agent(room)
    yield one
    one.stop()
    shutil.rmtree(room)
