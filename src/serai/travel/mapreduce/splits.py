"""Reading an input's split: the lines that begin in it.

A split [start, stop) of a file owns every line whose first byte lies in it, so however a file is cut, each line belongs
to one split: reading goes from behind the first end of a line at or after ``start - 1`` to behind the first one at or
after ``stop - 1``. Lines end with a newline; what is compressed is one split.
"""

from __future__ import annotations

import collections
import io
import os
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, BinaryIO

BLOCK = 1 << 18  # bytes: what is read and worked on at once fits the processor's cache
TAIL = 1 << 16  # bytes read at once behind the split's end, where only the rest of a line is wanted
RELAY = 4 << 20  # bytes of one relayed read
AHEAD = 4  # relayed reads under way
LONGEST_LINE = 256 << 20  # bytes
ZSTD_PIECE = 1 << 14  # bytes that are decompressed at once: they may become a thousand times as many


class InputBroken(Exception):
    """An input is not what it was said to be: shorter, of another compression, or damaged."""


def local_chunks(
    path: str, begin: int, stop: int | None, size: int | None = None, mtime: int | None = None
) -> Iterator[bytes]:
    """Read a file from ``begin`` on to its end; behind ``stop`` in small pieces, since little of it is wanted.

    Raises:
        OSError: it cannot be read.
        InputBroken: it does not have ``size`` bytes, or was changed at another time than ``mtime``, in whole seconds.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(fd)
        has = found.st_size
        if size is not None and has != size:
            raise InputBroken("%s has %d bytes, and had %d when it was split" % (path, has, size))
        if mtime is not None and int(found.st_mtime) != mtime:
            raise InputBroken("%s was changed after it was split" % path)
        os.lseek(fd, begin, os.SEEK_SET)
        at = begin
        while True:
            chunk = os.read(fd, BLOCK if stop is None or at < stop else TAIL)
            if not chunk:
                return
            at += len(chunk)
            yield chunk
    finally:
        os.close(fd)


def relayed_chunks(
    read: Callable[[int, int], bytes], begin: int, stop: int | None, size: int | None = None
) -> Iterator[bytes]:
    """Read with a function, several reads ahead up to ``stop``, and one small one at a time behind it.

    Args:
        read: gives the bytes from a position, fewer than asked for only at the end.
        begin: where to begin.
        stop: where the split ends; None for the input's end.
        size: bytes of the input, None when nobody knows.

    Raises:
        InputBroken: the input ends before ``size``.
    """
    limit = stop if stop is not None else size
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="read") as threads:
        under_way = collections.deque()  # type: collections.deque[Any]
        ask = at = begin
        try:
            while True:
                while len(under_way) < AHEAD and (limit is None or ask < limit):
                    length = RELAY if limit is None else min(RELAY, limit - ask)
                    under_way.append((ask, length, threads.submit(read, ask, length)))
                    ask += length
                if under_way:
                    start, length, future = under_way.popleft()
                    chunk = future.result()
                else:
                    start, length = at, TAIL
                    chunk = read(at, TAIL) if size is None or at < size else b""
                if chunk:
                    at = start + len(chunk)
                    yield chunk
                if len(chunk) < length:
                    if size is not None and at < size:
                        raise InputBroken("the input ends after %d bytes, and had %d when it was split" % (at, size))
                    return
        finally:
            for _, _, future in under_way:
                future.cancel()


class _Stream(io.RawIOBase):
    """Chunks as a file that is read once from its beginning."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def unpacked(chunks: Iterator[bytes], compression: str, what: str) -> Iterator[bytes]:
    """Decompress, also what consists of several members one after another.

    Args:
        chunks: the whole of it.
        compression: ``gzip``, ``bz2``, ``xz`` or ``zstd``.
        what: the input's name, for errors.

    Raises:
        InputBroken: it is damaged, cut off or compressed otherwise, or this Python cannot decompress it.
    """
    import lzma  # noqa: PLC0415 - rarely needed, and some small interpreters lack it
    import zlib  # noqa: PLC0415 - the same

    try:
        if compression == "zstd":
            yield from _unpacked_zstd(chunks, what)
            return
        with _opened(io.BufferedReader(_Stream(chunks), BLOCK), compression) as file:
            while True:
                data = file.read(BLOCK)
                if not data:
                    return
                yield data
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputBroken("%s: its %s data are damaged or cut off: %s" % (what, compression, error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputBroken("%s: %s" % (what, error)) from error  # gzip and bz2 say so of other formats


def _opened(raw: BinaryIO, compression: str) -> BinaryIO:
    import importlib  # noqa: PLC0415 - only for what is compressed

    try:
        file = importlib.import_module({"gzip": "gzip", "bz2": "bz2", "xz": "lzma"}[compression]).open(raw, "rb")
    except (KeyError, ImportError) as error:
        raise InputBroken("this node's Python cannot decompress %s" % compression) from error
    return file  # type: ignore[no-any-return]


def _unpacked_zstd(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Decompress; frame by frame, since files of the package zstandard end quietly where a frame was cut off."""
    make, wrong = _zstd()
    frame = None
    try:
        for chunk in chunks:
            for at in range(0, len(chunk), ZSTD_PIECE):
                data = chunk[at : at + ZSTD_PIECE]
                while data:
                    frame = frame or make()
                    yield frame.decompress(data)
                    data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except wrong as error:
        raise InputBroken("%s: its zstd data are damaged: %s" % (what, error)) from error
    if frame is not None:
        raise EOFError("a frame does not end")


def _zstd() -> tuple[Callable[[], Any], type[Exception]]:
    """What makes a decompressor of one frame, and what that raises."""
    import importlib  # noqa: PLC0415 - only for what is compressed

    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        try:
            module = importlib.import_module("zstandard")
        except ImportError:
            needs = "that takes Python 3.14 or the package zstandard, or unpack it before"
            raise InputBroken("this node's Python cannot decompress zstd: %s" % needs) from None
        return lambda: module.ZstdDecompressor().decompressobj(), module.ZstdError
    return module.ZstdDecompressor, module.ZstdError


def clipped(chunks: Iterable[bytes], start: int, stop: int | None) -> Iterator[bytes]:
    """Cut the lines that begin in [start, stop) out of an input.

    Args:
        chunks: the input's bytes from ``max(0, start - 1)`` on.
        start: the first byte of the split.
        stop: behind its last byte; None for the input's end.
    """
    at = max(0, start - 1)  # where the chunk begins
    skipping = start > 0
    last = None if stop is None else stop - 1  # the first end of a line from here on is the split's end
    if stop is not None and stop <= start:
        return
    for whole in chunks:
        chunk, here = whole, at
        at += len(whole)
        if skipping:
            cut = chunk.find(b"\n") + 1
            if not cut:
                continue
            skipping = False
            if last is not None and here + cut > last:
                return
            chunk, here = chunk[cut:], here + cut
        if last is not None and at > last:
            cut = chunk.find(b"\n", max(0, last - here)) + 1
            if cut:
                yield chunk[:cut]
                return
        yield chunk


def lines_of(chunks: Iterable[bytes], longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """Make blocks of whole lines of chunks; only the last may lack its end.

    Raises:
        InputBroken: a line is longer than ``longest`` bytes.
    """
    parts: list[bytes] = []  # a line that has not ended yet
    held = 0
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            parts.append(chunk if cut == len(chunk) else chunk[:cut])
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            parts, held = [], 0
        if cut < len(chunk):
            parts.append(chunk[cut:])
            held += len(chunk) - cut
            if held > longest:
                raise InputBroken("there is a line of more than %d bytes: %r…" % (longest, parts[0][:60]))
    if parts:
        yield b"".join(parts)


def text_lines(block: bytes) -> list[str]:
    """A block's lines as text, without their ends; what is no UTF-8 becomes lone surrogates."""
    text = block.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if "\r" in text:
        lines = [line[:-1] if line.endswith("\r") else line for line in lines]  # noqa: FURB188 - runs on Python 3.8
    return lines


def byte_lines(block: bytes) -> list[bytes]:
    """A block's lines, without their ends."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if b"\r" in block:
        lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
    return lines


def is_same(path: str, size: int | None, same: Mapping[str, Any]) -> bool:
    """Whether a path of this node is the input that another host has, as its size, time and inode number say.

    Args:
        path: that can be opened, if it is.
        size: of the input, in bytes.
        same: its ``mtime`` in whole seconds, without which nothing is the same, and ``inode`` or None.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
    except OSError:
        return False
    if same.get("inode") is not None and found.st_ino != same["inode"]:
        return False
    return same.get("mtime") is not None and (found.st_size, int(found.st_mtime)) == (size, same["mtime"])


def blocks_of(order: Mapping[str, Any], read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """The blocks of lines of a map order's input.

    Args:
        order: ``url``, ``path`` (None where it is not on this node), ``same`` (what must hold of the path, else it is
            not used), ``mtime`` (that it must have, where it is sure), ``start``, ``stop``, ``compression``, ``size``.
        read: reads the input through the front end.
    """
    start, stop, compression = int(order.get("start") or 0), order.get("stop"), order.get("compression")
    path, size = order.get("path"), order.get("size")
    same = order.get("same")
    if path and same is not None and not is_same(path, size, same):
        path = None
    what = str(path or order.get("url"))
    begin = max(0, start - 1)
    until = None if compression else stop
    if path:
        chunks = local_chunks(path, begin, until, size, order.get("mtime"))
    else:
        chunks = relayed_chunks(read, begin, until, size)
    if compression:
        return lines_of(unpacked(chunks, compression, what))
    return lines_of(clipped(chunks, start, stop))
