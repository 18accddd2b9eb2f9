"""What can be asked about files."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .calls import Call


def info(path: str, *, follow: bool = True) -> dict[str, Any]:
    """What is known of a path."""
    found = os.stat(path) if follow else os.lstat(path)
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return {"name": path, "size": found.st_size, "type": kind, "mode": found.st_mode, "mtime": found.st_mtime}


def do_stat(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path"} -> see `info`."""
    return info(call.head["path"]), b""


HANDLERS = {"files.stat": do_stat}
