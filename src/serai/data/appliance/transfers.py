"""Bodies: files that are sent (by sendfile where the kernel can), and files that come."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from serai.access.stores.bodies import SHA256, digest_fields, said_digests, wants_sha256
from serai.data.appliance.files import Files, Unmet, etag_of
from serai.data.appliance.pages import content_type, http_date
from serai.data.appliance.uploads import Receipt, Upload, unmet, write_at
from serai.data.bodies.straight import can_be, take_straight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from aiohttp.payload import Payload

    from serai.data.appliance.paths import Parts
    from serai.data.appliance.rights import Identity
    from serai.data.bodies.load import Load

__all__ = ["Transfers"]

SMALL = 256 << 10  # bytes that are read, or taken, in one
PIECE = 1 << 20
STRIDE = 16 << 20  # bytes that are sent under one deadline
MOST_SPARE = 2  # buffers that are kept for the next bodies of many files: as many as one client sends at a time
MOST_STRAIGHT = 8  # bodies that have a thread each while they come: half of those there are, so that others are served
_T = TypeVar("_T")


@dataclass(slots=True)
class _Answer:
    """What a GET sends."""

    status: int
    headers: dict[str, str]
    fd: int = -1
    start: int = 0
    count: int = 0
    body: bytes | None = None


@dataclass
class Transfers:
    """Sending and taking of files.

    Attributes:
        files: where they are.
        disk: threads for what blocks.
        load: is told of transfers as they begin and end.
        idle_s: how long a peer may neither send nor take anything.
        at_once: how many long bodies may come at once, and how many answers of many files may be in memory.
    """

    files: Files
    disk: Executor
    load: Load
    idle_s: float = 60.0
    at_once: int = 64
    _coming: asyncio.Semaphore = field(init=False)
    _going: asyncio.Semaphore = field(init=False)
    _straight: int = field(init=False, default=0)
    _spare: list[bytearray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._coming, self._going = asyncio.Semaphore(self.at_once), asyncio.Semaphore(self.at_once)

    async def run(self, do: Callable[..., _T], *arguments: Any) -> _T:
        """Do what may block."""
        return await asyncio.get_running_loop().run_in_executor(self.disk, do, *arguments)

    # ---- sending

    async def send(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        """Answer GET and HEAD of a file."""
        with self.load.transfer():
            return await self._send(request, who, parts)

    async def _send(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        answer = await self.run(self._prepare, request.headers, request.method == "HEAD", who, parts)
        if answer.fd < 0:
            if request.method == "HEAD" and answer.status < 300:
                answer.headers["Content-Length"] = str(answer.count)
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        try:
            stream = web.StreamResponse(status=answer.status, headers=answer.headers)
            stream.content_length = answer.count
            await stream.prepare(request)
            try:
                await self._pour(request, stream, answer)
                await stream.write_eof()
            except OSError:  # also TimeoutError; the head has gone out: all that is left is to break off
                if request.transport is not None:
                    request.transport.abort()
        finally:
            os.close(answer.fd)
        return stream

    def _prepare(self, headers: Mapping[str, str], bare: bool, who: Identity, parts: Parts) -> _Answer:
        opened = self.files.open(who, parts)
        fd, found, keep = opened.fd, opened.found, False
        try:
            etag = etag_of(found)
            said = {
                "ETag": etag,
                "Last-Modified": http_date(found.st_mtime_ns),
                "Accept-Ranges": "bytes",
                "Content-Type": content_type(os.fsdecode(parts[-1])),
                "Content-Security-Policy": "sandbox",  # a page that somebody stored runs nothing here
                "X-Content-Type-Options": "nosniff",
            }
            status = _condition(headers, etag, found.st_mtime_ns)
            if status == 304:
                return _Answer(304, said | digest_fields(opened.digests))
            digests = opened.digests
            if wants_sha256(headers):  # which may take a while
                digests = {**digests, SHA256: self.files.sha256(opened)}
            said |= digest_fields(digests)
            span = _range(headers, etag, said["Last-Modified"], found.st_size)
            if span is None:
                return _Answer(416, {"Content-Range": f"bytes */{found.st_size}"})
            start, stop, partial = span
            if partial:
                said["Content-Range"] = f"bytes {start}-{stop - 1}/{found.st_size}"
            answer = _Answer(206 if partial else 200, said, start=start, count=stop - start)
            if bare:
                return answer
            if answer.count <= SMALL:
                answer.body = os.pread(fd, answer.count, start) if answer.count else b""
                if len(answer.body) != answer.count:
                    raise OSError(errno.EIO, "the file became shorter")
                return answer
            answer.fd, keep = fd, True
            return answer
        finally:
            if not keep:
                os.close(fd)

    async def give(self, request: web.BaseRequest, make: Callable[[], Payload]) -> web.StreamResponse:
        """Answer with what is in memory until it has gone out; so few at a time that there is memory for them."""
        async with self._going:
            answer = web.Response(body=await self.run(make))
            await answer.prepare(request)
            try:
                await answer.write_eof()
            except OSError:  # also TimeoutError; the head has gone out: all that is left is to break off
                if request.transport is not None:
                    request.transport.abort()
            return answer

    async def _pour(self, request: web.BaseRequest, stream: web.StreamResponse, answer: _Answer) -> None:
        loop, transport = asyncio.get_running_loop(), request.transport
        at, end = answer.start, answer.start + answer.count
        if transport is None:
            raise ConnectionResetError(errno.ECONNRESET, "the peer has gone")
        if transport.get_extra_info("sslcontext") is None:
            with os.fdopen(os.dup(answer.fd), "rb", buffering=0) as file:
                while at < end:
                    async with asyncio.timeout(self.idle_s):
                        sent = await loop.sendfile(transport, file, at, min(STRIDE, end - at))
                    if not sent:
                        raise ConnectionResetError(errno.EIO, "the file became shorter")
                    at += sent
            return
        piece = await self.run(os.pread, answer.fd, min(PIECE, end - at), at)
        while at < end:
            if not piece:
                raise ConnectionResetError(errno.EIO, "the file became shorter")
            at += len(piece)
            ahead = asyncio.ensure_future(self.run(os.pread, answer.fd, min(PIECE, end - at), at))
            try:
                async with asyncio.timeout(self.idle_s):
                    await stream.write(piece)
            finally:
                piece = await ahead

    # ---- taking

    async def take(self, request: web.BaseRequest, who: Identity, parts: Parts) -> Receipt:
        """Answer PUT: write what comes, and put it in its place."""
        with self.load.transfer():
            return await self._take(request, who, parts)

    async def _take(self, request: web.BaseRequest, who: Identity, parts: Parts) -> Receipt:
        headers, length = request.headers, request.content_length
        if "Content-Range" in headers:
            raise ValueError("a part of a file is not put: see PATCH")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError("bytes are taken as they are: no Content-Encoding")
        said = said_digests(headers)
        sha256 = SHA256 in said or wants_sha256(headers)
        check = None
        if "If-Match" in headers:
            check = unmet(headers["If-Match"], none=False)
        elif "If-None-Match" in headers:
            check = unmet(headers["If-None-Match"], none=True)
        parents = headers.get("Serai-Parents") == "1"
        lot = headers.get("Serai-Lot")

        def begin() -> Upload:
            upload = Upload(self.files, who, parts, length, lot, check, parents=parents)
            if sha256:
                upload.take_sha256()
            return upload

        if length is not None and length <= SMALL and "Expect" not in headers:
            data = await self._all(request)

            def whole() -> Receipt:
                with begin() as upload:
                    upload.write([data])
                    return upload.finish(said=said)

            return await self.run(whole)
        async with self._coming:
            upload = await self.run(begin)
            try:
                await self._receive(request, upload.write)
                return await self.run(lambda: upload.finish(said=said))
            finally:
                await self.run(upload.abandon)

    async def take_part(self, request: web.BaseRequest, who: Identity, parts: Parts) -> int:
        """Answer PATCH: write into a file in place from an offset on, and cut it there; returns its size."""
        with self.load.transfer():
            return await self._take_part(request, who, parts)

    async def _take_part(self, request: web.BaseRequest, who: Identity, parts: Parts) -> int:
        offset = request.headers.get("Upload-Offset", "")
        if not (offset.isascii() and offset.isdecimal() and len(offset) < 19) or request.content_length is None:
            raise ValueError("a part says Upload-Offset and Content-Length")
        start = at = int(offset)
        async with self._coming:
            fd, end = await self.run(write_at, self.files, who, parts, start, request.content_length)

            def write(pieces: Sequence[bytes | memoryview]) -> None:
                nonlocal at
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        count = os.write(fd, view)
                        at, view = at + count, view[count:]

            try:
                await self._receive(request, write)
            finally:
                await self.run(lambda: end(at))
        return at

    async def whole(self, request: web.BaseRequest, most: int, act: Callable[[memoryview], _T]) -> _T:
        """Do something with all of a body, whose length is said; so few at a time that there is memory for them.

        The bytes are gone when it is done: their memory is used again, since to ask the system for 8 MB anew each time
        costs as much as to copy them.

        Raises:
            ValueError: it is longer than it may be.
        """
        length = request.content_length
        if length is None or length > most:
            raise ValueError(f"{most} bytes at most, and Content-Length says how many")
        async with self._coming:
            buffer = self._spare.pop() if self._spare else bytearray()
            if len(buffer) < length:
                buffer = bytearray(length)
            body = memoryview(buffer)[:length]
            await self._fill(request, body)
            found = await self.run(act, body)
            if len(self._spare) < MOST_SPARE:
                self._spare.append(buffer)
            return found

    async def _fill(self, request: web.BaseRequest, body: memoryview) -> None:
        if self._can_be_straight(request):
            await self._take_straight(request, body)
            return
        at = 0
        while True:
            async with asyncio.timeout(self.idle_s):
                piece = await request.content.readany()
            if not piece:
                break
            body[at : at + len(piece)] = piece
            at += len(piece)
        if at != len(body):
            raise ConnectionResetError(errno.ECONNRESET, "the peer has gone before all came")

    def _can_be_straight(self, request: web.BaseRequest) -> bool:
        """Whether a body may have a thread: a peer that sends slowly keeps it for as long as it likes."""
        return self._straight < MOST_STRAIGHT and can_be(request)

    async def _take_straight(
        self, request: web.BaseRequest, into: Callable[[Sequence[bytes | memoryview]], object] | memoryview
    ) -> None:
        self._straight += 1
        try:
            await take_straight(request, into, self.run, self.idle_s)
        finally:
            self._straight -= 1

    async def _all(self, request: web.BaseRequest) -> bytes:
        pieces: list[bytes] = []
        await self._receive_into(request, pieces)
        return b"".join(pieces)

    async def _receive_into(self, request: web.BaseRequest, pieces: list[bytes]) -> None:
        while True:
            async with asyncio.timeout(self.idle_s):
                piece = await request.content.readany()
            if not piece:
                return
            pieces.append(piece)

    async def _receive(self, request: web.BaseRequest, write: Callable[[Sequence[bytes | memoryview]], None]) -> None:
        """Hand over what comes, a piece being written while the next one comes."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if self._can_be_straight(request):
            await self._take_straight(request, write)
            return
        writing: asyncio.Future[None] | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            while True:
                async with asyncio.timeout(self.idle_s):
                    piece = await request.content.readany()
                if piece:
                    pieces.append(piece)
                    size += len(piece)
                    if size < PIECE:
                        continue
                if writing is not None:
                    await writing
                    writing = None
                if pieces:
                    writing = asyncio.ensure_future(self.run(write, pieces))
                    pieces, size = [], 0
                if not piece:
                    break
        finally:
            if writing is not None:
                await writing


def _condition(headers: Mapping[str, str], etag: str, mtime_ns: int) -> int:
    """304 where the peer has it already, 200 where it is to be sent (RFC 9110, section 13.2.2).

    Raises:
        Unmet: it wants another version.
    """
    since = mtime_ns // 1_000_000_000
    if "If-Match" in headers:
        unmet(headers["If-Match"], none=False)(etag)
    elif (at := _date(headers.get("If-Unmodified-Since"))) is not None and since > at:
        raise Unmet("it was changed since")
    if "If-None-Match" in headers:
        known = {one.strip().removeprefix("W/") for one in headers["If-None-Match"].split(",")}
        return 304 if known & {"*", etag} else 200
    at = _date(headers.get("If-Modified-Since"))
    return 304 if at is not None and since <= at else 200


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _range(headers: Mapping[str, str], etag: str, changed: str, size: int) -> tuple[int, int, bool] | None:
    """Which bytes are wanted, and whether that is a part; None where there are none. Of several parts all is sent."""
    text = headers.get("Range", "")
    unit, _, span = text.partition("=")
    if unit.strip().lower() != "bytes" or "," in span or headers.get("If-Range", etag) not in {etag, changed}:
        return 0, size, False
    first, dash, last = (one.strip() for one in span.partition("-"))
    if not dash or not all(not one or (one.isascii() and one.isdecimal() and len(one) < 19) for one in (first, last)):
        return 0, size, False
    if not first:
        if not last:
            return 0, size, False
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return 0, size, False
    return (start, stop, True) if start < stop else None
