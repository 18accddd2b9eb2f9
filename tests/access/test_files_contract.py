from __future__ import annotations

import dataclasses
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests.access.conftest import Sshd

from serai.access import connections, porter
from serai.access.filesystems.anywhere import AnyFileSystem
from serai.access.filesystems.far import PorterFiles
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.ssh import SshFileSystem
from serai.access.plain import sftp, sftp_session
from serai.errors import AccessError
from serai.testing.files import FilesContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serai.testing.files import Lose


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    sftp_session.close_all()
    porter.close_all()
    connections.close_all()


def kill_porter(fs: SshFileSystem) -> None:
    assert isinstance(fs.far, PorterFiles)
    os.kill(fs.far.call("who", {})[0]["pid"], signal.SIGKILL)


class TestLocalFiles(FilesContract):
    @pytest.fixture
    def fs(self) -> LocalFiles:
        return LocalFiles()

    @pytest.fixture
    def room(self, tmp_path: Path) -> str:
        return os.fspath(tmp_path)


class TestSshFiles(TestLocalFiles):
    @pytest.fixture
    def fs(self, lab: Sshd) -> Any:
        return SshFileSystem("lab", ssh_config=str(lab.config))

    @pytest.fixture
    def lose(self, fs: SshFileSystem) -> Lose:
        return lambda: kill_porter(fs)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "a//b", ".", "", "a/\0b"])
def test_names_from_a_host_that_lead_out_of_their_directory_are_refused(
    lab: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    facts = {"type": "file", "size": 0, "islink": False}
    rows = {**facts, "type": "directory"}, [{**facts, "name": name}]
    monkeypatch.setattr(PorterFiles, "rows", lambda *_, **__: rows)
    fs = SshFileSystem("lab", ssh_config=str(lab.config), listings_expiry_time=None)
    for ask in (fs.ls, fs.find, lambda path: fs.get(path, str(tmp_path / "in"), recursive=True)):
        with pytest.raises(AccessError, match="cannot be in a directory"):
            ask(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


class TestAnyFilesOfAnotherHost(TestLocalFiles):
    many = 500

    @pytest.fixture
    def fs(self, lab: Sshd, monkeypatch: pytest.MonkeyPatch) -> Any:
        facts = dataclasses.replace(LocalFiles().host_facts(), host="elsewhere", boot="another")
        monkeypatch.setattr(LocalFiles, "host_facts", lambda _: facts)
        fs = AnyFileSystem("lab", ssh_config=str(lab.config))
        fs.chooser.forget()
        return fs

    @pytest.fixture
    def lose(self, lab: Sshd) -> Lose:
        ssh = SshFileSystem("lab", ssh_config=str(lab.config))
        return lambda: kill_porter(ssh)

    def test_the_way_is_the_host_itself(self, fs: AnyFileSystem, room: str) -> None:
        chosen = fs.decide(room).chosen
        assert chosen is not None
        assert chosen.url == f"ssh://lab{room}"


class TestSftpFiles(TestLocalFiles):
    """A login that may have its files only: no porter can run, and SFTP stands in for it."""

    many = 500
    utf8_only = True
    another_version = b"three"

    @pytest.fixture
    def fs(self, files_only: Sshd) -> Any:
        return SshFileSystem("lab", ssh_config=str(files_only.config))

    @pytest.fixture
    def lose(self, fs: SshFileSystem) -> Lose:
        return connections.close_all

    def test_it_is_sftp_indeed(self, fs: SshFileSystem) -> None:
        assert isinstance(fs.far, sftp.SftpFiles)

    def test_what_the_disk_does_not_take_is_said_and_put_in_no_place(self, tmp_path: Path) -> None:
        server = tmp_path / "sftp"
        server.write_text("#!/bin/bash\ntrap '' XFSZ\nulimit -f 1000\nexec /usr/lib/openssh/sftp-server\n")
        server.chmod(0o755)
        lab = Sshd(tmp_path / "lab", extra=f"Subsystem sftp {server}\nForceCommand {server}\n")
        try:
            fs = SshFileSystem("lab", ssh_config=str(lab.config))
            fs.pipe_file(f"{tmp_path}/small", b"x" * 1_000_000)
            for data in (b"x" * 1_030_000, b"x" * 1_060_000, b"x" * 3_000_000):
                with pytest.raises(OSError, match="full"):
                    fs.pipe_file(f"{tmp_path}/full", data)
                with pytest.raises(OSError, match="full"):
                    fs.far.write_at(f"{tmp_path}/full", [data])
                os.unlink(tmp_path / "full")
            assert fs.find(str(tmp_path), maxdepth=1) == [f"{tmp_path}/sftp", f"{tmp_path}/small"]
        finally:
            lab.stop()

    def test_what_else_is_asked_between_two_pieces_loses_no_answer(self, fs: SshFileSystem, tmp_path: Path) -> None:
        data = os.urandom(9_000_000)
        with fs.far.writing(f"{tmp_path}/long", "w") as writing:
            for at in range(0, len(data), 1_000_000):
                writing.write(data[at : at + 1_000_000])
                assert fs.exists(str(tmp_path))
        assert (tmp_path / "long").read_bytes() == data

    def test_a_draft_whose_place_was_taken_meanwhile_is_removed(self, fs: SshFileSystem, room: str) -> None:

        def write() -> None:
            with fs.far.writing(f"{room}/file", "x") as writing:
                writing.write(b"ours")
                fs.pipe_file(f"{room}/file", b"theirs")

        with pytest.raises(OSError, match=room):
            write()
        assert fs.ls(room, detail=False, refresh=True) == [f"{room}/file"]
        assert fs.cat_file(f"{room}/file") == b"theirs"
