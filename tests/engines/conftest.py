"""What tests of engines share."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.ports import unused_port

from serai.testing.lab.fixtures import lab, lab_factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["lab", "lab_factory"]

WORKERS = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}


def lives(address: str) -> bool:
    """Whether a worker listens: a scheduler may not have noticed yet that it was killed."""
    host, _, port = address.partition("://")[2].rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=10):
        return True
    return False


def await_workers(cluster: Any, count: int = 2, within_s: float = 150.0) -> None:
    """Wait until workers that tests have ended are there again: by their nannies, or else as new ones.

    On a busy machine a nanny may be as long as its cluster lives about it.
    """
    end = time.monotonic() + within_s
    anew = time.monotonic() + 40.0
    while len(cluster.scheduler.workers) < count or not all(map(lives, list(cluster.scheduler.workers))):
        assert time.monotonic() < end, f"no {count} workers within {within_s:g} s"
        if time.monotonic() > anew:
            anew = end
            cluster.scale(0)
            cluster.scale(count)
        time.sleep(0.05)


@pytest.fixture
def free_port() -> int:
    """A port of this machine where nothing listens."""
    return unused_port()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Dask cluster of two processes with a thread each."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(**WORKERS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate that it signed, and another authority."""
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
    """The same over TLS."""
    distributed = pytest.importorskip("distributed")
    files = {"cert": str(certificates / "cert.pem"), "key": str(certificates / "key.pem")}
    roles = {f"tls_{role}_{kind}": path for role in ("client", "scheduler", "worker") for kind, path in files.items()}
    security = distributed.Security(tls_ca_file=str(certificates / "ca.pem"), require_encryption=True, **roles)
    with distributed.LocalCluster(**WORKERS, security=security) as cluster:
        yield cluster
