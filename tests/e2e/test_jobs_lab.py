"""The contract of jobs, on a host of the laboratory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.jobs import JobService
from serai.testing.jobs import JobsContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.jobs import Lose, OnHost
    from serai.testing.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    porter.close_all()
    connections.close_all()


class TestLab(JobsContract):
    @pytest.fixture
    def service(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
        monkeypatch.setenv("SERAI_SSH_CONFIG", str(lab.ssh_config))
        with JobService(f"ssh://{lab.hosts[0].name}") as service:
            yield service
            service.cancel_jobs(service.list(), grace_s=0)
            service.remove_jobs(service.list())

    @pytest.fixture
    def on_host(self, lab: Lab) -> OnHost:
        return lab.hosts[0].run

    @pytest.fixture
    def lose(self, lab: Lab) -> tuple[Lose, ...]:
        def end_sessions() -> None:
            lab.hosts[0].run(["pkill", "-KILL", "-f", "^sshd.*: user"], check=True)

        return (end_sessions,)
