"""Sessions of SFTP: paramiko's client over a session of the host's one OpenSSH connection."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING

from serai.access.connections import shared
from serai.errors import AccessError

if TYPE_CHECKING:
    import paramiko

    from serai.access.openssh import Target

ANSWER_S = 600.0  # for one answer of the server


class Stream:
    """A socket in the shape of paramiko's channels; its own reading of sockets looks ten times a second."""

    def __init__(self, ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._socket = ours
        self._process = process
        self.send = ours.send
        self.recv = ours.recv
        self.lock = threading.RLock()  # paramiko loses answers when two threads ask

    def recv_ready(self) -> bool:
        """Whether an answer has come."""
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return bool(look.poll(0))

    def get_name(self) -> str:
        """For paramiko's log."""
        return "sftp"

    def close(self) -> None:
        """End the session."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)


_lock = threading.Lock()
_clients: dict[Target, paramiko.SFTPClient] = {}
os.register_at_fork(after_in_child=_clients.clear)  # they are the parent's


def session(target: Target) -> paramiko.SFTPClient:
    """The open session with a host, made when there is none.

    Raises:
        AccessError: the host has no SFTP, or cannot be reached.
    """
    with _lock:
        client = _clients.get(target)
        if client is None:
            client = _clients[target] = _connect(target)
    return client


def drop(target: Target, client: paramiko.SFTPClient) -> None:
    """End a session that was lost; the next one who asks has a new one."""
    with _lock:
        if _clients.get(target) is client:
            del _clients[target]
    client.close()


def _connect(target: Target) -> paramiko.SFTPClient:
    import paramiko  # noqa: PLC0415 - an extra, and slow to import

    connection = shared(target)
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*connection.argv(), "-s", "sftp"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=log,
            start_new_session=True,  # Ctrl-C is the front end's to act on
        )
        theirs.close()
        ours.settimeout(ANSWER_S)
        stream = Stream(ours, process)
        try:
            return paramiko.SFTPClient(stream)
        except (EOFError, OSError, paramiko.SSHException) as caught:
            error = caught
        stream.close()
        log.seek(0)
        said = log.read()
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise AccessError(
            f"it has no SFTP: {last or error or 'its session ended'}",
            host=target.host,
            hint="name an interpreter for the porter: python=/path/to/python3",
        ) from error


def close_all() -> None:
    """End every session."""
    with _lock:
        clients = list(_clients.values())
        _clients.clear()
    for client in clients:
        client.close()


atexit.register(close_all)  # after `connections` was imported, so it runs before connections are closed
