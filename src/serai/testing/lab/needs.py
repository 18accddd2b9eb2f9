"""What a laboratory needs of the machine, and whether it is there."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from serai.errors import UsageError
from serai.testing.lab import process

SBIN = "/usr/sbin:/sbin"

# Each program, and the Debian package that has it.
PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "pivot_root": "util-linux",
    "hostname": "hostname",
    "timeout": "coreutils",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}

# Every namespace, mount and link that a laboratory makes, made once and gone with the process.
_PROBE = """set -e
mount -t tmpfs tmpfs /run
mkdir /run/up /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/up,workdir=/run/work overlay /run/root
mount -t proc proc /run/root/proc
ip link add br0 type bridge
ip link add v0 type veth peer name v1
"""


def program(name: str) -> str | None:
    """Where a program is, also when it is one of the administrator's; None when it is nowhere."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def requirements() -> tuple[str, ...]:
    """The Debian packages that a laboratory needs and this machine has not, sorted."""
    return tuple(sorted({package for name, package in PROGRAMS.items() if program(name) is None}))


def install_requirements(*, timeout_s: float = 600.0) -> tuple[str, ...]:
    """Install what is missing with apt-get, and return the packages that were.

    Raises:
        UsageError: not root, or no apt-get on this machine.
        SeraiError: apt-get ended badly; its last words are the hint.
        DeadlineExceeded: it took longer than `timeout_s` seconds.
    """
    missing = requirements()
    if not missing:
        return ()
    if os.geteuid() or program("apt-get") is None:
        raise UsageError(
            f"cannot install {' '.join(missing)}", hint="as root, on Debian or Ubuntu; or install them by hand"
        )
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    process.run(["apt-get", "update", "-qq"], timeout_s=timeout_s, env=env, check=True)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    process.run(command, timeout_s=timeout_s, env=env, check=True)
    why_not.cache_clear()
    return missing


@functools.cache
def why_not() -> str | None:
    """The reason why no laboratory can be had on this machine, None when one can. Asked once per process."""
    if os.uname().sysname != "Linux":
        return "a laboratory needs Linux"
    if os.geteuid():
        return "a laboratory needs root (try sudo)"
    missing = requirements()
    if missing:
        return f"a laboratory needs the packages {' '.join(missing)} (serai.testing.lab.install_requirements())"
    command = ["unshare", "-n", "-m", "-u", "-i", "-p", "-f", "--propagation", "private", "sh", "-c", _PROBE]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "this machine takes more than 20 s to make a namespace"
    if probe.returncode:
        return f"no namespaces, overlays or virtual links here: {probe.stderr.strip()}"
    return None
