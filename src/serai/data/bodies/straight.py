"""A long body that is read from its socket in a thread, past the event loop: a third of the work for each byte.

The event loop makes an object of each 256 kB that come, and a parser looks at each. The length being known, none of
that is needed. What comes so is the last request of its connection, because nobody tells the parser. A piece is written
by another thread while the next one comes: to write costs as much as to read, and more on a disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

__all__ = ["FROM", "can_be", "take_straight"]

FROM = 4 << 20  # bytes; for fewer, a connection that ends costs more than it saves
PIECE = 2 << 20


def can_be(request: web.BaseRequest) -> bool:
    """Whether a request's body can be read so: its length is said, and no TLS is between."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return False
    length = request.content_length
    return length is not None and length >= FROM and isinstance(transport, asyncio.ReadTransport)


async def take_straight(
    request: web.BaseRequest,
    into: Callable[[Sequence[bytes | memoryview]], object] | memoryview,
    run: Callable[..., Any],
    idle_s: float,
) -> None:
    """Take a body of a known length as it comes; the connection ends afterwards.

    Args:
        request: see `can_be`.
        into: takes what has come, in a thread, and keeps none of it; or is as long as the body, and is filled.
        run: does something in a thread.
        idle_s: how long the peer may send nothing.

    Raises:
        TimeoutError: it sent nothing for so long.
        ConnectionError: it has gone.
    """
    transport: Any = request.transport
    content = request.content
    connection: Any = request.protocol  # the appliance's own kind
    connection.last = True
    early: list[bytes] = []
    # No step of the loop is between: when nothing is left in the reader, nothing is left in the parser either.
    while piece := content.read_nowait():
        early.append(piece)
    transport.pause_reading()
    left = (request.content_length or 0) - sum(map(len, early))
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
        own.settimeout(idle_s)
        reading = asyncio.ensure_future(run(_fill if isinstance(into, memoryview) else _read, own, left, early, into))
        try:
            await asyncio.shield(reading)
        except BaseException:
            if not reading.done():  # we are to end: the thread is woken
                own.shutdown(socket.SHUT_RD)
                await asyncio.wait([reading])
            transport.resume_reading()  # what still comes is dropped, so that the answer is seen
            raise
    content.feed_eof()


def _read(
    own: socket.socket,
    left: int,
    early: Sequence[bytes],
    write: Callable[[Sequence[bytes | memoryview]], object],
) -> None:
    buffer, other = (memoryview(bytearray(PIECE)) for _ in range(2))
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        writing = writer.submit(write, early)
        while left:
            piece = buffer[: min(PIECE, left)]
            _filled(own, piece)
            writing.result()  # what is written with is as free as the disk lets it be: no deadline makes it quicker
            writing = writer.submit(write, [piece])
            left -= len(piece)
            buffer, other = other, buffer
        writing.result()


def _fill(own: socket.socket, left: int, early: Sequence[bytes], view: memoryview) -> None:
    view[: len(view) - left] = b"".join(early)
    _filled(own, view[len(view) - left :])


def _filled(own: socket.socket, view: memoryview) -> None:
    while view:
        count = own.recv_into(view)
        if not count:
            raise ConnectionResetError(errno.ECONNRESET, "the peer has gone before all came")
        view = view[count:]
