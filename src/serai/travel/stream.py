"""Stays at home: a program that travelled, behind a byte stream.

The stream is one end of a socket pair, because a socket can be shut down by one thread while another waits in a write
to it: a node that hangs with full buffers can be let go of. Whatever a login shell prints before the agent speaks is
passed over.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

from serai.travel.boot import MARK
from serai.travel.frames import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE_S = 3.0
BYE_S = 1.0
MOST_NOISE = 1 << 20  # bytes before the mark: more is no greeting of a shell
BUFFER_BYTES = 1 << 20


class StartFailed(Exception):
    """The agent's process ended before it gave a sign of life.

    Attributes:
        returncode: its exit status, None when it did not end.
    """

    def __init__(self, returncode: int | None) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode


class PipeLink:
    """A link over a stream to a program that was started with `Traveller.command` or `Traveller.program`.

    Args:
        start: starts it with a socket as its standard input and output.
        parcel: what `Traveller.packed` gave.
        deliver: takes frames, and None at the end.
        deadline_s: from its start to its first sign of life.
        farewell: a frame that is sent, if it can be, before the stream is closed; for what outlives its stream.

    Raises:
        StartFailed: it ended before it gave a sign of life.
        TimeoutError: it gave none in time.
        OSError: it could not be started.
    """

    def __init__(
        self,
        start: Callable[[socket.socket], subprocess.Popen[bytes]],
        parcel: bytes,
        deliver: Callable[[bytes | None], None],
        deadline_s: float,
        *,
        farewell: bytes | None = None,
    ) -> None:
        self._farewell = farewell
        self._socket, theirs = socket.socketpair()
        self._send_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._closed = False
        for one in (self._socket, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        try:
            with theirs:
                self._process = start(theirs)
        except BaseException:
            self._socket.close()
            raise
        try:
            self._greet(parcel, deadline_s)
        except BaseException:
            self.close(0.0)
            self._socket.close()
            raise
        threading.Thread(target=self._listen, args=(deliver,), name="listen", daemon=True).start()

    def _greet(self, parcel: bytes, deadline_s: float) -> None:
        """Send the agent, and wait for its mark."""
        self._socket.settimeout(deadline_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # why, says its end
            self._socket.sendall(parcel)
        heard = b""
        while not heard.endswith(MARK):  # nothing follows it: an agent is spoken to first
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:  # it ended before it had read what it was sent
                data = b""
            if not data or len(heard) > MOST_NOISE:
                raise StartFailed(_code(self._process))
            heard += data
        self._socket.settimeout(None)

    def _listen(self, deliver: Callable[[bytes | None], None]) -> None:
        reader = Reader(self._socket.fileno())
        while (frames := reader.read()) is not None:
            for frame in frames:
                deliver(frame)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._send_lock:
            self._socket.close()
        deliver(None)

    def send(self, frame: bytes, body: bytes | memoryview = b"") -> None:
        """See `Link.send`; ``body`` follows the frame's beginning, without being copied."""
        with self._send_lock:
            if body:
                sent = self._socket.sendmsg([frame, body])
                frame, body = frame[sent:], memoryview(body)[max(0, sent - len(frame)) :]
            for one in (frame, body):
                if one:
                    self._socket.sendall(one)

    def close(self, grace_s: float = CLOSE_S) -> None:
        """See `Link.close`."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        if self._farewell is not None:
            # The way may be full or gone: said from a thread of its own, and not waited for longer than a moment.
            bye = threading.Thread(target=self._say_bye, args=(self._farewell,), name="bye", daemon=True)
            bye.start()
            bye.join(BYE_S)
        self.end_input()
        with contextlib.suppress(OSError):  # it may be stopped, and would not see the end, or clear up behind itself
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(CLOSE_S)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end_input(self) -> None:
        """Let it see the end of its input; also wakes whoever waits to write. `close` does this too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _say_bye(self, farewell: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send(farewell)


def _code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        return None
