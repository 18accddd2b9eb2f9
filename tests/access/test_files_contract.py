from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.ssh import SshFileSystem
from serai.testing.files import FilesContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serai.testing.files import Lose
    from tests.access.conftest import Sshd


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
