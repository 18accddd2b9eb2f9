"""The keys of a laboratory and the configurations of its ssh and sshd."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serai.errors import DeadlineExceeded, SeraiError
from serai.testing.lab.disk import PYTHON_AT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RELAY = Path(__file__).with_name("relay.py")
CONNECT_LIMIT_S = 10  # when ssh's command line has no ConnectTimeout
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def search_path(*, own_python: bool) -> str:
    """The PATH of a host's sessions; an interpreter of its own comes first."""
    return f"/{PYTHON_AT}/bin:{SYSTEM_PATH}" if own_python else SYSTEM_PATH


def make_keys(paths: Sequence[Path], *, timeout_s: float) -> None:
    """Make a key pair at each of the paths, all at the same time."""
    commands = [["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)] for path in paths]
    makers = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    deadline = time.monotonic() + timeout_s
    words = [_last_words(maker, deadline) for maker in makers]  # of all of them, also when the first fails
    for command, maker, said in zip(commands, makers, words, strict=True):
        if maker.returncode < 0:
            raise DeadlineExceeded(f"no key within {timeout_s:g} s", command=shlex.join(command))
        if maker.returncode:
            raise SeraiError(f"exit code {maker.returncode}", command=shlex.join(command), hint=said.strip() or None)


def sshd_config(*, own_python: bool) -> str:
    """A host's sshd: keys only, and as many sessions at a time as tests may want."""
    lines = [
        "Port 22",
        "HostKey /etc/ssh/ssh_host_ed25519_key",
        "UsePAM no",
        "UseDNS no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "MaxStartups 500",
        "MaxSessions 500",
        "PidFile none",
        "PrintMotd no",
        "PrintLastLog no",
        "Subsystem sftp internal-sftp",
        f"SetEnv PATH={search_path(own_python=own_python)}",
    ]
    if _version() >= (9, 8):
        lines.append("PerSourcePenalties no")  # a test that is cut off on purpose is not an attack
    return "".join(f"{line}\n" for line in lines)


def known_hosts(hosts: Iterable[tuple[str, str, Path]]) -> str:
    """Pin each host's key: an entry for (host name, address, private key file)."""
    return "".join(
        f"{name},{address} {' '.join(Path(f'{key}.pub').read_text(encoding='ascii').split()[:2])}\n"
        for name, address, key in hosts
    )


def ssh_config(hosts: Iterable[tuple[str, str, str]], *, lab_pid: int, directory: Path, user: str) -> str:
    """The ssh_config by which every process of this machine (run by root) reaches the hosts.

    Args:
        hosts: short name, full name and address of each.
        lab_pid: a process in the laboratory's network.
        directory: where `id` and `known_hosts` are.
        user: who logs in when nothing else is said.
    """
    # A virtual environment's interpreter may be a link of a link: the one below it starts at once, and needs no site.
    interpreter = str(Path(sys.executable).resolve())
    text = []
    files = str(directory).replace("%", "%%")
    every_name: list[str] = []
    for name, full_name, address in hosts:
        every_name += [name, full_name, address]
        relay = [f"--net=/proc/{lab_pid}/ns/net", interpreter, "-IS", str(RELAY), name, address]
        proxy = shlex.join(["nsenter", *relay]).replace("%", "%%")
        text.append(
            f"Host {name} {full_name} {address}\n"
            f"    HostName {full_name}\n"
            f"    ProxyCommand {proxy} %p {CONNECT_LIMIT_S}\n"
        )
    text.append(
        f"Host {' '.join(every_name)}\n"  # and not *, so that the file can be included in a user's own
        f"    User {user}\n"
        "    Port 22\n"
        "    ProxyUseFdpass yes\n"
        f'    IdentityFile "{files}/id"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{files}/known_hosts"\n'
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    PasswordAuthentication no\n"
        "    KbdInteractiveAuthentication no\n"
    )
    return "\n".join(text)


def _last_words(maker: subprocess.Popen[str], deadline: float) -> str:
    try:
        return maker.communicate(timeout=max(0.0, deadline - time.monotonic()))[1]
    except subprocess.TimeoutExpired:
        maker.kill()
        return maker.communicate()[1]


def _version() -> tuple[int, int]:
    """The version of this machine's OpenSSH, (0, 0) when it does not say."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=False).stderr
    numbers = said.removeprefix("OpenSSH_").partition("p")[0].split(".")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) >= 2 and all(n.isdigit() for n in numbers[:2]) else (0, 0)
