"""A session that is entered is what logins use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import serai
from serai.access import connections, porter
from serai.access.files import filesystem_for
from serai.errors import LoginRefused
from serai.session.context import current_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.access.conftest import Sshd


@pytest.fixture
def keyless(lab: Sshd) -> Iterator[str]:
    """An ssh_config that names no key."""
    yield lab.config_with("", (f"  IdentityFile {lab.key}\n", "  IdentityFile none\n"))
    porter.close_all()
    connections.close_all()


def test_jobs_and_files_log_in_with_the_context_of_the_session(lab: Sshd, keyless: str) -> None:
    with pytest.raises(LoginRefused):
        serai.JobService("ssh://lab", ssh_config=keyless).open()
    with serai.Session([serai.Context("ssh", key=str(lab.key))]):
        job = serai.JobService("ssh://lab", ssh_config=keyless).run_job("echo here")
        assert job.stdout.read() == b"here\n"
        job.remove()
        filesystem, _ = filesystem_for("ssh://lab/", ssh_config=keyless)
        assert filesystem.exists(str(lab.key))
    with pytest.raises(LoginRefused):
        serai.JobService("ssh://lab", ssh_config=keyless).open()


def test_the_session_entered_last_counts_in_every_thread_and_a_user_must_fit() -> None:
    outer, inner = serai.Context("ssh", key="/a"), serai.Context("ssh", key="/b", user="ann")
    seen: list[object] = []
    with serai.Session([outer]):
        with serai.Session([inner]):
            thread = threading.Thread(target=lambda: seen.append(current_context("ssh")))
            thread.start()
            thread.join(10)
            assert current_context("ssh", "bob") is None
            assert current_context("ssh", "ann") == inner
        assert current_context("ssh") == outer
    assert seen == [inner]
    assert current_context("ssh") is None
