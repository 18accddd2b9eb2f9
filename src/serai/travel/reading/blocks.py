"""Parts of files that were fetched, kept in a directory that several programs share.

A file is cut into segments, each a sparse file of its own: its blocks, and behind them a byte for each that is there.
A block is written before its byte is; a byte that is set stays set. So no lock is needed to read or to write. What is
too much is taken away by whole segments, the ones used longest ago first; whoever has one of them open goes on with it.

Nothing survives a restart of the machine, when a byte might have reached the disk before its block did.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
import time

BLOCK = 1 << 15  # bytes
PER_SEGMENT = 128
SEGMENT = BLOCK * PER_SEGMENT
MOST_OPEN = 48  # segments
MOST_HELD = 24 << 20  # bytes in memory
LEAST_FREE = 1 << 30  # bytes of the disk, or a twentieth of it if that is less
TOUCHED_S = 10.0  # how exactly it is known when a segment was used


def key_of(identity: str, stamp: str, size: int) -> str:
    """The name of a version of a file."""
    text = "\0".join((identity, stamp, str(size)))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()


def boot_mark() -> str:
    """Tells one run of this machine from the next."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()[:36]
    except OSError:
        return "unknown"


class _Segment:
    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path, self.touched = fd, path, 0.0
        self.there = bytearray(PER_SEGMENT)
        self.users = 0
        self.gone = False

    def look(self) -> None:
        """See which blocks there are."""
        data = os.pread(self.fd, PER_SEGMENT, SEGMENT)
        self.there[: len(data)] = data


class Blocks:
    """The blocks that are kept.

    Args:
        directory: where; None keeps them in memory only.
        limit: how many bytes may be kept there by all programs together, about.
    """

    def __init__(self, directory: str | None, limit: int) -> None:
        self._directory, self._limit = directory, limit
        self._lock = threading.Lock()
        self._held: collections.OrderedDict[tuple[str, int], memoryview] = collections.OrderedDict()
        self._held_bytes = 0
        self._open: collections.OrderedDict[tuple[str, int], _Segment] = collections.OrderedDict()
        self._written = 0  # bytes since it was looked how many there are
        self._full_until = 0.0
        if directory is not None:
            self._room = os.path.join(directory, boot_mark())
            _private(directory)
            os.makedirs(self._room, mode=0o700, exist_ok=True)
            self._make_room()

    def has(self, key: str, block: int) -> bool:
        """Whether a block is there."""
        with self._lock:
            if (key, block) in self._held:
                return True
        if self._directory is None:
            return False
        with self._segment(key, block // PER_SEGMENT, make=False) as segment:
            return segment is not None and _has(segment, block % PER_SEGMENT)

    def get(self, key: str, block: int, length: int) -> bytes | memoryview | None:
        """A block of so many bytes; None where it is not there."""
        with self._lock:
            data = self._held.get((key, block))
            if data is not None:
                self._held.move_to_end((key, block))
        if data is not None:
            return data if len(data) == length else None
        if self._directory is None:
            return None
        with self._segment(key, block // PER_SEGMENT, make=False) as segment:
            if segment is None or not _has(segment, block % PER_SEGMENT):
                return None
            kept = os.pread(segment.fd, length, block % PER_SEGMENT * BLOCK)
        return kept if len(kept) == length else None

    def put(self, key: str, first: int, data: bytes | memoryview) -> None:
        """Keep blocks that follow one another, at least for a moment; the last may be a file's, and shorter."""
        view = memoryview(data)
        with self._lock:
            for at in range(0, len(view), BLOCK):
                block = view[at : at + BLOCK]
                former = self._held.pop((key, first + at // BLOCK), None)
                self._held[key, first + at // BLOCK] = block
                self._held_bytes += len(block) - (len(former) if former is not None else 0)
            while self._held_bytes > MOST_HELD:
                self._held_bytes -= len(self._held.popitem(last=False)[1])
        if self._directory is None or time.monotonic() < self._full_until:
            return
        try:
            free, least = self._free()
            if free < least + len(view):
                self._make_room(len(view))
            while view and time.monotonic() >= self._full_until:
                size = SEGMENT - first % PER_SEGMENT * BLOCK  # up to the end of a segment
                self._put(key, first, view[:size])
                first, view = first + size // BLOCK, view[size:]
        except OSError as error:  # the disk is full, or the directory was taken away: then it is not kept
            self._full_until = time.monotonic() + (5.0 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1.0)

    def _put(self, key: str, first: int, data: memoryview) -> None:
        count = (len(data) + BLOCK - 1) // BLOCK
        at = first % PER_SEGMENT
        with self._segment(key, first // PER_SEGMENT, make=True) as segment:
            if segment is None:
                return
            place, view = at * BLOCK, data
            while view:
                written = os.pwrite(segment.fd, view, place)
                place, view = place + written, view[written:]
            os.pwrite(segment.fd, b"\1" * count, SEGMENT + at)
            segment.there[at : at + count] = b"\1" * count
        with self._lock:
            self._written += len(data)
            due = self._written * 16 > self._limit
            if due:
                self._written = 0
        if due:
            self._make_room()

    @contextlib.contextmanager
    def _segment(self, key: str, number: int, *, make: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202 - 3.8
        with self._lock:
            segment = self._open.get((key, number))
            if segment is not None and os.fstat(segment.fd).st_nlink == 0:
                self._forget((key, number))
                segment = None
            if segment is None:
                segment = self._open_segment(key, number, make)
            if segment is not None:
                segment.users += 1
                self._open.move_to_end((key, number))
        if segment is None:
            yield None
            return
        try:
            now = time.monotonic()
            if now - segment.touched > TOUCHED_S:
                segment.touched = now
                with contextlib.suppress(OSError):
                    os.utime(segment.fd)
            yield segment
        finally:
            with self._lock:
                segment.users -= 1
                if segment.gone and not segment.users:
                    os.close(segment.fd)

    def _open_segment(self, key: str, number: int, make: bool) -> _Segment | None:
        path = "%s/%s/%s.%d" % (self._room, key[:2], key, number)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            if not make:
                return None
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(path, flags | os.O_CREAT, 0o600)
        segment = self._open[key, number] = _Segment(fd, path)
        segment.look()
        while len(self._open) > MOST_OPEN:
            self._forget(next(iter(self._open)))
        return segment

    def _forget(self, which: tuple[str, int]) -> None:
        segment = self._open.pop(which)
        segment.gone = True
        if not segment.users:
            os.close(segment.fd)

    def _make_room(self, more: int = 0) -> None:
        """Take away what is too much, and so that there is room for more bytes, unless another program is at it."""
        assert self._directory is not None  # noqa: S101 - for the reader of types
        try:
            lock = os.open(os.path.join(self._directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._evict(more)
        finally:
            os.close(lock)

    def _evict(self, more: int) -> None:
        assert self._directory is not None  # noqa: S101 - for the reader of types
        found: list[tuple[float, int, str]] = []
        for folder, _, names in os.walk(self._directory):
            for name in names:
                path = os.path.join(folder, name)
                if name == "lock":
                    continue
                with contextlib.suppress(OSError):
                    facts = os.stat(path)
                    old = not folder.startswith(self._room)  # of a time before the machine was started
                    found.append((0.0 if old else facts.st_mtime, facts.st_blocks * 512, path))
        free, least = self._free()
        least += more
        for _, size, path in victims(found, self._limit, free, least):
            with contextlib.suppress(OSError):
                os.unlink(path)
            free += size
        with self._lock:  # what is open takes its room until it is closed
            for which, segment in list(self._open.items()):
                if os.fstat(segment.fd).st_nlink == 0:
                    self._forget(which)
        if free < least:
            self._full_until = time.monotonic() + 5.0

    def _free(self) -> tuple[int, int]:
        """Bytes of the disk that are free, and how many are to be."""
        assert self._directory is not None  # noqa: S101 - for the reader of types
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize, min(LEAST_FREE, disk.f_blocks * disk.f_frsize // 20)

    def close(self) -> None:
        """Let go of files; nothing may be asked afterwards."""
        with self._lock:
            for which in list(self._open):
                self._forget(which)
            self._held.clear()


def victims(
    found: list[tuple[float, int, str]], limit: int, free: int, least_free: int
) -> list[tuple[float, int, str]]:
    """Which segments to take away: (last use, bytes, path) of them.

    Those used longest ago, until all have no more than nine tenths of the limit, and the disk has its least free.
    """
    whole = sum(size for _, size, _ in found)
    aim = limit - limit // 10 if whole > limit else whole
    aim = min(aim, whole - max(0, least_free - free))
    chosen = []
    for one in sorted(found):
        if whole <= aim and one[0]:
            break
        chosen.append(one)
        whole -= one[1]
    return chosen


def _has(segment: _Segment, at: int) -> bool:
    if not segment.there[at]:
        segment.look()
    return bool(segment.there[at])


def _private(directory: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    facts = os.lstat(directory)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others may write there, or it is another's", directory)
