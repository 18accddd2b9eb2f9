"""The contract of engines, for this machine."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from serai.describe.poolfile import SiteSpec, site_from_url
from serai.testing.engines import EngineContract

if TYPE_CHECKING:
    from serai.testing.engines import OnNode


class TestLocal(EngineContract):
    @pytest.fixture
    def site(self) -> SiteSpec:
        return site_from_url("local:")

    @pytest.fixture
    def nowhere(self) -> SiteSpec:
        return site_from_url("local:?python=/no/such/python")

    @pytest.fixture
    def on_node(self) -> OnNode:
        return lambda command: subprocess.run(command, capture_output=True, check=False).returncode
