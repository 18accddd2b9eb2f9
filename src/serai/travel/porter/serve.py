"""Where the porter begins."""

from __future__ import annotations

import getpass
import os
import platform
import sys
import threading

from ..copying import looks, lots, peers
from ..frames import Reader, write
from . import files, jobs
from .calls import Switchboard
from .lineage import boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .calls import Call


def who() -> dict[str, Any]:
    """Who and where this is; "boot" differs after a restart."""
    return {
        "host": platform.node(),
        "boot": boot(),
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "python": list(sys.version_info[:3]),
        "system": platform.system(),
        "pid": os.getpid(),
    }


def _who(_call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{} -> see `who`."""
    return who(), b""


def serve_pipes(fd_in: int, fd_out: int, _sources: Mapping[str, str]) -> None:
    """Serve calls behind a pair of pipes, until the caller is gone.

    Args:
        fd_in: where calls come from.
        fd_out: where answers go.
        _sources: the text of the porter's own modules.
    """
    jobs.begin()  # before there are threads
    lock = threading.Lock()

    def send(frame: bytes, body: bytes | memoryview = b"") -> None:
        with lock:
            write(fd_out, frame, body)

    handlers = {"who": _who}
    for room in (files, looks, lots, peers, jobs):
        handlers.update(room.HANDLERS)
    board = Switchboard(handlers, send)
    reader = Reader(fd_in)
    while True:
        frames = reader.read()
        if frames is None:
            break
        for frame in frames:
            board.feed(frame)
    board.hang_up()
