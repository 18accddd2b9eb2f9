"""What can be shown without a laboratory."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from serai.errors import DeadlineExceeded, SeraiError, UsageError
from serai.testing.lab import needs, process, ssh_files
from serai.testing.lab.place import Place, sweep
from serai.testing.lab.slow_cable import FRAME_BYTES, HEADER_BYTES, Direction

if TYPE_CHECKING:
    from pathlib import Path


def test_the_ssh_config_is_read_by_ssh_as_it_is_meant(tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    directory = tmp_path / "a 100% lab"
    directory.mkdir()
    path = directory / "ssh_config"
    hosts = [("lab1", "lab1.lab-7", "10.77.0.1"), ("lab2", "lab2.lab-7", "10.77.0.2")]
    path.write_text(ssh_files.ssh_config(hosts, lab_pid=7, directory=directory, user="user"), encoding="utf-8")

    def settings(host: str) -> dict[str, str]:
        said = subprocess.run(["ssh", "-G", "-F", path, host], capture_output=True, text=True, timeout=10, check=True)
        return dict(line.split(" ", 1) for line in said.stdout.splitlines() if " " in line)

    mine = settings("lab2")
    assert (mine["hostname"], mine["user"], mine["port"]) == ("lab2.lab-7", "user", "22")
    assert mine["stricthostkeychecking"] == "true"
    assert "--net=/proc/7/ns/net" in mine["proxycommand"]
    assert mine["proxycommand"].endswith("lab2 10.77.0.2 %p 10")
    assert settings("10.77.0.1")["hostname"] == "lab1.lab-7"
    assert "proxycommand" not in settings("elsewhere")  # the file can be included in a user's own


def test_a_place_is_one_laboratorys_at_a_time(tmp_path: Path) -> None:
    place = Place.claim(tmp_path / "lab")
    with pytest.raises(UsageError, match="another laboratory"):
        Place.claim(tmp_path / "lab")
    place.release()
    place.release()
    assert not (tmp_path / "lab").exists()


def test_a_place_with_a_users_files_is_refused_and_they_are_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    with pytest.raises(UsageError, match="not empty"):
        Place.claim(tmp_path)
    place = Place.claim(tmp_path / "lab")
    place.file("id").touch()
    (tmp_path / "lab" / "thesis").touch()
    place.release()
    assert [path.name for path in (tmp_path / "lab").iterdir()] == ["thesis"]
    assert (tmp_path / "thesis").exists()


def test_a_dead_laboratorys_place_is_swept_and_a_strangers_is_not(tmp_path: Path) -> None:
    dead, made, stranger = (tmp_path / name for name in ("serai-lab-dead", "serai-lab-made", "elsewhere"))
    for path in (dead, made, stranger):
        path.mkdir()
        (path / "id").touch()
    (dead / ".serai-lab").write_text("id\n../elsewhere/id\n", encoding="utf-8")
    assert sweep(tmp_path) == [dead]
    assert not dead.exists()
    assert (made / "id").exists()
    assert (stranger / "id").exists()


def test_a_missing_program_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"sshd", "ssh", "ssh-keygen"}
    monkeypatch.setattr(needs, "program", lambda name: None if name in missing else f"/bin/{name}")
    assert needs.requirements() == ("openssh-client", "openssh-server")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="openssh-client openssh-server"):
        needs.install_requirements()


def test_a_user_is_told_that_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in str(needs.why_not.__wrapped__())


def test_a_command_has_a_deadline_and_a_checked_end() -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
        process.run(["sleep", "60"], timeout_s=0.1)
    with pytest.raises(SeraiError, match="exit code 3") as failed:
        process.run(["sh", "-c", "echo why >&2; exit 3"], timeout_s=10, check=True)
    assert failed.value.hint == "why"
    with pytest.raises(DeadlineExceeded, match="never: not within"):
        process.wait_until(lambda: False, within_s=0.02, what="never")


def test_a_key_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen on this machine")
    with pytest.raises(SeraiError, match="exit code"):
        ssh_files.make_keys([tmp_path / "missing" / "id"], timeout_s=20)


def test_frames_leave_at_the_rate_and_arrive_after_the_delay() -> None:
    source, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with source, near, far, target:
        for end in (source, far):
            end.settimeout(0)
        way = Direction(source, target, rate_bit_s=8000, delay_s=0.5)
        frame = bytes(HEADER_BYTES + 100)  # 0.1 s each
        near.send(frame)
        near.send(frame)
        way.take(10.0)
        assert [round(at, 6) for at, _ in way.on_the_way] == [10.6, 10.7]
        way.deliver(10.65)
        assert far.recv(FRAME_BYTES) == frame
        with pytest.raises(BlockingIOError):
            far.recv(FRAME_BYTES)
        assert way.bytes_on_the_way == len(frame)
