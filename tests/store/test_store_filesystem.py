"""``store://`` against a real appliance: fsspec's own suites."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.tests import abstract

from serai.access.filesystems.store import StoreFileSystem

if TYPE_CHECKING:
    from tests.store.conftest import Store

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
