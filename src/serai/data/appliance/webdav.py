"""Requests: HTTP's methods and WebDAV's (class 1, RFC 4918) over the files; here errors become answers."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from serai.access.stores.bodies import digest_fields
from serai.data.appliance import pages, paths
from serai.data.appliance.files import Unmet
from serai.data.appliance.lots import NoRoom
from serai.data.appliance.rights import ANYBODY, LIST, READ, Identity
from serai.data.appliance.uploads import Receipt, copy_file, no_space, unmet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from serai.clock import Clock
    from serai.data.appliance.control import Control
    from serai.data.appliance.paths import Parts
    from serai.data.appliance.transfers import Transfers

__all__ = ["Answers"]

LOOKING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
METHODS = "OPTIONS, GET, HEAD, PUT, PATCH, DELETE, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH"
MOST_XML = 64 << 10  # bytes
ROWS = 1000  # of a listing, sent at once
_STATUS: dict[type[OSError], int] = {
    FileNotFoundError: 404,
    PermissionError: 403,
    FileExistsError: 409,
    NotADirectoryError: 409,
    IsADirectoryError: 409,
    TimeoutError: 408,
}
_NO_PARENT = frozenset({"PUT", "MKCOL", "COPY", "MOVE", "PATCH"})


class Answers:
    """Answers requests.

    Args:
        transfers: for bodies, with the files.
        control: the appliance's own addresses.
        clock: tells the time.
        host_only: whether only this host can reach us, so that rights of everybody need no token.
    """

    def __init__(self, transfers: Transfers, control: Control, clock: Clock, *, host_only: bool) -> None:
        self._transfers, self._control, self._clock, self._host_only = transfers, control, clock, host_only
        self._files = transfers.files
        self.ending = False  # no connection is kept any more

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        connection: Any = request.protocol  # our own kind
        connection.begun = connection.busy = True
        try:
            response = await self._response(request)
        finally:
            connection.busy = False
        if not response.prepared:
            response.headers["Server"] = "serai"  # and not which versions of what
        if self.ending or connection.last:
            response.force_close()
        return response

    async def _response(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            who = self._files.keys.identify(request.headers.get("Authorization"), self._clock.wall())
            if who is None and "Authorization" not in request.headers and self._may_be_anybody(request):
                who = Identity(ANYBODY)
            if who is None:
                return _unauthorized()
            if request.method not in LOOKING and _foreign(request):
                return _refusal(403, "another site's page may not change anything here")
            return await self._answer(request, who)
        except (Unmet, ValueError, KeyError, NoRoom, OSError) as error:
            return _of_error(request.method, error)

    def _may_be_anybody(self, request: web.BaseRequest) -> bool:
        """Whether rights of everybody hold: not for pages that a browser was led to by another name for this host."""
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        local = name in {"localhost", "::1"} or name.startswith("127.")
        return self._host_only and local and any(one.user == ANYBODY for one in self._files.keys.grants)

    async def _answer(self, request: web.BaseRequest, who: Identity) -> web.StreamResponse:
        method = request.method
        path, _ = paths.split_target(request.raw_path)
        if method == "OPTIONS":
            return web.Response(headers={"DAV": "1", "Allow": METHODS, "MS-Author-Via": "DAV"})
        if path.startswith(f"/{os.fsdecode(paths.RESERVED)}/"):
            return await self._control.answer(request, who, path)
        parts = paths.parts_of(path)
        if who.paths is not None and parts not in who.paths:  # or it would be seen which directories there are
            raise PermissionError(errno.EACCES, "this token lets some files be read, and no more")
        act = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
            "MKCOL": self._mkcol,
            "COPY": self._copy_or_move,
            "MOVE": self._copy_or_move,
            "PROPFIND": self._propfind,
            "PROPPATCH": self._proppatch,
        }.get(method)
        if act is None:
            return _refusal(405, f"{method} is not answered here", allow=METHODS)
        return await act(request, who, parts)

    # ---- reading

    async def _get(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        try:
            if parts:
                return await self._transfers.send(request, who, parts)
        except IsADirectoryError:
            pass
        path, _ = paths.split_target(request.raw_path)
        if not path.endswith("/"):
            return web.Response(status=301, headers={"Location": paths.quoted(parts, directory=True)})
        rows = await self._transfers.run(lambda: list(itertools.islice(self._files.rows(who, parts), 100_000)))
        text = pages.html_page(paths.text_of(parts), rows)
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _propfind(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        depth = request.headers.get("Depth", "infinity").lower()
        if depth == "infinity":
            body = '<?xml version="1.0"?><D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>'
            return web.Response(status=403, text=body, content_type="application/xml")
        if depth not in {"0", "1"}:
            raise ValueError("Depth is 0 or 1")
        wanted, names = pages.wanted_of(await self._xml(request))
        own = await self._transfers.run(self._files.info, who, parts)
        self._files.need(who, parts, READ, LIST)
        directory = own["type"] == "directory"

        def rows() -> Iterator[tuple[str, dict[str, Any]]]:
            yield paths.quoted(parts, directory=directory), own | {"name": os.fsdecode(parts[-1]) if parts else ""}
            for row in self._files.rows(who, parts) if directory and depth == "1" else ():
                name = row["name"].encode("utf-8", "surrogateescape")
                yield paths.quoted((*parts, name), directory=row["type"] == "directory"), row

        sums = await self._transfers.run(self._files.book.sums) if wanted else {}
        text = pages.multistatus(rows(), wanted, names=names, sums=sums)
        stream = web.StreamResponse(status=207, headers={"Content-Type": 'application/xml; charset="utf-8"'})
        return await self.stream(request, stream, text)

    async def stream(
        self, request: web.BaseRequest, stream: web.StreamResponse, text: Iterator[str]
    ) -> web.StreamResponse:
        """Send a text whose pieces take time to make."""
        batches = self._batches(text)
        first = await anext(batches, b"")  # what fails at once still has an answer of its own
        await stream.prepare(request)
        await stream.write(first)
        async for batch in batches:
            async with asyncio.timeout(self._transfers.idle_s):
                await stream.write(batch)
        await stream.write_eof()
        return stream

    async def _batches(self, text: Iterator[str]) -> AsyncIterator[bytes]:
        def some() -> bytes:
            return "".join(itertools.islice(text, ROWS)).encode()

        while batch := await self._transfers.run(some):
            yield batch

    async def _xml(self, request: web.BaseRequest) -> bytes:
        body = b""
        while True:
            async with asyncio.timeout(self._transfers.idle_s):
                piece = await request.content.readany()
            if not piece:
                return body
            body += piece
            if len(body) > MOST_XML:
                raise ValueError(f"more than {MOST_XML} bytes are asked with")

    # ---- changing

    async def _put(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        if paths.split_target(request.raw_path)[0].endswith("/"):
            return _refusal(405, "a directory is made with MKCOL", errno.EISDIR, allow=METHODS)
        receipt = await self._transfers.take(request, who, parts)
        return web.Response(status=204 if receipt.replaced else 201, headers=_said(receipt))

    async def _patch(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        size = await self._transfers.take_part(request, who, parts)
        return web.Response(status=204, headers={"Upload-Offset": str(size)})

    async def _delete(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        check = unmet(request.headers["If-Match"], none=False) if "If-Match" in request.headers else None
        await self._transfers.run(lambda: self._files.remove(who, parts, recursive=True, check=check))
        return web.Response(status=204)

    async def _mkcol(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        if request.body_exists:
            return _refusal(415, "MKCOL takes no body")
        try:
            await self._transfers.run(self._files.mkdir, who, parts)
        except FileExistsError as error:
            return _refusal(405, str(error), errno.EEXIST, allow=METHODS)
        return web.Response(status=201)

    async def _proppatch(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        """No property can be set: all are the files' own."""
        await self._transfers.run(self._files.info, who, parts)
        await self._xml(request)
        return _refusal(403, "properties are the files' own")

    async def _copy_or_move(self, request: web.BaseRequest, who: Identity, parts: Parts) -> web.StreamResponse:
        target = self._destination(request)
        replace = request.headers.get("Overwrite", "T").upper() != "F"
        try:
            await self._transfers.run(self._files.info, who, parts)
        except FileNotFoundError as error:
            return _refusal(404, str(error), errno.ENOENT)
        if request.method == "MOVE":
            there = await self._transfers.run(lambda: self._files.move(who, parts, target, replace=replace, clear=True))
        else:
            shallow = request.headers.get("Depth", "infinity") == "0"
            there = await self._transfers.run(lambda: self._copy(who, parts, target, replace, shallow))
        return web.Response(status=204 if there else 201)

    @staticmethod
    def _destination(request: web.BaseRequest) -> Parts:
        text = request.headers.get("Destination", "")
        if not text:
            raise ValueError("where to is said by Destination")
        there = urlsplit(text)
        if there.netloc and there.netloc.rpartition("@")[2] != request.headers.get("Host"):
            raise ValueError("it is not copied to another server")
        path, _ = paths.split_target(text)
        return paths.parts_of(path)

    def _copy(self, who: Identity, source: Parts, target: Parts, replace: bool, shallow: bool) -> bool:
        """Copy a file, or a directory with all below."""
        files = self._files
        if source == target or (target[: len(source)] == source and not shallow):
            raise PermissionError(errno.EACCES, "a directory is not copied into itself")
        own = files.info(who, source)
        try:
            there: Mapping[str, Any] | None = files.info(who, target, follow=False)
        except FileNotFoundError:
            there = None
        if there is not None and not replace:
            raise Unmet("something is there already")
        if own["type"] != "directory":
            if there is not None and there["type"] == "directory":
                files.remove(who, target, recursive=True)
            copy_file(files, who, source, target)
            return there is not None
        rows = [] if shallow else list(files.rows(who, source, None))
        if there is not None:
            files.remove(who, target, recursive=True)
        files.mkdir(who, target)
        for row in rows:
            below = tuple(row["name"].encode("utf-8", "surrogateescape").split(b"/"))
            if row["type"] == "directory":
                files.mkdir(who, (*target, *below))
            elif row["type"] == "file":
                copy_file(files, who, (*source, *below), (*target, *below))
        return there is not None


def _said(receipt: Receipt) -> dict[str, str]:
    return {"ETag": receipt.etag} | digest_fields(receipt.digests)


def _foreign(request: web.BaseRequest) -> bool:
    """Whether a page of another site sends this: browsers say so."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}


def _unauthorized() -> web.Response:
    response = _refusal(401, "a token is needed, and it may have expired")
    response.headers["WWW-Authenticate"] = 'Basic realm="serai store", charset="UTF-8"'
    return response


def _of_error(method: str, error: Exception) -> web.Response:
    if no_space(error):
        return _refusal(507, str(error) if isinstance(error, NoRoom) else "the disk is full", errno.ENOSPC)
    if not isinstance(error, OSError):
        status = 412 if isinstance(error, Unmet) else 404 if isinstance(error, KeyError) else 400
        return _refusal(status, str(error.args[0]) if error.args else "it cannot be understood")
    status = _STATUS.get(type(error), 500)
    if status == 404 and method in _NO_PARENT:
        status = 409
    if error.errno in {errno.EINVAL, errno.ENOTEMPTY, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.EBADMSG}:
        status = 409
    if error.errno == errno.EFBIG:
        status = 400
    return _refusal(status, error.strerror or str(error) or "it took too long", error.errno or 0)


def _refusal(status: int, what: str, number: int = 0, allow: str | None = None) -> web.Response:
    headers = {"Serai-Errno": errno.errorcode[number]} if number in errno.errorcode else {}
    if allow is not None:
        headers["Allow"] = allow
    return web.json_response({"error": what}, status=status, headers=headers)
