"""The end of the channel that is in the run: a socket in the run's own directory, and who is answered there.

A request is one line of JSON, ``{"do": NAME, ...}``. It is answered by lines: ``{"news": {...}}`` any number of times,
an empty one at least every few seconds, then ``{"end": true}`` or ``{"refused": {"what": ..., "hint": ...}}``. Where
the connection is closed without either, the run has ended meanwhile.

Nobody but this user gets that far: the directory is theirs alone (0700), the socket is (0600), and
the kernel says who has connected.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOCKET", "Channel", "Order", "reach"]

# What was asked, to news of it; None where there is none yet: then it is asked again in a moment.
Order = Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any] | None]]

SOCKET = "control"
LONGEST = 1 << 20  # bytes of a request
ASKED_WITHIN_S = 10.0
TAKEN_WITHIN_S = 10.0  # a line of the answer
LOOK_S = 0.1  # between two looks whether there is news
SAY_S = 2.0  # who waits hears something at least so often
MOST = 16  # connections at a time
_PATH_BYTES = 104 - 1  # the shortest sun_path, with its NUL (BSD, macOS)


class Channel:
    """Listens until it is closed.

    Args:
        directory: of the run: of this user and nobody else.
        orders: what may be asked for, by name. Each runs on a thread of its own, and what it raises is told.

    Raises:
        OSError: there cannot be one here; the run goes without.
    """

    def __init__(self, directory: Path, orders: Mapping[str, Order]) -> None:
        self._directory = directory
        self._orders = orders
        self._closed = threading.Event()
        self._places = threading.BoundedSemaphore(MOST)
        _check_private(directory)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _listening.add(self)
        try:
            with reach(directory, f"{SOCKET}~") as path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                self._server.bind(path)
                os.chmod(path, 0o600)
                self._server.listen(MOST)
            # It gets its name when it listens: who is refused by that name holds the run to be dead.
            os.replace(directory / f"{SOCKET}~", directory / SOCKET)
        except OSError:
            self._server.close()
            raise
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more; harmless when done twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):
            os.unlink(self._directory / SOCKET)
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def let_go(self) -> None:
        """Close it in this process only."""
        self._server.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                caller, _ = self._server.accept()
            except OSError:
                self._closed.wait(0.05)  # closed; or no descriptor is free just now
                continue
            if not self._places.acquire(blocking=False):
                caller.close()
                continue
            thread = threading.Thread(target=self._serve, args=(caller,), name="control-order", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there can be no more just now; others may ask later
                self._places.release()
                caller.close()

    def _serve(self, caller: socket.socket) -> None:
        try:
            with caller, contextlib.suppress(OSError):  # whoever asked has gone
                self._answer(caller)
        finally:
            self._places.release()

    def _answer(self, caller: socket.socket) -> None:
        if not _is_ours(caller):
            return
        caller.settimeout(ASKED_WITHIN_S)
        with caller.makefile("rb") as stream:
            line = stream.readline(LONGEST)
        caller.settimeout(TAKEN_WITHIN_S)
        try:
            asked = _asked(line)
            order = self._orders.get(str(asked.get("do")))
            if order is None:
                raise UsageError(f"this run does not know how to {asked.get('do')}", hint="it is of another version")  # noqa: TRY301 - told alike
            if self._tell(caller, order(asked)):
                _send(caller, {"end": True})
        except SeraiError as error:
            told = {"what": error.what, "hint": error.hint, "usage": isinstance(error, UsageError)}
            _send(caller, {"refused": told})
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked is told, and the run goes on
            _send(caller, {"refused": {"what": f"{type(error).__name__}: {error}"}})

    def _tell(self, caller: socket.socket, told: Iterator[Mapping[str, Any] | None]) -> bool:
        """Send news as they come; returns whether that were all, and the run did not end before."""
        silent_s = 0.0
        for news in told:
            if news is None:
                silent_s += LOOK_S
                if self._closed.wait(LOOK_S):
                    return False
            if news is not None or silent_s >= SAY_S:
                silent_s = 0.0
                _send(caller, {"news": dict(news or {})})
        return True


_listening: weakref.WeakSet[Channel] = weakref.WeakSet()


def _let_go_of_all() -> None:
    for channel in _listening:
        channel.let_go()
    _listening.clear()


# A child made by fork answers nobody; if it kept the sockets, a run whose process is gone would seem to hang.
os.register_at_fork(after_in_child=_let_go_of_all)


def _asked(line: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(line)
    except ValueError as error:
        raise UsageError("this is no request") from error
    if not isinstance(asked, dict):
        raise UsageError("this is no request")
    return asked


def _send(caller: socket.socket, what: Mapping[str, Any]) -> None:
    caller.sendall(json.dumps(what, default=str).encode() + b"\n")


def _is_ours(caller: socket.socket) -> bool:
    """Whether the other end is this user's, where the kernel tells (Linux); else the directory keeps others out."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.geteuid())


def _check_private(directory: Path) -> None:
    there = directory.stat()
    if there.st_uid != os.geteuid() or stat.S_IMODE(there.st_mode) & 0o077:
        raise PermissionError(f"{directory} is open to others: chmod 700 it")


@contextlib.contextmanager
def reach(directory: Path, name: str) -> Iterator[str]:
    """A path of a socket in a directory that is short enough for a socket's path, as long as the context lasts.

    Raises:
        OSError: there is none.
    """
    path = str(directory / name)
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield path
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(f"{directory} is too long for the path of a socket")
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
