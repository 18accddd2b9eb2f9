"""Many small files in one request: what a request costs is paid once for some hundred of them.

``POST /.serai/put``: a bundle (`serai.access.stores.bodies`) whose rows have ``path``, ``size`` and a digest (``xxh3``
or ``sha256``), and may have ``exclusive`` and ``parents``. The answer has a row for each: ``etag``, or ``errno`` and
``error``.

``POST /.serai/get`` with ``{"paths": […]}`` is answered by a bundle whose rows have ``size`` and the digests that are
known, or ``errno`` and ``error``, or ``later``, its size: it did not fit in, and is to be asked for again or by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

from aiohttp.payload import Payload

from serai.access.stores.bodies import MOST_BYTES, MOST_FILES, SHA256, XXH3, bundle_head, unbundle
from serai.data.appliance.files import Files, Unmet
from serai.data.appliance.lots import NoRoom
from serai.data.appliance.paths import parts_of_text
from serai.data.appliance.uploads import Upload, no_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp.abc import AbstractStreamWriter

    from serai.access.stores.bodies import Digests
    from serai.data.appliance.rights import Identity

__all__ = ["MOST_BODY", "Bundled", "get_many", "put_many"]

IDLE_S = 60.0
MOST_BODY = MOST_BYTES + (1 << 20)  # with its index
KINDS = (("xxh3", XXH3), ("sha256", SHA256))
_TROUBLE = (OSError, ValueError, NoRoom, Unmet)


def put_many(
    files: Files, who: Identity, message: bytes | bytearray | memoryview, lot: str | None
) -> list[dict[str, Any]]:
    """Write many files, each whole or not at all; one that cannot be written keeps no other from it.

    Raises:
        ValueError: it is no bundle, or too many are in it.
    """
    rows, contents = unbundle(message)
    if len(rows) > MOST_FILES:
        raise ValueError(f"{MOST_FILES} files at most are put in one")
    answers: list[dict[str, Any]] = [{} for _ in rows]
    with contextlib.ExitStack() as stack:
        near, folders = stack.enter_context(files.keeping())
        begun: list[tuple[int, Upload, Digests]] = []
        for number, (row, content) in enumerate(zip(rows, contents, strict=True)):
            try:
                exclusive, parents = bool(row.get("exclusive")), bool(row.get("parents"))
                path, said = parts_of_text(str(row["path"])), _said_of(row)
                upload = stack.enter_context(
                    Upload(near, who, path, len(content), lot, exclusive=exclusive, parents=parents)
                )
                if SHA256 in said:
                    upload.take_sha256()
                upload.write([content])
                begun.append((number, upload, said))
            except KeyError:
                answers[number] = {"errno": "EINVAL", "error": "a row has path, size, and xxh3 or sha256"}
            except _TROUBLE as error:
                answers[number] = _said(error)
        # One write of the book for all of them. Whoever puts a file in its place takes these two in this order.
        with files.commits, files.book.together():
            folders.forget()  # from here on nobody moves them
            for number, upload, said in begun:
                try:
                    answers[number] = {"etag": upload.finish(said=said).etag}
                except _TROUBLE as error:
                    answers[number] = _said(error)
    return answers


class Bundled(Payload):
    """A bundle as the body of an answer, whose pieces are sent one after another, copied to nowhere before.

    Args:
        pieces: its bytes.
        idle_s: how long the peer may take nothing.
    """

    _autoclose = True

    def __init__(self, pieces: Sequence[bytes], idle_s: float = IDLE_S) -> None:
        super().__init__(pieces)
        self._pieces, self._size, self._idle_s = pieces, sum(map(len, pieces)), idle_s

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See aiohttp."""
        for piece in self._pieces:
            if piece:
                async with asyncio.timeout(self._idle_s):
                    await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See aiohttp; a bundle is no text."""
        return b"".join(self._pieces).decode(encoding, errors)


def get_many(files: Files, who: Identity, said: Mapping[str, Any]) -> Bundled:
    """The bundle of many files.

    Raises:
        ValueError: it is not said which, or too many.
    """
    paths: Sequence[Any] = said.get("paths", ())
    if not isinstance(paths, list) or len(paths) > MOST_FILES:
        raise ValueError(f"{MOST_FILES} paths at most, in a list")
    rows: list[dict[str, Any]] = []
    contents: list[bytes] = []
    room = MOST_BYTES
    with files.keeping() as (near, _):
        for path in paths:
            try:
                row, content = _one(near, who, str(path), room)
            except _TROUBLE as error:
                row, content = _said(error), b""
            rows.append(row)
            contents.append(content)
            room -= len(content)
    return Bundled([bundle_head(rows), *contents])


def _one(files: Files, who: Identity, path: str, room: int) -> tuple[dict[str, Any], bytes]:
    fd, found, _, digests, _ = files.open(who, parts_of_text(path))
    try:
        if found.st_size > room:
            return {"later": found.st_size}, b""
        content = os.read(fd, found.st_size + 1) if found.st_size else b""
        while len(content) < found.st_size and (more := os.read(fd, found.st_size - len(content))):
            content += more
    finally:
        os.close(fd)
    if len(content) != found.st_size:
        raise OSError(errno.EIO, "it changed while it was read", path)
    return {"size": len(content)} | {name: digests[kind].hex() for name, kind in KINDS if kind in digests}, content


def _said_of(row: Mapping[str, Any]) -> Digests:
    """The digests that a row says, of which there is one at least.

    Raises:
        KeyError: none.
        ValueError: it cannot be one.
    """
    said = {kind: bytes.fromhex(str(row[name])) for name, kind in KINDS if name in row}
    if not said:
        raise KeyError
    return said


def _said(error: Exception) -> dict[str, Any]:
    """An error as a row has it, with what HTTP's statuses tell where a file is sent by itself."""
    if no_space(error):
        return {"errno": "ENOSPC", "error": str(error) if isinstance(error, NoRoom) else "the disk is full"}
    if isinstance(error, OSError):
        return {"errno": errno.errorcode.get(error.errno or 0, "EIO"), "error": error.strerror or str(error)}
    number = "EEXIST" if isinstance(error, Unmet) else "EINVAL"
    return {"errno": number, "error": str(error.args[0]) if error.args else "it cannot be understood"}
