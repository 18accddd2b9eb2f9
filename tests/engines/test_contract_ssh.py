"""The contract of engines, for hosts over ssh, in the laboratory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from serai.describe.poolfile import SiteSpec, read_pool_file
from serai.session.url import Url
from serai.testing.engines import EngineContract

if TYPE_CHECKING:
    from serai.testing.engines import OnNode
    from serai.testing.lab import Lab

pytestmark = pytest.mark.lab


class TestSsh(EngineContract):
    @pytest.fixture
    def site(self, lab: Lab) -> SiteSpec:
        return read_pool_file(str(lab.pool_file)).sites[0]

    @pytest.fixture
    def pool_sites(self, lab: Lab) -> tuple[str, ...]:
        return (str(lab.pool_file),)

    @pytest.fixture
    def nowhere(self, site: SiteSpec) -> SiteSpec:
        return replace(site, url=Url.parse("ssh://127.0.0.1:9"))

    @pytest.fixture
    def on_node(self, lab: Lab) -> OnNode:
        return lambda command: lab.hosts[0].run(command).returncode
