"""The devices of a node, read from where Linux tells of them: no program is started, no library needed."""

from __future__ import annotations

import glob
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

_MOST = 64  # of a kind
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


def gpus(root: str = "/") -> List[str]:
    """The names of GPUs that compute: those of NVIDIA's and AMD's drivers."""
    found = []
    for path in sorted(glob.glob(os.path.join(root, "proc/driver/nvidia/gpus/*/information")))[:_MOST]:
        fields = dict(line.split(":", 1) for line in _lines(path) if ":" in line)
        found.append(fields.get("Model", "NVIDIA").strip())
    if os.path.exists(os.path.join(root, "dev/kfd")):
        for path in sorted(glob.glob(os.path.join(root, "sys/class/drm/renderD*/device/vendor")))[:_MOST]:
            if _VENDORS.get(_line(path)) == "AMD":
                name = _line(os.path.join(os.path.dirname(path), "product_name"))
                found.append(name or "AMD")
    return found


def disks(root: str = "/") -> List[Dict[str, Any]]:
    """The disks: name, bytes, and whether they turn."""
    found = []
    for path in sorted(glob.glob(os.path.join(root, "sys/block/*")))[:_MOST]:
        name = os.path.basename(path)
        size = _line(os.path.join(path, "size"))
        if not name.startswith(_NOT_DISKS) and size.isdigit() and int(size):
            turns = _line(os.path.join(path, "queue/rotational")) == "1"
            found.append({"name": name, "bytes": int(size) * 512, "turns": turns})
    return found


def _lines(path: str) -> List[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read(4096).splitlines()
    except OSError:
        return []


def _line(path: str) -> str:
    return (_lines(path) or [""])[0].strip()
