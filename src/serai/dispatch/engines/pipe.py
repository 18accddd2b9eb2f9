"""An agent behind a byte stream: how the local and the ssh engine carry frames.

The stream is one end of a socket pair, because a socket can be shut down by one thread while another waits in a write
to it: a node that hangs with full buffers can be let go of. Whatever a login shell prints before the agent speaks is
passed over.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import subprocess
import threading
import zlib
from typing import TYPE_CHECKING

from serai.pool.executor import boot, wire

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE_S = 3.0
BYE_S = 1.0
MARK = b"\0serai executor\0"
MOST_NOISE = 1 << 20  # bytes before the mark: more is no greeting of a shell
BUFFER_BYTES = 1 << 20
OLDEST = (3, 8)

# One line, and no quote within it but one kind: login shells differ. It reads exactly what is its own.
_FIRST = (
    r"import os,sys\nb=bytes()\nwhile len(b)<{size}:\n c=os.read(0,{size}-len(b))\n if not c:sys.exit(1)\n b+=c\n"
    r"if sys.version_info<{oldest}:sys.exit(sys.version.split()[0])\nimport zlib\nexec(zlib.decompress(b))"
)


@functools.cache
def parcel(*, lingers: bool = False) -> bytes:
    """The agent and what starts it, packed; the node's interpreter reads it from its standard input.

    Args:
        lingers: it may outlive the connection, so nothing that it says may go there.
    """
    quiet = "none = os.open(os.devnull, os.O_WRONLY)\nos.dup2(none, 1)\nos.dup2(none, 2)\n" if lingers else ""
    text = (
        f"import json, os\nparcel = json.loads({json.dumps(boot.sources())!r})\nexec(parcel['loader'])\n"
        "fd_in, fd_out, none = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)\n"
        "os.dup2(none, 0)\nos.dup2(2, 1)\nos.close(none)\n"
        f"agent = load(parcel, {boot.AGENT_MODULES!r})\nos.write(fd_out, {MARK!r})\n{quiet}"
        "agent.serve_pipes(fd_in, fd_out, parcel)\nos._exit(0)\n"
    )
    return zlib.compress(text.encode())


def program(*, lingers: bool = False) -> str:
    """What the interpreter is given with ``-c``; it reads the rest from its standard input.

    Args:
        lingers: the agent goes on when its front end is gone, unless it is told to end.
    """
    first = _FIRST.format(size=len(parcel(lingers=lingers)), oldest=OLDEST)
    return f'exec("{first}")'


def command(python: str, *, lingers: bool = False) -> str:
    """What the node's shell is given.

    Args:
        python: the interpreter, with arguments if there are some, as text for that shell.
        lingers: see `program`.
    """
    return f"{python} -u -c '{program(lingers=lingers)}'"


class StartFailed(Exception):
    """The agent's process ended before it gave a sign of life.

    Attributes:
        returncode: its exit status, None when it did not end.
    """

    def __init__(self, returncode: int | None) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode


class PipeLink:
    """A link over a stream to an agent that was started with `command`.

    Args:
        start: starts it with a socket as its standard input and output.
        deliver: takes frames, and None at the end.
        deadline_s: from its start to its first sign of life.
        lingers: as it was started.

    Raises:
        StartFailed: it ended before it gave a sign of life.
        TimeoutError: it gave none in time.
        OSError: it could not be started.
    """

    def __init__(
        self,
        start: Callable[[socket.socket], subprocess.Popen[bytes]],
        deliver: Callable[[bytes | None], None],
        deadline_s: float,
        *,
        lingers: bool = False,
    ) -> None:
        self._lingers = lingers
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
            self._greet(deadline_s)
        except BaseException:
            self.close(0.0)
            self._socket.close()
            raise
        threading.Thread(target=self._listen, args=(deliver,), name="listen", daemon=True).start()

    def _greet(self, deadline_s: float) -> None:
        """Send the agent, and wait for its mark."""
        self._socket.settimeout(deadline_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # why, says its end
            self._socket.sendall(parcel(lingers=self._lingers))
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
        reader = wire.Reader(self._socket.fileno())
        while (frames := reader.read()) is not None:
            for frame in frames:
                deliver(frame)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._send_lock:
            self._socket.close()
        deliver(None)

    def send(self, frame: bytes) -> None:
        """See `Link.send`."""
        with self._send_lock:
            self._socket.sendall(frame)

    def close(self, grace_s: float = CLOSE_S) -> None:
        """See `Link.close`."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        if self._lingers:
            # The way may be full or gone: said from a thread of its own, and not waited for longer than a moment.
            farewell = threading.Thread(target=self._say_bye, name="bye", daemon=True)
            farewell.start()
            farewell.join(BYE_S)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)  # also wakes whoever waits to write
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(CLOSE_S)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _say_bye(self) -> None:
        with contextlib.suppress(OSError):
            self.send(wire.pack(wire.BYE))


def _code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        return None
