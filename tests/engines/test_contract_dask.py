"""The contract of engines, for Dask clusters: plain, over TLS, and where only the scheduler is reached."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.describe.poolfile import SiteSpec, site_from_url
from serai.testing.engines import EngineContract

distributed = pytest.importorskip("distributed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.testing.engines import Kill, OnNode

pytestmark = pytest.mark.dask


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def wait_for_workers(cluster: Any, count: int = 2, within_s: float = 40.0) -> None:
    """After a test that killed one, its nanny starts another."""
    end = time.monotonic() + within_s
    while len(cluster.scheduler.workers) < count:
        assert time.monotonic() < end, f"no {count} workers within {within_s} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


class TestDask(EngineContract):
    @pytest.fixture
    def site(self, cluster: Any) -> SiteSpec:
        wait_for_workers(cluster)
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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate that it signed."""
    room = tmp_path_factory.mktemp("tls")
    new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for words in (
        [*new_key, "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new_key, "-x509", "-subj", "/CN=another", "-days", "2", "-keyout", "other.key", "-out", "other.pem"],
        [*new_key, "-subj", "/CN=cluster", "-keyout", "key.pem", "-out", "csr.pem"],
        ["x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], cwd=room, check=True, capture_output=True, timeout=30)
    return room


@pytest.fixture(scope="module")
def secure_cluster(certificates: Path) -> Iterator[Any]:
    ca, cert, key = (str(certificates / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    roles = {f"tls_{role}_{kind}": path for role in ("client", "scheduler", "worker")
             for kind, path in (("cert", cert), ("key", key))}  # fmt: skip
    security = distributed.Security(tls_ca_file=ca, require_encryption=True, **roles)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, security=security
    ) as cluster:
        yield cluster


class TestDaskOverTls(TestDask):
    @pytest.fixture
    def site(self, secure_cluster: Any, certificates: Path) -> SiteSpec:
        wait_for_workers(secure_cluster)
        files = f"?ca={certificates}/ca.pem&cert={certificates}/cert.pem&key={certificates}/key.pem"
        return site_from_url(secure_cluster.scheduler_address.replace("tls://", "dask+tls://") + files)
