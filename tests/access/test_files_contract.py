from __future__ import annotations

import dataclasses
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.access.filesystems.anywhere import AnyFileSystem
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.ssh import SshFileSystem
from serai.testing.files import FilesContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.access.conftest import Sshd

    from serai.testing.files import Lose


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    porter.close_all()
    connections.close_all()


class TestLocalFiles(FilesContract):
    @pytest.fixture
    def fs(self) -> LocalFiles:
        return LocalFiles()

    @pytest.fixture
    def room(self, tmp_path: Path) -> str:
        return os.fspath(tmp_path)


class TestSshFiles(TestLocalFiles):
    @pytest.fixture
    def fs(self, lab: Sshd) -> Any:
        return SshFileSystem("lab", ssh_config=str(lab.config))

    @pytest.fixture
    def lose(self, fs: SshFileSystem) -> Lose:
        return lambda: os.kill(fs.far.call("who", {})[0]["pid"], signal.SIGKILL)


class TestAnyFilesThatAreHere(TestLocalFiles):
    @pytest.fixture
    def fs(self, lab: Sshd) -> Any:
        fs = AnyFileSystem("lab", ssh_config=str(lab.config))
        fs.chooser.forget()
        return fs

    def test_it_is_found_that_they_are(self, fs: AnyFileSystem, room: str) -> None:
        chosen = fs.decide(room).chosen
        assert chosen is not None
        assert chosen.url == f"local:{room}"


class TestAnyFilesOfAnotherHost(TestAnyFilesThatAreHere):
    @pytest.fixture
    def fs(self, lab: Sshd, monkeypatch: pytest.MonkeyPatch) -> Any:
        facts = dataclasses.replace(LocalFiles().host_facts(), host="elsewhere", boot="another")
        monkeypatch.setattr(LocalFiles, "host_facts", lambda _: facts)
        fs = AnyFileSystem("lab", ssh_config=str(lab.config))
        fs.chooser.forget()
        return fs

    @pytest.fixture
    def lose(self, lab: Sshd) -> Lose:
        ssh = SshFileSystem("lab", ssh_config=str(lab.config))
        return lambda: os.kill(ssh.far.call("who", {})[0]["pid"], signal.SIGKILL)

    def test_it_is_found_that_they_are(self, fs: AnyFileSystem, room: str) -> None:
        decision = fs.decide(room)
        assert decision.chosen is not None
        assert decision.chosen.url == f"ssh://lab{room}"
        assert decision.chosen.outcome == "chosen"
