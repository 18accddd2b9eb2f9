"""One connection per host, whatever goes over it; the user's own is used and left; jumps work; keys are checked."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import HOLD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Front

pytestmark = pytest.mark.lab


def taken(front: Front, name: str) -> int:
    """How many TCP connections a host's port 22 has taken so far."""
    words = front.lab.host(name).run(["cat", "/proc/net/snmp"], check=True).stdout.splitlines()
    names, values = (line.split() for line in words if line.startswith("Tcp:"))
    return int(values[names.index("PassiveOpens")])


def open_now(front: Front, name: str) -> int:
    words = ["ss", "-Htn", "state", "established", "sport", "=", ":22"]
    return len(front.lab.host(name).run(words, check=True).stdout.splitlines())


def test_a_run_makes_one_connection_to_each_host(front: Front) -> None:
    (front.home / "in").write_bytes(bytes(1_000_000))
    before = {host.name: taken(front, host.name) for host in front.lab.hosts}
    with front.together():
        command = f"{HOLD}cp in {{out}}; sleep 0.3"
        process = front.start("run", command, "--each", "1..24", "--out", "o", *front.on(slots=2))
    front.until(lambda: all(front.busy_on(host.name) for host in front.lab.hosts), "all work")
    assert {host.name: open_now(front, host.name) for host in front.lab.hosts} == dict.fromkeys(before, 1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {host.name: taken(front, host.name) - before[host.name] for host in front.lab.hosts} == dict.fromkeys(
        before, 1
    )


def test_the_users_own_connection_is_used_and_left(front: Front, tmp_path_factory: pytest.TempPathFactory) -> None:
    socket = tmp_path_factory.mktemp("c") / "s"
    config = front.home / "ssh_config"
    config.write_text(f"Host lab1\n  ControlPath {socket}\n" + front.lab.ssh_config.read_text())
    ssh = ["ssh", "-F", str(config)]
    subprocess.run(
        [*ssh, "-M", "-N", "-f", "lab1"], check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        before = taken(front, "lab1")
        done = front.run("run", "echo {line}", "--each", "1..8", *front.on("lab1", config=config))
        assert done.returncode == 0, done.stderr
        assert taken(front, "lab1") == before
        assert (
            subprocess.run([*ssh, "-O", "check", "lab1"], check=False, capture_output=True, timeout=60).returncode == 0
        )
    finally:
        subprocess.run([*ssh, "-O", "exit", "lab1"], check=False, capture_output=True, timeout=60)


def test_a_configuration_that_the_environment_names_is_used_where_nothing_nearer_is(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(front.lab.ssh_config))
    done = front.run("run", "hostname", "--each", "1..2", "--on", "ssh://lab1?slots=1")
    assert (done.returncode, done.stdout) == (0, "lab1\nlab1\n"), done.stderr


@pytest.fixture
def jump(front: Front) -> Path:
    """A config by which lab2 and lab3 are reached through lab1 alone."""
    text = front.lab.ssh_config.read_text()
    inner = "".join(
        f"Host {host.name}\n  HostName {host.address}\n  ProxyCommand none\n  ProxyJump lab1\n"
        for host in front.lab.hosts[1:]
    )
    # ProxyJump and ProxyCommand exclude each other, and the first one that is read counts.
    config = front.home / "ssh_config"
    config.write_text(inner.replace("  ProxyCommand none\n", "") + text)
    # The ssh that ProxyJump starts reads the same file, because ssh hands -F on.
    return config


def test_hosts_behind_a_jump_host_are_reached_through_it(front: Front, jump: Path) -> None:
    before = {host.name: taken(front, host.name) for host in front.lab.hosts}
    sites = front.on("lab2", "lab3", slots=2, config=jump)
    command = f'{HOLD}sleep 0.3; hostname; echo $SSH_CONNECTION | cut -d" " -f1'
    with front.together("lab2", "lab3"):
        process = front.start("run", command, "--each", "1..12", *sites)
    done = front.finish(process)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"lab2", "lab3", front.lab.host("lab1").address}
    assert {name: taken(front, name) - before[name] for name in before} == {"lab1": 2, "lab2": 1, "lab3": 1}


def test_a_changed_host_key_is_refused_behind_a_jump_host_too(front: Front, jump: Path) -> None:
    known = front.home / "known"
    lines = (front.lab.directory / "known_hosts").read_text().splitlines()
    keys = {line.split(",")[0]: line.split()[1:] for line in lines}
    known.write_text(
        "".join(
            f"{line.split()[0]} {' '.join(keys['lab3'] if line.startswith('lab2,') else line.split()[1:])}\n"
            for line in lines
        )
    )
    jump.write_text(f"Host lab2\n  UserKnownHostsFile {known}\n" + jump.read_text())
    done = front.run("run", "hostname", "--each", "1..4", *front.on("lab2", config=jump))
    assert done.returncode == 3
    assert "its host key is not the one that is known" in done.stderr
    assert done.stdout == ""
