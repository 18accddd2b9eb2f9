"""A host is a bare machine that plain ssh reaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.errors import DeadlineExceeded, SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory

    Ssh = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.lab


def test_each_host_is_reached_by_plain_ssh_as_user_and_as_root(lab: Lab, ssh: Ssh) -> None:
    for host in lab.hosts:
        assert ssh(lab, host.name, "hostname; id -un").stdout.split() == [host.name, "user"]
        assert ssh(lab, f"root@{host.name}", "hostname; id -un").stdout.split() == [host.name, "root"]


def test_a_host_whose_key_is_not_the_pinned_one_is_refused(lab: Lab, ssh: Ssh, tmp_path: Path) -> None:
    pinned = (lab.directory / "known_hosts").read_text(encoding="ascii").splitlines()
    names, keys = zip(*(line.split(" ", 1) for line in pinned), strict=True)
    swapped = tmp_path / "known_hosts"
    swapped.write_text(f"{names[0]} {keys[1]}\n{names[1]} {keys[0]}\n", encoding="ascii")
    refused = ssh(lab, "lab1", "true", "-o", f"UserKnownHostsFile={swapped}")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_a_closed_port_is_refused_in_the_words_of_ssh(lab: Lab, ssh: Ssh) -> None:
    refused = ssh(lab, "lab1", "true", "-p", "23")
    assert refused.returncode == 255
    assert refused.stderr.startswith("ssh: connect to host lab1 port 23: Connection refused\n")


def test_a_host_is_reached_through_another(lab: Lab, ssh: Ssh) -> None:
    assert ssh(lab, "lab2", "hostname", "-J", "lab1").stdout == "lab2\n"


def test_files_travel_over_sftp(lab: Lab, tmp_path: Path) -> None:
    there_and_back = f"put {__file__} copy\nget copy {tmp_path}/copy\nrm copy\n"
    subprocess.run(
        ["sftp", "-q", "-F", str(lab.ssh_config), "-b", "-", "lab1"],
        input=there_and_back,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (tmp_path / "copy").read_bytes() == Path(__file__).read_bytes()


def test_hosts_know_and_reach_each_other_by_name(lab: Lab) -> None:
    said = lab.hosts[0].run(["bash", "-c", "exec 3<>/dev/tcp/lab2/22; head -n 1 <&3"], check=True)
    assert said.stdout.startswith("SSH-2.0-")


def test_nothing_of_the_machine_is_in_a_host_but_its_programs(lab: Lab, ssh: Ssh) -> None:
    host = lab.hosts[0]
    usual = [
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "tmp",
        "usr",
        "var",
    ]
    assert set(host.run(["ls", "/"]).stdout.split()) <= set(usual)
    assert host.run(["ls", "-A", "/root"]).stdout.split() == [".ssh"]
    assert host.run(["ls", "-A", "/root/.ssh"]).stdout.split() == ["authorized_keys"]
    assert host.run(["ls", "/home"]).stdout.split() == ["user"]
    assert host.run(["ls", "-A", "/opt", "/srv", "/media", "/mnt"]).stdout.split() == [
        "/media:",
        "/mnt:",
        "/opt:",
        "/srv:",
    ]
    here = Path(__file__).resolve()
    assert host.run(["test", "-e", str(here)]).returncode == 1
    assert host.run(["test", "-e", sys.prefix]).returncode == (0 if sys.prefix == "/usr" else 1)
    key = host.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()[1]
    assert key in (lab.directory / "known_hosts").read_text(encoding="ascii")
    assert ssh(lab, "lab1", "command -v python3").stdout == "/usr/bin/python3\n"
    assert host.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]


def test_a_user_may_open_fuse_and_make_mounts_of_their_own(lab: Lab) -> None:
    script = "mount -t tmpfs mine /mnt && : <>/dev/fuse && echo mounted"
    assert lab.hosts[0].run(["unshare", "-Urm", "sh", "-c", script], user="user").stdout == "mounted\n"


def test_orphans_are_reaped(lab: Lab) -> None:
    host = lab.hosts[0]
    host.run(["sh", "-c", "for i in 1 2 3 4 5; do (true &) ; done"], check=True)
    script = "for i in $(seq 100); do ps -e -o stat= | grep -q Z || exit 0; sleep 0.05; done; exit 1"
    host.run(["sh", "-c", script], check=True)


def test_a_command_has_input_deadline_and_checked_end(lab: Lab) -> None:
    host = lab.hosts[0]
    assert host.run(["cat"], input_text="words").stdout == "words"
    with pytest.raises(SeraiError, match="exit code 3") as failed:
        host.run(["sh", "-c", "echo because >&2; exit 3"], check=True)
    assert (failed.value.host, failed.value.hint) == ("lab1", "because")
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
        host.run(["sh", "-c", "sleep 61 & sleep 61"], timeout_s=0.2)
    assert "sleep 61" not in host.run(["ps", "-e", "-o", "args"]).stdout


def test_a_command_runs_in_the_laboratorys_network(lab: Lab) -> None:
    done = lab.run(["bash", "-c", f"exec 3<>/dev/tcp/{lab.hosts[1].address}/22; head -n 1 <&3"], check=True)
    assert done.stdout.startswith("SSH-2.0-")
    direct = ["ssh", "-F", str(lab.ssh_config), "-o", "BatchMode=yes", "lab1", "hostname"]
    assert lab.run(direct, check=True).stdout == "lab1\n"


def _another_python() -> Path | None:
    """An interpreter of this machine, other than the system's, whose whole directory can be bound into a host."""
    base = Path(sys.base_prefix).resolve()
    return base if base not in {Path("/usr"), Path("/usr/local")} and (base / "bin/python3").exists() else None


@pytest.mark.skipif(_another_python() is None, reason="the tests run on the system's own interpreter")
def test_a_host_may_have_an_interpreter_of_its_own(lab_factory: LabFactory, ssh: Ssh) -> None:
    with lab_factory(2, prefix="py", pythons={"py2": _another_python()}) as lab:
        show = "command -v python3; python3 -c 'import sys, ctypes; print(*sys.version_info[:3])'"
        version = " ".join(str(number) for number in sys.version_info[:3])
        assert ssh(lab, "py2", show).stdout.splitlines() == ["/opt/python/bin/python3", version]
        assert lab.hosts[1].run(["python3", "-c", "print(1)"]).stdout == "1\n"
        assert ssh(lab, "py1", "command -v python3").stdout == "/usr/bin/python3\n"
