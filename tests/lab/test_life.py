"""A laboratory comes up, stands beside others, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.errors import HostUnreachable, UsageError
from serai.testing.lab import Lab, process
from serai.testing.lab.command import lab_up
from serai.testing.lab.place import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.testing.lab.fixtures import LabFactory

    Ssh = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.lab


def _inside(namespace: str) -> list[int]:
    """The processes that are in a network namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str((entry / "ns/net").readlink()) == namespace:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _networks(lab: Lab) -> list[str]:
    hosts = [host.run(["readlink", "/proc/self/ns/net"]).stdout.strip() for host in lab.hosts]
    return [*hosts, lab.run(["readlink", "/proc/self/ns/net"]).stdout.strip()]


def _mounts(room: Path) -> list[str]:
    """What is mounted, without what other tests mount meanwhile: file systems of programs, and in their own rooms."""
    rooms = f"{room.parents[1]}/"  # of all workers
    found = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        " ".join(words)
        for words in found
        if not words[2].startswith("fuse") and (words[1].startswith(str(room)) or not words[1].startswith(rooms))
    ]


def test_nothing_is_left_when_a_laboratory_is_taken_down(lab_factory: LabFactory, tmp_path: Path) -> None:
    mounts, links = _mounts(tmp_path), sorted(os.listdir("/sys/class/net"))
    lab = lab_factory(2, directory=tmp_path / "lab")
    lab.hosts[0].slow(delay_ms=1)
    networks = _networks(lab)
    assert len(set(networks)) == 3
    assert all(_inside(network) for network in networks)
    assert _mounts(tmp_path) == mounts
    assert sorted(os.listdir("/sys/class/net")) == links
    lab.down()
    lab.down()  # twice is harmless
    assert not any(_inside(network) for network in networks)
    assert not (tmp_path / "lab").exists()
    assert _mounts(tmp_path) == mounts


def test_two_laboratories_have_the_same_addresses_and_do_not_meet(lab: Lab, lab_factory: LabFactory, ssh: Ssh) -> None:
    with lab_factory(1) as other:
        assert other.hosts[0].address == lab.hosts[0].address
        for one, mark in ((lab, "first"), (other, "second")):
            assert ssh(one, "lab1", f"echo {mark} >mark").returncode == 0
        assert [ssh(one, "lab1", "cat mark").stdout for one in (lab, other)] == ["first\n", "second\n"]
        # With strict host keys, ssh would refuse a host of the other laboratory.
        assert set(_networks(lab)).isdisjoint(_networks(other))
    assert ssh(lab, "lab1", "rm mark").returncode == 0


def test_shared_connections_of_two_laboratories_are_kept_apart(lab: Lab, lab_factory: LabFactory) -> None:
    with lab_factory(1) as other:
        names = [
            subprocess.run(
                ["ssh", "-G", "-F", str(one.ssh_config), "-o", "ControlPath=/tmp/%C", "lab1"],
                capture_output=True,
                text=True,
                timeout=40,
                check=True,
            ).stdout.partition("controlpath ")[2]
            for one in (lab, other)
        ]
    assert names[0].split()[0] != names[1].split()[0]


MAKER = """
import sys, time
from serai.testing.lab import Lab
lab = Lab.up(2)
print(lab.directory, *[l.run(["readlink", "/proc/self/ns/net"]).stdout.strip() for l in (lab, *lab.hosts)], flush=True)
time.sleep(600)
"""


@pytest.fixture
def of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary ones, short enough for sockets: elsewhere every laboratory that starts sweeps up."""
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as path:
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


def test_a_laboratory_dies_with_its_maker_and_the_next_sweeps_up(lab_factory: LabFactory, of_its_own: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        directory, *networks = maker.stdout.readline().split()
        assert len(networks) == 3
        assert Path(directory).parent == of_its_own
        assert Path(directory) not in sweep(Path(directory).parent)
        maker.send_signal(signal.SIGKILL)
    process.wait_until(lambda: not any(map(_inside, networks)), within_s=40, what="the end of every process")
    assert Path(directory, "ssh_config").exists()
    lab_factory(1).down()
    assert not Path(directory).exists()


def test_a_host_that_does_not_start_is_an_error_with_its_log(lab_factory: LabFactory, tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    (tmp_path / "root/etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        (tmp_path / "root/etc" / name).touch()
    with pytest.raises(HostUnreachable, match="ended while it started") as failed:
        lab_factory(1, directory=directory, root=tmp_path / "root")
    assert failed.value.host == "lab1"
    assert failed.value.hint is not None
    assert "No such file" in failed.value.hint or "not found" in failed.value.hint
    assert not directory.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "1 to 250"),
        ({"count": 1, "prefix": "a b"}, "prefix"),
        ({"count": 1, "disk_bytes": 1}, "disk"),
        ({"count": 1, "disk_bytes": {"lab2": 1 << 30}}, "no such host: lab2"),
        ({"count": 1, "pythons": {"lab1": "/nowhere"}}, "no bin/python3"),
    ],
)
def test_a_wrong_request_starts_nothing(lab_factory: LabFactory, options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lab_factory(**options)


def test_sixteen_hosts_are_up_in_seconds(lab_factory: LabFactory) -> None:
    began = time.monotonic()
    with lab_factory(16) as lab:
        took_s = time.monotonic() - began
        assert {host.run(["hostname"]).stdout.strip() for host in lab.hosts} == {f"lab{n}" for n in range(1, 17)}
    assert took_s < 60  # one or two on a machine at rest; a bound that holds on a loaded one


@pytest.mark.usefixtures("lab_factory")
def test_the_command_says_how_to_use_its_laboratory(tmp_path: Path) -> None:
    said: list[str] = []
    directory = tmp_path / "lab"
    seen: list[str] = []

    def look() -> None:
        seen.append((directory / "lab.toml").read_text(encoding="utf-8"))

    lab_up(2, said.append, directory=directory, until=look)
    text = "\n".join(said)
    assert "2 hosts, lab1 to lab2" in text
    assert f"serai run --on {os.path.relpath(directory / 'lab.toml')} " in text
    assert seen[0].count("[[site]]") == 2
    assert 'url = "ssh://lab2"' in seen[0]
    assert f'ssh_config = "{directory}/ssh_config"' in seen[0]
    assert not directory.exists()


COMMAND = """
import sys
from serai.testing.lab.command import lab_up
lab_up(1, lambda line: print(line, flush=True), directory=sys.argv[1])
"""


@pytest.mark.usefixtures("lab_factory")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_takes_its_laboratory_down_when_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "lab"
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory)], stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        while "end:" not in command.stdout.readline():
            assert command.poll() is None
        done = subprocess.run(
            ["ssh", "-F", directory / "ssh_config", "lab1", "hostname"], capture_output=True, timeout=30, check=True
        )
        assert done.stdout == b"lab1\n"
        command.send_signal(number)
        assert command.stdout.read() == "the laboratory is gone\n"
        assert command.wait(60) == 0
    assert not directory.exists()
