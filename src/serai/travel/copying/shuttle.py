"""One large file over a session of its own: no frames, no credit, few copies of its bytes in memory.

An order (a line of JSON) goes first. Blocks follow, each after its length, from the side that has the file; a length of
0 ends them, and a line of JSON says how it went. The flow is ssh's to control, and the pipes'.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import struct
import time

from . import lots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

LENGTH = struct.Struct(">I")
LONGEST = 4 << 20  # bytes of a block; what says that it is longer is broken
BLOCK = 1 << 20
MOST_WORDS = 1 << 20  # bytes of the last line
SILENCE_S = 60.0
PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux; the name is in no Python before 3.10


class Line:
    """A pair of descriptors, with a deadline on every wait.

    Args:
        fd_in: what is read from.
        fd_out: what is written to.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = fd_in
        self._out = fd_out
        self._rest = b""
        self._buffer = bytearray(BLOCK)
        for fd in {fd_in, fd_out}:
            widen(fd)
            os.set_blocking(fd, False)

    def send(self, data: bytes | memoryview) -> None:
        """Write all of it.

        Raises:
            OSError: the other side is gone, or takes nothing.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._out, view) :]
            except BlockingIOError:
                _await([], [self._out])

    def send_blocks(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Write blocks and their end."""
        for block in blocks:
            view = memoryview(block)
            while view:
                piece = view[:LONGEST]
                self.send(LENGTH.pack(len(piece)))
                self.send(piece)
                view = view[len(piece) :]
        self.send(LENGTH.pack(0))

    def blocks(self) -> Iterator[memoryview]:
        """Yield blocks up to their end. Each is good until the next is asked for.

        Raises:
            OSError: the stream ended before.
        """
        while True:
            (size,) = LENGTH.unpack(self._exactly(LENGTH.size))
            if size > LONGEST:
                raise OSError(errno.EPROTO, "a block says that it is %d bytes long" % size)
            if not size:
                return
            if size > len(self._buffer):
                self._buffer = bytearray(size)
            yield self._exactly(size)

    def _exactly(self, size: int) -> memoryview:
        view = memoryview(self._buffer)[:size]
        got = 0
        while got < size:
            try:
                count = os.readv(self._in, [view[got:]])
            except BlockingIOError:
                _await([self._in], [])
                continue
            if not count:
                raise OSError(errno.ECONNRESET, "the connection was lost")
            got += count
        return view

    def say(self, what: Mapping[str, Any]) -> None:
        """Write a line."""
        self.send(json.dumps(what).encode("ascii") + b"\n")

    def hear(self) -> dict[str, Any]:
        """Read a line.

        Raises:
            OSError: the stream ended before.
        """
        text = b""
        while not text.endswith(b"\n"):
            try:
                data = os.read(self._in, 1)  # nothing beyond it
            except BlockingIOError:
                _await([self._in], [])
                continue
            if not data or len(text) > MOST_WORDS:
                raise OSError(errno.ECONNRESET, "the connection was lost")
            text += data
        said: dict[str, Any] = json.loads(text)
        return said


def _await(reading: list[int], writing: list[int]) -> None:
    poll = select.poll()
    for fd in reading:
        poll.register(fd, select.POLLIN)
    for fd in writing:
        poll.register(fd, select.POLLOUT)
    end = time.monotonic() + SILENCE_S
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise OSError(errno.ETIMEDOUT, "it took or gave nothing for %d s" % SILENCE_S)
        if poll.poll(left * 1000):
            return


def widen(fd: int) -> None:
    """Let a pipe hold more, where the system allows it."""
    import fcntl  # noqa: PLC0415 - on nodes, what is seldom used is loaded when it is

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _SET_PIPE_SIZE, PIPE_BYTES)


def read_order(line: Line, order: Mapping[str, Any], said: dict[str, Any]) -> Iterator[memoryview]:
    """Give the order to read, and yield what comes; ``said`` is told how it ended.

    Raises:
        OSError: the file cannot be read, or the connection was lost.
    """
    line.say(dict(order, do="read"))
    yield from line.blocks()
    _heard(line, said)


def land_order(line: Line, order: Mapping[str, Any], blocks: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Give the order to write, and send the blocks; gives how it ended.

    Raises:
        OSError: the file cannot be written, or the connection was lost.
    """
    line.say(dict(order, do="land"))
    said: dict[str, Any] = {}
    try:
        line.send_blocks(blocks)
    except BrokenPipeError:
        _heard(line, said)  # why it takes no more
        raise
    _heard(line, said)
    return said


def _heard(line: Line, said: dict[str, Any]) -> None:
    end = line.hear()
    if "errno" in end:
        raise OSError(end["errno"], end["what"])
    said.update(end)


def serve_pipes(fd_in: int, fd_out: int, _sources: Mapping[str, str]) -> None:
    """Take one order behind a pair of pipes."""
    line = Line(fd_in, fd_out)
    order = line.hear()
    try:
        if order["do"] == "read":
            said: dict[str, Any] = {}
            try:
                line.send_blocks(lots.read(order["path"], order["start"], order["follow"], said))
            except OSError as error:
                said = _words(error)
                line.send(LENGTH.pack(0))
        else:
            try:
                said = lots.land(order["path"], order["start"], line.blocks(), lots.CUT_OFF_S)
            except OSError as error:
                said = _words(error)
        line.say(said)
    except OSError:
        pass  # nobody is there any more


def _words(error: OSError) -> dict[str, Any]:
    return {"errno": error.errno or errno.EIO, "what": error.strerror or str(error)}
