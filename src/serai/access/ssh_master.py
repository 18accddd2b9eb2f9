"""Our own master of a connection: ssh, beside a shell that ends it when we are gone, and the directory it lives in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.ssh_options import Target

__all__ = ["Master", "make_room"]

_END_S = 5.0  # for a master to end by itself
# The shortest sun_path is 104 bytes with its NUL (BSD, macOS), and ssh binds a temporary name 17 bytes longer.
_SOCKET_PATH_BYTES = 104 - 1 - 17

# Ctrl-C and Ctrl-Z go to everything in the foreground: what to end and when is the front end's decision, and ssh leaves
# ignored signals ignored. $1 is our directory. The watcher reads a line when the master ended or is
# ended by us, and nothing when we are gone.
_MASTER = """trap '' INT QUIT TSTP
exec 3<&0
{ read -r _ <&3 || { kill $$; rm -rf -- "$1"; }; } >/dev/null 2>&1 &
shift
exec "$@" </dev/null 3<&-"""


class Master:
    """A master that we started. Its methods may be called from several threads.

    Args:
        words: the ssh command.
        room: its directory, removed when we are gone.
        log: where ssh says what it has to say.
        asks: whether it may ask on the terminal.
    """

    def __init__(self, words: Sequence[str], room: Path, log: Path, *, asks: bool) -> None:
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _MASTER, "serai", str(room), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=not asks,  # a session of its own would have no terminal to ask on
            )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def ended(self, wait_s: float = 0.0) -> bool:
        """Whether it has ended, after waiting for that so long."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        self._dismiss_watcher()  # its number may belong to another process soon
        return True

    def terminate(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def stop(self) -> int:
        """End it and return its exit status."""
        if not self.ended():
            self.terminate()  # what `ssh -O exit` asks for, without another process, and also before there is a socket
            self._dismiss_watcher()
            if not self.ended(_END_S):
                self._process.kill()
        return self._process.wait(_END_S)

    def _dismiss_watcher(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # gone already, or closed by another thread
                self._process.stdin.write(b"\n")
                self._process.stdin.close()


def make_room(control_dir: Path, target: Target) -> Path:
    """A new directory for one connection; below /tmp where control_dir is too long for a socket's path."""
    control_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = control_dir.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise UsageError(
            f"{control_dir} must be a directory of yours that nobody else can enter: who reaches a control socket "
            "reaches the host",
            host=target.host,
            hint=f"chmod 700 {shlex.quote(str(control_dir))}, or name another directory",
        )
    name = hashlib.sha256(repr(target).encode()).hexdigest()[:6]  # tells rooms apart by eye, nothing more
    longest = len(os.fsencode(control_dir.absolute())) + len("/123456-12345678/s")
    if longest <= _SOCKET_PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=control_dir.absolute()))
    return Path(tempfile.mkdtemp(prefix=f"serai-{name}-", dir="/tmp"))
