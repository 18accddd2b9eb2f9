from __future__ import annotations

import dataclasses
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.access.filesystems import sftp, sftp_session
from serai.access.filesystems.anywhere import AnyFileSystem
from serai.access.filesystems.far import PorterFiles
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
    sftp_session.close_all()
    porter.close_all()
    connections.close_all()


def kill_porter(fs: SshFileSystem) -> None:
    assert isinstance(fs.far, PorterFiles)
    os.kill(fs.far.call("who", {})[0]["pid"], signal.SIGKILL)


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
        return lambda: kill_porter(fs)


class TestAnyFilesOfAnotherHost(TestLocalFiles):
    many = 500

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
        return lambda: kill_porter(ssh)

    def test_the_way_is_the_host_itself(self, fs: AnyFileSystem, room: str) -> None:
        chosen = fs.decide(room).chosen
        assert chosen is not None
        assert chosen.url == f"ssh://lab{room}"


class TestSftpFiles(TestLocalFiles):
    """A login that may have its files only: no porter can run, and SFTP stands in for it."""

    many = 500
    utf8_only = True
    another_version = b"three"

    @pytest.fixture
    def fs(self, files_only: Sshd) -> Any:
        return SshFileSystem("lab", ssh_config=str(files_only.config))

    @pytest.fixture
    def lose(self, fs: SshFileSystem) -> Lose:
        return connections.close_all

    def test_it_is_sftp_indeed(self, fs: SshFileSystem) -> None:
        assert isinstance(fs.far, sftp.SftpFiles)
