"""What goes wrong in a laboratory goes wrong as it does outside of one."""

from __future__ import annotations

import errno
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from serai.errors import HostUnreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.testing.lab import Host, Lab
    from serai.testing.lab.fixtures import LabFactory

    Ssh = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.lab
DISK_BYTES = 32 << 20


@pytest.fixture(scope="module")
def faulty(lab_factory: LabFactory) -> Iterator[Lab]:
    with lab_factory(2, disk_bytes={"lab1": DISK_BYTES}) as lab:
        yield lab


@pytest.fixture
def host(faulty: Lab) -> Iterator[Host]:
    first = faulty.hosts[0]
    yield first
    if not first.is_up:
        first.start()
    first.resume()
    first.mend()
    first.slow(None)
    first.free_disk()


def test_a_host_without_power_does_not_answer_and_comes_back_with_key_and_disk(
    faulty: Lab, host: Host, ssh: Ssh
) -> None:
    assert ssh(faulty, "lab1", "echo kept >kept").returncode == 0
    host.kill()
    assert not host.is_up
    silent = ssh(faulty, "lab1", "true", connect_s=1)
    assert silent.returncode == 255
    assert silent.stderr.startswith("ssh: connect to host lab1 port 22: ")
    with pytest.raises(HostUnreachable, match="no power"):
        host.run(["true"])
    assert ssh(faulty, "lab2", "hostname").stdout == "lab2\n"
    host.start()
    assert ssh(faulty, "lab1", "cat kept").stdout == "kept\n"
    host.kill()
    host.kill()  # twice is harmless
    host.start(fresh_disk=True)
    assert ssh(faulty, "lab1", "ls").stdout == ""


def test_a_host_that_is_up_is_not_started(host: Host) -> None:
    with pytest.raises(UsageError, match="up already"):
        host.start()


def test_what_ran_on_a_killed_host_is_not_told_to_its_peer(faulty: Lab, host: Host) -> None:
    words = ["ssh", "-F", str(faulty.ssh_config), "lab1", "echo up; sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "up\n"
        host.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(0.5)
        session.kill()


def test_a_cut_loses_packets_and_a_connection_goes_on_when_it_is_mended(faulty: Lab, host: Host, ssh: Ssh) -> None:
    words = ["ssh", "-F", str(faulty.ssh_config), "lab1", "echo up; cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        assert session.stdout.readline() == "up\n"
        host.cut()
        session.stdin.write("after the cut\n")
        lost = ssh(faulty, "lab1", "true", connect_s=1)
        assert lost.returncode == 255
        assert "timed out" in lost.stderr or "No route to host" in lost.stderr
        assert session.poll() is None
        assert host.run(["hostname"]).stdout == "lab1\n"
        host.mend()
        assert session.stdout.readline() == "after the cut\n"
        assert ssh(faulty, "lab1", "true").returncode == 0


def _seconds(faulty: Lab, count: int, *, to_host: bool = False) -> float:
    """How long the first host takes to send, or take, so many bytes when the login, which takes its time, is over."""
    script = "echo; wc -c" if to_host else f"echo; head -c {count} /dev/zero"
    words = ["ssh", "-F", str(faulty.ssh_config), "lab1", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as session:
        assert session.stdout is not None
        assert session.stdout.read(1) == b"\n"
        began = time.monotonic()
        said, _ = session.communicate(bytes(count * to_host), timeout=150)
    assert int(said) == count if to_host else len(said) == count
    return time.monotonic() - began


def _login_s(faulty: Lab) -> float:
    """How long a login takes."""
    began = time.monotonic()
    subprocess.run(["ssh", "-F", str(faulty.ssh_config), "lab1", "true"], timeout=150, check=True)
    return time.monotonic() - began


def _once_below(limit_s: float, seconds: Callable[[], float]) -> bool:
    """Whether something is as quick as that on this machine when nobody else wants its processors."""
    return any(seconds() < limit_s for _ in range(10))


# Without a delay the kernel limits the rate where it can; with one, a program does.
@pytest.mark.parametrize("delay_ms", [0.0, 0.1], ids=["kernel", "program"])
@pytest.mark.parametrize("to_host", [False, True], ids=["from", "to"])
def test_a_limited_rate_is_kept(faulty: Lab, host: Host, delay_ms: float, to_host: bool) -> None:
    def seconds() -> float:
        return _seconds(faulty, 2_000_000, to_host=to_host)

    least_s = 1.4  # 1.6 s, less what a first burst may take at once
    assert _once_below(least_s, seconds)
    host.slow(rate_bit_s=10e6, delay_ms=delay_ms)
    slow_s = seconds()
    assert least_s < slow_s
    assert slow_s < 6.0 or _once_below(6.0, seconds)
    host.slow(None)
    assert _once_below(least_s, seconds)


def test_a_rate_replaces_another_and_is_gone_after_a_loss_of_power(faulty: Lab, host: Host) -> None:
    host.slow(rate_bit_s=1e6)
    host.slow(rate_bit_s=40e6)
    assert _seconds(faulty, 4_000_000) < 20.0  # 32 s at the first rate
    host.slow(rate_bit_s=1e6)
    host.kill()
    host.start()
    assert _seconds(faulty, 4_000_000) < 20.0


def test_a_delay_is_felt_each_way_by_connections_old_and_new(faulty: Lab, host: Host) -> None:
    script = """if True:
        import socket, sys, time
        least = 60.0
        for _ in range(4):  # of several, since a busy machine lets each wait for its turn
            began = time.monotonic()
            socket.create_connection((sys.argv[1], 22)).close()
            least = min(least, time.monotonic() - began)
        print(least)
    """
    connect = ["/usr/bin/python3", "-c", script, host.address]
    assert float(faulty.run(connect, check=True).stdout) < 0.1
    host.slow(delay_ms=100)
    assert 0.2 <= float(faulty.run(connect, check=True).stdout) < 1.2
    host.cut()  # a cable can be slow and cut
    host.mend()
    assert 0.2 <= float(faulty.run(connect, check=True).stdout) < 1.2
    host.slow(None)
    assert float(faulty.run(connect, check=True).stdout) < 0.1


def test_a_slow_host_may_be_killed_and_is_fast_afterwards(faulty: Lab, host: Host) -> None:
    host.slow(delay_ms=300)
    host.kill()
    host.start()
    assert _once_below(3.0, lambda: _login_s(faulty))


def test_a_negative_rate_is_refused(host: Host) -> None:
    with pytest.raises(UsageError):
        host.slow(rate_bit_s=-1)


def test_a_full_disk_is_full_for_everybody(faulty: Lab, host: Host, ssh: Ssh) -> None:
    write = "import os\nwith open('/tmp/x', 'wb', 0) as f:\n try: print(f.write(bytes(200000)))\n"
    write += " except OSError as e: print('errno', e.errno)\nos.unlink('/tmp/x')"
    command = ["/usr/bin/python3", "-c", write]
    assert host.run(command, user="user").stdout == "200000\n"
    host.fill_disk()
    for user in ("user", "root"):
        assert host.run(command, user=user).stdout == f"errno {errno.ENOSPC}\n"
    assert "No space left" in ssh(faulty, "lab1", "head -c 100000 /dev/zero >x; rm x").stderr
    host.fill_disk(leave_bytes=1 << 20)
    assert host.run(command).stdout == "200000\n"
    assert "No space left" in host.run(["sh", "-c", "head -c 2000000 /dev/zero >/var/tmp/x; rm /var/tmp/x"]).stderr
    host.free_disk()
    assert host.run(["sh", "-c", "head -c 2000000 /dev/zero >/var/tmp/x; rm /var/tmp/x"]).returncode == 0


def test_a_disk_has_the_size_that_was_asked_for(faulty: Lab) -> None:
    sizes = [host.run(["df", "-B1", "--output=size", "/"]).stdout.split()[1] for host in faulty.hosts]
    assert sizes == [str(DISK_BYTES), str(1 << 30)]


def test_a_host_that_hangs_accepts_and_says_nothing(faulty: Lab, host: Host, ssh: Ssh) -> None:
    words = ["ssh", "-F", str(faulty.ssh_config), "lab1", "echo up; cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        assert session.stdout.readline() == "up\n"
        host.hang()
        session.stdin.write("while it hangs\n")
        silent = ssh(faulty, "lab1", "true", connect_s=1)
        assert "timed out during banner exchange" in silent.stderr
        assert session.poll() is None
        assert host.run(["hostname"]).stdout == "lab1\n"  # from outside, one can still look in
        host.resume()
        assert session.stdout.readline() == "while it hangs\n"
        assert ssh(faulty, "lab1", "true").returncode == 0


def test_a_host_that_hangs_can_be_killed(host: Host) -> None:
    host.hang()
    host.kill()
    host.start()
    assert host.run(["hostname"]).stdout == "lab1\n"
