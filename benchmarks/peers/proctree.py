"""A process and all that descend from it, read from /proc: their CPU time and their listening sockets."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LISTENING = "0A"


def adopt_orphans() -> None:
    """Keep servers that make themselves daemons in this tree, counted and within reach; end when the parent has."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def tree() -> dict[int, list[str]]:
    """Return the /proc stat fields, from the state on, of this process and of all that descend from it."""
    stats: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue  # it has just ended
            fields = text.rpartition(")")[2].split()
            stats[int(entry.name)] = fields
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = {}, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        found[pid] = stats[pid]
        waiting += children.get(pid, ())
    return found


def tree_cpu_s() -> float:
    """Return the CPU seconds of this process tree: the living, the zombies, and those that somebody waited for."""
    return sum(int(ticks) for fields in tree().values() for ticks in fields[11:15]) * TICK_S


def machine_cpu_s() -> float:
    """Return the CPU seconds that the whole machine has been busy since it started."""
    user, nice, system, _idle, _iowait, irq, softirq = Path("/proc/stat").read_text(encoding="ascii").split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) * TICK_S


def exposed() -> list[str]:
    """Return the addresses beyond loopback on which this process tree listens; there should be none."""
    mine = set()
    for pid in tree():
        try:
            mine |= {str(fd.readlink()) for fd in Path("/proc", str(pid), "fd").iterdir()}
        except OSError:
            continue  # it has just ended
    beyond = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in mine and not _loopback(address):
                beyond.append(f"{address}:{int(port, 16)}")
    return sorted(beyond)


def _loopback(address: str) -> bool:
    raw = b"".join(
        bytes.fromhex(address[at : at + 8])[:: 1 if sys.byteorder == "big" else -1] for at in range(0, len(address), 8)
    )
    if len(raw) == 4:
        return raw[0] == 127
    text = socket.inet_ntop(socket.AF_INET6, raw)
    return text == "::1" or text.startswith("::ffff:127.")
