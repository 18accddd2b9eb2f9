"""The contract of engines, for Dask clusters: plain, over TLS, and where only the scheduler is reached."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engines.conftest import await_workers

from serai.describe.poolfile import SiteSpec, site_from_url
from serai.testing.engines import EngineContract

distributed = pytest.importorskip("distributed")

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.testing.engines import Kill, OnNode

pytestmark = pytest.mark.dask


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


class TestDask(EngineContract):
    @pytest.fixture
    def site(self, cluster: Any) -> SiteSpec:
        await_workers(cluster)
        return site_from_url(cluster.scheduler_address.replace("tcp://", "dask://"))

    @pytest.fixture
    def nowhere(self, free_port: int) -> SiteSpec:
        return site_from_url(f"dask://127.0.0.1:{free_port}")

    @pytest.fixture
    def on_node(self) -> OnNode:
        return lambda command: subprocess.run(command, capture_output=True, check=False).returncode

    @pytest.fixture
    def kill(self) -> Kill:
        return lambda ad: os.kill(parent_of(ad["pid"]), signal.SIGKILL)


class TestDaskThroughItsScheduler(TestDask):
    """The front end reaches the scheduler alone."""

    @pytest.fixture(autouse=True)
    def only_the_scheduler(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        connect: Callable[..., Any] = distributed.comm.connect

        async def only(address: str, **options: Any) -> Any:
            if address in cluster.scheduler.workers:
                raise OSError("no route to the worker")
            return await connect(address, **options)

        monkeypatch.setattr("serai.dispatch.engines.dask.connect", only)


class TestDaskOverTls(TestDask):
    @pytest.fixture
    def site(self, secure_cluster: Any, certificates: Path) -> SiteSpec:
        await_workers(secure_cluster)
        files = f"?ca={certificates}/ca.pem&cert={certificates}/cert.pem&key={certificates}/key.pem"
        return site_from_url(secure_cluster.scheduler_address.replace("tls://", "dask+tls://") + files)
