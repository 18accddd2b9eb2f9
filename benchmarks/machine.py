"""The facts about this machine without which its figures mean nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Return the processor, cores, memory, kernel, system, Python and load of this machine."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name", ":"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "system": _field(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"'),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _field(file: Path, name: str, separator: str) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return "unknown"
