"""fsspec's own suites of a file system, for each of Serai's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.tests import abstract

from serai.access import connections, porter
from serai.access.filesystems.anywhere import AnyFileSystem
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.ssh import SshFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.access.conftest import Sshd


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    porter.close_all()
    connections.close_all()


class Suites(
    abstract.AbstractFixtures,
    abstract.AbstractCopyTests,
    abstract.AbstractGetTests,
    abstract.AbstractOpenTests,
    abstract.AbstractPipeTests,
    abstract.AbstractPutTests,
):
    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        there = tmp_path / "there"
        there.mkdir()
        return os.fspath(there)


class TestLocal(Suites):
    @pytest.fixture
    def fs(self) -> LocalFiles:
        return LocalFiles(auto_mkdir=True)


class TestSsh(Suites):
    @pytest.fixture
    def fs(self, lab: Sshd) -> Any:
        return SshFileSystem("lab", ssh_config=str(lab.config), auto_mkdir=True)


class TestAny(Suites):
    @pytest.fixture
    def fs(self, lab: Sshd) -> Any:
        return AnyFileSystem("lab", ssh_config=str(lab.config), auto_mkdir=True)
