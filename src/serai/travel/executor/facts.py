"""What a node has: read once at check-in, and the few that change with every beat. Nothing here changes the node."""

from __future__ import annotations

import os
import socket
import sys

from ..processes import find_program
from . import devices
from .wire import PROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def cores() -> int:
    """The cores this process may use: its affinity, cut by the control group's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    for path, cut in (("/sys/fs/cgroup/cpu.max", _quota_v2), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _quota_v1)):
        try:
            quota = cut(path)
        except (OSError, ValueError, IndexError):
            continue
        if quota:
            count = min(count, max(1, int(quota)))
    return count


def _quota_v2(path: str) -> float:
    quota, period = _words(path)
    return 0 if quota == "max" else int(quota) / int(period)


def _quota_v1(path: str) -> float:
    quota = int(_words(path)[0])
    return 0 if quota <= 0 else quota / int(_words(path.replace("quota", "period"))[0])


def _words(path: str) -> list[str]:
    with open(path) as file:
        return file.read().split()


def memory() -> tuple[int, int]:
    """Return (all, free) in bytes; free counts what the kernel would give up."""
    try:
        found = {}
        with open("/proc/meminfo") as file:
            for line in file:
                name, _, rest = line.partition(":")
                found[name] = int(rest.split()[0]) * 1024
        return found["MemTotal"], found.get("MemAvailable", found["MemFree"])
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), 0
    except (OSError, ValueError, AttributeError):
        return 0, 0


def disk_free(path: str) -> int:
    """Bytes that this user may still write below a path."""
    try:
        info = os.statvfs(path)
    except OSError:
        return 0
    return info.f_bavail * info.f_frsize


def software(names: Iterable[str]) -> dict[str, bool]:
    """Which of these programs are on the PATH: {name: True or False}."""
    found = {}
    for name in names:
        try:
            find_program(name, os.environ.get("PATH"))
            found[name] = True
        except OSError:
            found[name] = False
    return found


def ad(base: str, names: Iterable[str]) -> dict[str, Any]:
    """The node's ad."""
    system = os.uname()  # the platform module would start a process on Python 3.8
    whole, free = memory()
    return {
        "protocol": PROTOCOL,
        "host": socket.gethostname(),
        "boot": boot(),
        "uid": os.getuid(),
        "root": _root(),
        "python": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "system": system.sysname,
        "machine": system.machine,
        "cores": cores(),
        "memory_bytes": whole,
        "memory_free_bytes": free,
        "disk_free_bytes": disk_free(base),
        "base": base,
        "pid": os.getpid(),
        "software": software(names),
        "gpus": devices.gpus(),
        "disks": devices.disks(),
        "modules": [name for name in ("cloudpickle",) if _has(name)],
    }


def boot() -> str:
    """What differs from machine to machine and from start to start of it; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _root() -> int:
    """The inode of the root: containers may share a kernel and a name, and differ in this."""
    try:
        return os.stat("/").st_ino
    except OSError:
        return 0


def _has(name: str) -> bool:
    from importlib import util  # noqa: PLC0415 - needed once

    try:
        return util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
