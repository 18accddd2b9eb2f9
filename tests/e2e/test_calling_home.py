"""Tasks on laboratory hosts use this machine, which their network does not reach, as the host ``home``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.ports import unused_port

import serai
from serai.access.home_calling import Front as WayHome
from serai.apps.frontends.pool import Options
from serai.dispatch.run import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Front

pytestmark = pytest.mark.lab
THEIRS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMldpmaYRmQVZPFXnUCt93wWlHwbFyyM0i7Yy3tyITr1 of somebody"
TASK = "scp -q home:{data} . && tr a-z A-Z < {name} > up-{{n}} && scp -q up-{{n}} $(basename $SERAI_HOME):{out}/"


@pytest.fixture
def sshd(front: Front, tmp_path: Path) -> Iterator[WayHome]:
    """This machine's sshd, with a file of authorized keys that has somebody's in it, and afterwards nothing else."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert program is not None, "the laboratory has one"
    port = unused_port()
    key, keys, log = tmp_path / "host_key", tmp_path / "authorized_keys", tmp_path / "sshd.log"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20)
    keys.write_text(f"{THEIRS}\n")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nAuthorizedKeysFile {keys}\nUsePAM no\n"
        "StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        "LogLevel VERBOSE\nMaxStartups 100\n"
    )
    with log.open("wb") as errors:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=errors)
    front.until(lambda: "Server listening" in log.read_text(), "sshd listens")
    host_keys = (Path(f"{key}.pub").read_text(),)
    front.way_home = {"port": port, "authorized_keys": str(keys), "host_keys": host_keys}
    yield WayHome(port=port, authorized_keys=keys, host_keys=host_keys)
    process.terminate()
    process.wait(10)
    assert keys.read_text() == f"{THEIRS}\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    path = tmp_path / "data.txt"
    path.write_text("hello from home\n")
    return path


def command(data: Path) -> str:
    return TASK.format(data=data, name=data.name, out=data.parent / "out")


@pytest.mark.usefixtures("sshd")
def test_tasks_fetch_and_bring_what_they_like(front: Front, data: Path) -> None:
    words = ["--home-calling", "files", "--each", "1..6"]
    done = front.run("run", command(data), *words, *front.on())
    assert done.returncode == 0, done.stderr
    out = list((data.parent / "out").iterdir())
    assert {path.read_text() for path in out} == {"HELLO FROM HOME\n"}
    assert len(out) == 6


def test_nobody_calls_home_unless_it_was_asked_for(front: Front, sshd: WayHome) -> None:
    done = front.run("run", "ssh -G home; env", "--each", "1..1", *front.on("lab1"))
    assert done.returncode == 0, done.stderr
    assert "SERAI_HOME" not in done.stdout
    assert "serai-home" not in done.stdout
    assert sshd.authorized_keys is not None
    assert sshd.authorized_keys.read_text() == f"{THEIRS}\n"


def test_from_python_with_commands(front: Front, sshd: WayHome, tmp_path: Path) -> None:
    options = Options(settings=Settings(front=sshd), runs=tmp_path / "runs", home_calling="shell")
    config = front.lab.ssh_config
    with serai.Pool(f"ssh://lab1?ssh_config={config}", f"ssh://lab2?ssh_config={config}", options=options) as pool:
        said = [outcome.stdout for outcome in pool.run("ssh home hostname", range(4))]
    assert {text.strip() for text in said} == {socket.gethostname().encode()}


def test_a_front_end_that_is_killed_leaves_a_line_that_the_next_one_sweeps(
    front: Front, sshd: WayHome, data: Path
) -> None:
    assert sshd.authorized_keys is not None
    keys = sshd.authorized_keys
    words = ["run", f"{command(data)} && sleep 0.5", "--home-calling", "files", "--each", "1..15"]
    process = front.start(*words, *front.on(slots=1))
    front.until(lambda: len(front.done()) > 1, "some are done")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert "serai-home-" in keys.read_text()
    done = front.run("resume")
    assert done.returncode == 0, done.stderr
    assert len(list((data.parent / "out").iterdir())) == 15


@pytest.mark.usefixtures("sshd")
def test_a_machine_without_sshd_says_so(front: Front, data: Path) -> None:
    front.way_home = {**(front.way_home or {}), "host_keys": (), "port": 1}
    done = front.run("run", command(data), "--home-calling", "files", "--each", "1..1", *front.on("lab1"))
    if "host keys of this machine's sshd are not known" not in done.stderr:  # it has keys, and nothing listens
        assert "cannot call home" in done.stderr, done.stderr
    assert done.returncode == 3
