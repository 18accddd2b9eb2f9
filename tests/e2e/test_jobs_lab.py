"""The contract of jobs, on a host of the laboratory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.jobs import JobService, State
from serai.errors import DeadlineExceeded
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


@pytest.fixture
def service(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(lab.ssh_config))
    with JobService(f"ssh://{lab.hosts[1].name}") as service:
        yield service
        service.cancel_jobs(service.list(), grace_s=0)
        service.remove_jobs(service.list())


def test_a_full_disk_costs_no_exit_code(lab: Lab, service: JobService) -> None:
    host = lab.hosts[1]
    host.run(["touch", "/var/tmp/hold"], check=True)
    job = service.run_job("while test -e /var/tmp/hold; do sleep 0.05; done; exit 3")
    host.fill_disk()
    try:
        with pytest.raises(OSError, match="No space left"):
            service.run_job("true")
        host.run(["rm", "/var/tmp/hold"], check=True)
        with pytest.raises(DeadlineExceeded):
            job.wait(1.0)
    finally:
        host.free_disk()
    assert job.wait(60) is State.FAILED
    assert job.exit_code == 3


def test_jobs_of_a_host_that_lost_its_power_have_failed(lab: Lab, service: JobService) -> None:
    host = lab.hosts[1]
    job = service.run_job("sleep 1000")
    host.kill()
    host.start()
    assert service.get_job(job.id).wait(60) is State.FAILED
    assert job.exit_code is None
    assert service.run_job("true").wait(60) is State.DONE


def test_hosts_are_opened_and_asked_at_the_same_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(lab.ssh_config))
    services = [JobService(f"ssh://{host.name}") for host in lab.hosts]

    async def everywhere() -> list[bytes]:
        await asyncio.gather(*(service.open_async() for service in services))
        jobs = await asyncio.gather(*(service.run_job_async("uname -n") for service in services))
        await asyncio.gather(*(job.wait_async(60) for job in jobs))
        return [b"".join(job.read()) for job in jobs]

    assert asyncio.run(everywhere()) == [f"{host.name}\n".encode() for host in lab.hosts]
