"""Jobs of this machine and of an ssh host, and what is particular to them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.jobs import Description, Job, JobService, State
from serai.access.porter import shared_porter
from serai.errors import AccessError, UsageError
from serai.testing.jobs import END_S, JobsContract, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serai.access.openssh import Target
    from serai.testing.jobs import Lose, OnHost
    from tests.access.conftest import Sshd


def here(command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), capture_output=True, text=True, timeout=END_S, check=False)  # type: ignore[call-overload,no-any-return]


def end_all(service: JobService) -> None:
    service.cancel_jobs(service.list(), grace_s=0)
    service.remove_jobs(service.list())
    porter.close_all()
    connections.close_all()


def kill_porter(target: Target | None) -> None:
    pid = shared_porter(target, "jobs").call("who")[0]["pid"]
    os.kill(pid, signal.SIGKILL)


class TestLocal(JobsContract):
    @pytest.fixture
    def service(self) -> Iterator[JobService]:
        with JobService("local:") as service:
            yield service
            end_all(service)

    @pytest.fixture
    def on_host(self) -> OnHost:
        return here

    @pytest.fixture
    def lose(self) -> tuple[Lose, ...]:
        return (lambda: kill_porter(None),)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, start_sshd: Callable[[str], Sshd]) -> Sshd:
    return start_sshd(f"SetEnv SERAI_STATE={tmp_path_factory.mktemp('far')}\n")


class TestSsh(JobsContract):
    @pytest.fixture
    def service(self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
        monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
        with JobService("ssh://lab") as service:
            yield service
            end_all(service)

    @pytest.fixture
    def on_host(self) -> OnHost:
        return here

    @pytest.fixture
    def lose(self, service: JobService) -> tuple[Lose, ...]:
        target = service._mediator._target  # type: ignore[attr-defined]

        def kill_master() -> None:
            master = connections.shared(target)._master
            assert master is not None
            master.kill()
            master.wait(END_S)

        return kill_master, lambda: kill_porter(target)
