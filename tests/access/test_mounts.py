from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.filesystems import choosing
from serai.access.filesystems.anywhere import AnyFileSystem
from serai.access.filesystems.local import LocalFiles
from serai.access.mounts import mounted
from serai.errors import AccessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.access.conftest import Sshd


@pytest.fixture
def server(with_sftp: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    if shutil.which("sshfs") is None or not os.access("/dev/fuse", os.W_OK):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("sshfs and /dev/fuse are needed")
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(with_sftp.config))
    choosing.forget_all()
    yield with_sftp
    porter.close_all()
    connections.close_all()


def test_a_directory_of_a_host_is_mounted_and_unmounted(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "a, b").write_bytes(b"it")
    with mounted(f"ssh://lab{tmp_path}") as where:
        assert Path(where, "a, b").read_bytes() == b"it"
        Path(where, "new").write_bytes(b"new")
        assert os.path.ismount(where)
        assert server.connections() == 1
    assert not Path(where).exists()
    assert (tmp_path / "new").read_bytes() == b"new"


@pytest.mark.usefixtures("server")
def test_a_mount_may_be_read_only_and_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    source, where = tmp_path / "source", tmp_path / "where"
    source.mkdir()
    where.mkdir()

    def fail() -> None:
        with mounted(f"ssh://lab{source}", str(where), read_only=True), open(where / "x", "wb"):
            pass

    with pytest.raises(OSError, match="Read-only"):
        fail()
    assert not os.path.ismount(where)


@pytest.mark.usefixtures("server")
def test_what_cannot_be_mounted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccessError, match="No such file"), mounted(f"ssh://lab{tmp_path}/no"):
        pass
    with pytest.raises(UsageError, match="not of a host"), mounted("s3://bucket"):
        pass
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AccessError, match="no sshfs") as caught, mounted(f"ssh://lab{tmp_path}"):
        pass
    assert "apt install sshfs" in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_mount_of_the_host_is_nearer_than_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted of it is used once it was seen to hold the same files, and left when it is gone."""
    own = LocalFiles.host_facts

    def elsewhere(self: LocalFiles) -> object:
        return dataclasses.replace(own(self), host="elsewhere", boot="another")

    monkeypatch.setattr(LocalFiles, "host_facts", elsewhere)
    (tmp_path / "x").write_bytes(b"it")
    fs = AnyFileSystem("lab")
    with mounted(f"ssh://lab{tmp_path}") as where:
        decision = fs.decide(f"{tmp_path}/x")
        assert [(one.url, one.outcome) for one in decision.candidates] == [
            (f"local:{where}/x", "chosen"),
            (f"ssh://lab{tmp_path}/x", "not needed"),
        ]
        assert fs.ls(str(tmp_path), detail=False) == [f"{tmp_path}/x"]
        assert fs.cat_file(f"{tmp_path}/x") == b"it"
        fs.pipe_file(f"{tmp_path}/y", b"new")
    assert (tmp_path / "y").read_bytes() == b"new"
    assert fs.cat_file(f"{tmp_path}/x") == b"it"
    chosen = fs.decide(f"{tmp_path}/x").chosen
    assert chosen is not None
    assert chosen.url == f"ssh://lab{tmp_path}/x"
