"""A real sshd on loopback, and hosts of a laboratory that may reach each other."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.data.copying import opening, ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory


def _ssh_parts() -> Any:
    """What the tests of connections have: a conftest cannot be imported by its name."""
    path = Path(__file__).parents[1] / "access/conftest.py"
    spec = importlib.util.spec_from_file_location("access_parts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["access_parts"] = module
    spec.loader.exec_module(module)
    return module


def forget_hosts() -> None:
    """Let go of every host."""
    opening._hosts.clear()
    ways._pairs.clear()
    porter.close_all()
    connections.close_all()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server called ``lab``, as the current user, with this machine's files."""
    parts = _ssh_parts()
    parts._need_sshd()
    server = parts.Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    forget_hosts()
    server.stop()


@pytest.fixture
def start_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Starts a server called ``lab`` with further lines in its sshd_config; hosts are forgotten before and after."""
    parts = _ssh_parts()
    parts._need_sshd()
    made: list[Any] = []

    def start(extra: str) -> Any:
        made.append(parts.Sshd(tmp_path_factory.mktemp("sshd"), extra=extra))
        return made[-1]

    yield start
    forget_hosts()
    for one in made:
        one.stop()


@pytest.fixture
def ssh(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the server's root."""
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
    return "ssh://lab"


@pytest.fixture(scope="module")
def hosts(lab_factory: LabFactory) -> Iterator[Lab]:
    """Three hosts: the first one's user may log in to the second, and no other one anywhere."""
    with lab_factory(3, prefix="node", disk_bytes=256 << 20) as lab:
        one, two, _ = lab.hosts
        one.run(
            ["sh", "-c", "cd; umask 77; mkdir -p .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519"], user="user"
        )
        key = one.run(["cat", "/home/user/.ssh/id_ed25519.pub"], user="user").stdout
        two.run(["sh", "-c", "cat >> /home/user/.ssh/authorized_keys"], user="user", input_text=key)
        known = (lab.directory / "known_hosts").read_text()
        one.run(["sh", "-c", "cat > /home/user/.ssh/known_hosts"], user="user", input_text=known)
        before = os.environ.get("SERAI_SSH_CONFIG")
        os.environ["SERAI_SSH_CONFIG"] = str(lab.ssh_config)
        yield lab
        forget_hosts()
        if before is None:
            del os.environ["SERAI_SSH_CONFIG"]
        else:
            os.environ["SERAI_SSH_CONFIG"] = before
