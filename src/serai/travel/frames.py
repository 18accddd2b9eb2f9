"""Frames: how the front end and what travels to nodes speak with one another.

A frame is a fixed header, a JSON object (the head) and raw bytes (the body). Only builtin types travel, so that any two
versions of Python understand each other, and nothing that a node says is ever unpickled except a function's own result.
The agent passes frames on by their header alone.
"""

from __future__ import annotations

import json
import os
import struct

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HEADER = struct.Struct(
    ">BHQII"
)  # operation, lane (or another small number), identifier, length of head, length of body
CHUNK = 256 * 1024  # bytes of a file in one frame: small enough that a heartbeat waits little behind it on a slow link
LONG = 64 * 1024  # bytes: such frames are read to where they stay
LIMIT = 1 << 30  # bytes; a longer frame is a broken peer
LONGEST = LIMIT - (1 << 24)  # bytes of one result; the rest is room for what travels in the same frame


def pack(op: int, lane: int = 0, ident: int = 0, head: Mapping[str, Any] | None = None, body: bytes = b"") -> bytes:
    """Make a frame of its parts."""
    text = b"" if head is None else json.dumps(head, separators=(",", ":")).encode("ascii")
    return b"".join((HEADER.pack(op, lane, ident, len(text), len(body)), text, body))


def peek(frame: bytes) -> tuple[int, int, int]:
    """Return (op, lane, ident) of a frame."""
    op, lane, ident, _, _ = HEADER.unpack_from(frame)
    return op, lane, ident


def unpack(frame: bytes) -> tuple[int, int, int, dict[str, Any], bytes]:
    """Return (op, lane, ident, head, body) of a frame; the head is {} where there is none.

    Raises:
        ValueError: the lengths do not agree with the frame.
    """
    op, lane, ident, head_length, body_length = HEADER.unpack_from(frame)
    start = HEADER.size + head_length
    if len(frame) != start + body_length:
        raise ValueError("a frame of %d bytes says that it has %d" % (len(frame), start + body_length))
    head = json.loads(frame[HEADER.size : start]) if head_length else {}
    return op, lane, ident, head, frame[start:]


class Reader:
    """Cuts what comes out of a file descriptor into frames."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._broken = False
        self._rest = memoryview(b"")  # a long frame that is not whole yet …
        self._filled = 0  # … and how much of it has come

    def read(self) -> list[bytes] | None:
        """Read once and return the frames that are whole now, or None at the end of the stream."""
        if self._broken:
            return None
        try:
            if self._rest:
                return self._read_on()
            data = os.read(self._fd, 1 << 18)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._cut(data) if data else None

    def _read_on(self) -> list[bytes] | None:
        """Read more of a long frame, straight to where it is wanted."""
        count = os.readv(self._fd, [self._rest[self._filled :]])
        if not count:
            return None
        self._filled += count
        if self._filled < len(self._rest):
            return []
        whole, self._rest = bytes(self._rest), memoryview(b"")
        return [whole]

    def _cut(self, data: bytes) -> list[bytes] | None:
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            _, _, _, head_length, body_length = HEADER.unpack_from(buffer, start)
            if head_length + body_length > LIMIT:
                self._broken = True  # what came whole before it still counts
                return frames or None
            stop = start + HEADER.size + head_length + body_length
            if stop > len(buffer):
                if stop - start > LONG:
                    self._rest = memoryview(bytearray(stop - start))
                    self._filled = len(buffer) - start
                    self._rest[: self._filled] = buffer[start:]
                    start = len(buffer)
                break
            frames.append(bytes(buffer[start:stop]))
            start = stop
        if start:
            del buffer[:start]
        return frames


def write(fd: int, data: bytes, more: bytes | memoryview = b"") -> None:
    """Write all of the bytes, and those of ``more`` after them, to a blocking file descriptor."""
    if more:
        sent = os.writev(fd, [data, more])
        data, more = data[sent:], memoryview(more)[max(0, sent - len(data)) :]
    for one in (data, more):
        view = memoryview(one)
        while view:
            view = view[os.write(fd, view) :]


def data_header(op: int, ident: int, size: int) -> bytes:
    """What stands before ``size`` bytes of body in a frame without a head."""
    return HEADER.pack(op, 0, ident, 0, size)
