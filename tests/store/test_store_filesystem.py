"""``store://`` against a real appliance: fsspec's own suites."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.tests import abstract

from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores import wire
from serai.testing.files import FilesContract

if TYPE_CHECKING:
    from tests.store.conftest import Store

    from serai.testing.files import Lose

_count = itertools.count()


class TestSuites(
    abstract.AbstractFixtures,
    abstract.AbstractCopyTests,
    abstract.AbstractGetTests,
    abstract.AbstractOpenTests,
    abstract.AbstractPipeTests,
    abstract.AbstractPutTests,
):
    @pytest.fixture
    def fs(self, store: Store) -> Any:
        return StoreFileSystem(store.host, store.port, auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, fs: Any) -> str:
        path = f"/there{next(_count)}"
        fs.mkdir(path)
        return path


class TestContract(FilesContract):
    many = 500

    @pytest.fixture
    def fs(self, store: Store) -> Any:
        return StoreFileSystem(store.host, store.port)

    @pytest.fixture
    def room(self, fs: Any) -> str:
        path = f"/room{next(_count)}"
        fs.mkdir(path)
        return path

    @pytest.fixture
    def lose(self) -> Lose:
        return wire.close_all
