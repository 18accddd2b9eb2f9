"""Where the porter begins."""

from __future__ import annotations

import getpass
import os
import platform
import sys
import threading

from ..frames import Reader, peek, write
from . import files, jobs, trees
from .calls import BYE, Switchboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .calls import Call


def _who(_call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{} -> who and where this is; "boot" differs after a restart."""
    return {
        "host": platform.node(),
        "boot": boot(),
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "python": list(sys.version_info[:3]),
        "system": platform.system(),
        "pid": os.getpid(),
    }, b""


def boot() -> str:
    """What differs from machine to machine and from start to start of it; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def serve_pipes(fd_in: int, fd_out: int, sources: Mapping[str, str]) -> None:
    """Serve calls behind a pair of pipes, until the caller is gone or says bye.

    Args:
        fd_in: where calls come from.
        fd_out: where answers go.
        sources: the text of the porter's own modules.
    """
    jobs.SOURCES.update(sources)
    lock = threading.Lock()

    def send(frame: bytes) -> None:
        with lock:
            write(fd_out, frame)

    board = Switchboard({"who": _who, **files.HANDLERS, **trees.HANDLERS, **jobs.HANDLERS}, send)
    reader = Reader(fd_in)
    while True:
        frames = reader.read()
        if frames is None:
            break
        for frame in frames:
            if peek(frame)[0] == BYE:
                board.hang_up()
                return
            board.feed(frame)
    board.hang_up()
