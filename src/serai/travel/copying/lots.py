"""Files on their way: small ones bundled in lots, large ones alone and resumable.

A stream carries contents and the numbers of files, and no names: where each goes was told to the receiving side by the
front end, so that a host which sends cannot choose what is written on the other.

Every file is written beside its name first, with PARTIAL at its end, and renamed when it is whole. Both sides digest
the bytes (sha256) while they flow.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Optional, Union

    from ..porter.calls import Call

PARTIAL = ".serai-partial"
LOT_BYTES = 1 << 20
LOT_FILES = 500
LONGEST_LOT = 64 << 20  # bytes; what says that it is longer is broken
MOST_BYTES = 16 << 20  # of a file that travels in a lot; one that grew beyond it meanwhile does not
BLOCK = 1 << 20
HEADER = struct.Struct(">II32s")  # lengths of the index and of the contents; digest of both
LONGEST_NAME = 255
CUT_OFF_S = 50.0  # a copy that was cut off lets go after 60 s of silence; who begins it again noticed that before


class Broken(ValueError):
    """A stream is not what its sender sent."""


def partial_of(path: str) -> str:
    """Where a file is written until it is whole."""
    directory, name = os.path.split(path)
    if len(os.fsencode(name)) + len(PARTIAL) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(directory, name + PARTIAL)


def pack_lot(index: Sequence[Sequence[int]], contents: Sequence[bytes]) -> bytes:
    """A lot: [number, size] of each of its files, and their bytes."""
    head = json.dumps(index, separators=(",", ":")).encode("ascii")
    body = b"".join(contents)
    digest = hashlib.sha256(head)
    digest.update(body)
    return b"".join((HEADER.pack(len(head), len(body), digest.digest()), head, body))


def lots(rows: Sequence[str], follow: bool, troubles: list[list[Any]]) -> Iterator[bytes]:
    """Yield files as lots.

    Args:
        rows: the path of each, whose number is its place.
        follow: whether a path may be a symbolic link.
        troubles: takes [number, errno, sentence] of those that cannot be read.
    """
    index: list[list[int]] = []
    contents: list[bytes] = []
    size = 0
    for number, path in enumerate(rows):
        try:
            data = _whole(path, follow)
        except OSError as error:
            troubles.append([number, error.errno or 0, error.strerror or str(error)])
            continue
        index.append([number, len(data)])
        contents.append(data)
        size += len(data)
        if size >= LOT_BYTES or len(index) >= LOT_FILES:
            yield pack_lot(index, contents)
            index, contents, size = [], [], 0
    if index:
        yield pack_lot(index, contents)


def _whole(path: str, follow: bool) -> bytes:
    # Not blocking, so that a pipe in the place of a file is not waited for.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        data = os.read(fd, BLOCK)
        if len(data) < BLOCK:
            rest = os.read(fd, BLOCK) if data else b""
            if not rest:
                return data
            data += rest
        pieces, size = [data], len(data)
        while True:
            more = os.read(fd, BLOCK)
            if not more:
                return b"".join(pieces)
            pieces.append(more)
            size += len(more)
            if size > MOST_BYTES:
                raise OSError(errno.EFBIG, "grew while it was copied")
    finally:
        os.close(fd)


def unpack_lots(pieces: Iterable[bytes]) -> Iterator[tuple[list[list[int]], memoryview]]:
    """Yield the lots of a stream: their index, and the bytes of all their files.

    Raises:
        Broken: a digest does not agree, or the stream ends within a lot.
    """
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= HEADER.size:
            head_size, size, digest = HEADER.unpack_from(buffer)
            if head_size + size > LONGEST_LOT:
                raise Broken("a lot says that it is %d bytes long" % (head_size + size))
            stop = HEADER.size + head_size + size
            if len(buffer) < stop:
                break
            lot = bytes(buffer[:stop])
            del buffer[:stop]
            view = memoryview(lot)[HEADER.size :]
            if hashlib.sha256(view).digest() != digest:
                raise Broken("the digests of what was sent and of what came differ")
            yield json.loads(bytes(view[:head_size])), view[head_size:]
    if buffer:
        raise Broken("the stream ended within a lot")


def store(pieces: Iterable[bytes], rows: Sequence[Sequence[Any]], wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files of a stream of lots.

    Args:
        pieces: the stream.
        rows: of each file [path, mode, whether one is there, mtime in ns]; see `place`.
        wishes: see `place`.

    Returns:
        files and bytes that were written, the numbers of those files, and troubles as [number, errno, sentence].
    """
    troubles: list[list[Any]] = []
    done: list[int] = []
    size = 0
    for index, contents in unpack_lots(pieces):
        at = 0
        for number, length in index:
            if not 0 <= number < len(rows) or not 0 <= length <= len(contents) - at:
                raise Broken("a lot names a file that nobody asked for")
            data = contents[at : at + length]
            at += length
            try:
                _store(data, rows[number], wishes)
            except OSError as error:
                troubles.append([number, error.errno or 0, error.strerror or str(error)])
            else:
                done.append(number)
                size += length
    return {"bytes": size, "done": done, "troubles": troubles}


def _store(data: memoryview, row: Sequence[Any], wishes: Mapping[str, Any]) -> None:
    path, mode, over, mtime_ns = row
    old = None
    if over:
        path, old = _before(path, wishes)
    partial, fd = _open_anew(path, 0o666 if mode is None else mode & 0o777)
    try:
        try:
            while data:
                data = data[os.write(fd, data) :]
            if old is not None or wishes.get("stamp"):
                _dress(fd, old, mode, mtime_ns, wishes)
        finally:
            os.close(fd)
        os.rename(partial, path)
    except BaseException:
        # A small one is not worth resuming.
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def _open_anew(path: str, mode: int) -> tuple[str, int]:
    """A new partial file; what an earlier attempt, or somebody else, left under its name is not written to."""
    partial = path + PARTIAL
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return partial, os.open(partial, flags, mode)
    except FileExistsError:
        os.unlink(partial)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        partial = partial_of(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return partial, os.open(partial, flags, mode)


def _before(path: str, wishes: Mapping[str, Any]) -> tuple[str, Optional[os.stat_result]]:
    """Where a file is that is to be replaced, through links as cp writes through them; and what is there."""
    try:
        old = os.lstat(path)
        if stat.S_ISLNK(old.st_mode):
            path = os.path.realpath(path)
            old = os.stat(path)
    except FileNotFoundError:
        return path, None
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not wishes.get("force") and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path, old


def _dress(
    fd: int, old: Optional[os.stat_result], mode: Optional[int], mtime_ns: Optional[int], wishes: Mapping[str, Any]
) -> None:
    """Give a file that is whole its permissions and times: those of the one it replaces, or of its source."""
    if old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):
            os.fchown(fd, old.st_uid, old.st_gid)
    if wishes.get("stamp"):
        if mode is not None:
            os.fchmod(fd, mode & 0o777)
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
    elif old is not None:
        os.fchmod(fd, stat.S_IMODE(old.st_mode))


# ---- large files


def offer(path: str) -> tuple[int, str]:
    """How much of a file came in an earlier attempt, and its digest."""
    try:
        fd = os.open(partial_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0, ""
    with open(fd, "rb", buffering=0) as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return 0, ""
        return found.st_size, _digest(file.fileno(), found.st_size)


def _digest(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    while size:
        got = os.readv(fd, [view[: min(size, BLOCK)]])
        if not got:
            return ""
        digest.update(view[:got])
        size -= got
    return digest.hexdigest()


def prefix(path: str, size: int) -> str:
    """The digest of the first bytes of a file; empty when it has fewer."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _digest(fd, size)
    finally:
        os.close(fd)


def prefixes(rows: Sequence[Sequence[Any]]) -> list[str]:
    """The digests of the first bytes of files, each [path, number]; empty of those that cannot be read."""
    found = []
    for path, size in rows:
        try:
            found.append(prefix(path, size))
        except OSError:
            found.append("")
    return found


def read(path: str, start: int, follow: bool, said: dict[str, Any], block: int = BLOCK) -> Iterator[bytes]:
    """Yield a file from an offset on; ``said`` is told the digest of these bytes, and their number, at the end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    digest = hashlib.sha256()
    size = 0
    with open(fd, "rb", buffering=0) as file:
        os.set_blocking(fd, True)
        if start:
            file.seek(start)
        with contextlib.suppress(AttributeError, OSError):
            os.posix_fadvise(fd, start, 0, os.POSIX_FADV_SEQUENTIAL)
        while True:
            data = os.read(fd, block)
            if not data:
                break
            digest.update(data)
            size += len(data)
            yield data
    said.update(digest=digest.hexdigest(), size=size)


def land(path: str, start: int, pieces: Iterable[Union[bytes, memoryview]], patience_s: float = 0.0) -> dict[str, Any]:
    """Write the bytes from an offset on into the partial file; return their digest and number.

    Args:
        path: the file that is to be.
        start: the offset.
        pieces: the bytes.
        patience_s: how long another copy that writes nothing has to let go of the partial file.

    Raises:
        BlockingIOError: another copy writes it now.
    """
    partial = partial_of(path)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    digest = hashlib.sha256()
    size = 0
    with open(fd, "wb", buffering=0) as file:
        _seize(fd, partial, patience_s)
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "%s is somebody else's" % os.path.basename(partial))
        os.ftruncate(fd, start)
        file.seek(start)
        try:
            for piece in pieces:
                view = memoryview(piece)
                digest.update(view)
                size += len(view)
                while view:
                    view = view[os.write(fd, view) :]
        except BaseException:
            if not start and not os.fstat(fd).st_size:
                os.unlink(partial)  # nothing to be resumed
            raise
    return {"digest": digest.hexdigest(), "size": size}


def _seize(fd: int, partial: str, patience_s: float) -> None:
    """Lock a partial file. Who was cut off from here writes nothing more, and lets go of it after a silence."""
    taken = BlockingIOError(errno.EAGAIN, "another copy writes it now")
    size = os.fstat(fd).st_size
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if os.fstat(fd).st_size != size or time.monotonic() >= end:
                raise taken from None
            time.sleep(0.1)
        except OSError:
            return  # a file system without locks
    try:
        here = os.stat(partial, follow_symlinks=False)
    except FileNotFoundError:
        raise taken from None
    if (here.st_dev, here.st_ino) != (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
        raise taken  # it was whole, and has its name by now


def commit(row: Sequence[Any], size: int, wishes: Mapping[str, Any]) -> None:
    """Give a partial file that is whole its permissions and times and its name.

    Args:
        row: see `store`.
        size: what it must have.
        wishes: "stamp": permissions and times of the source; "force": replace what may not be written to; "umask".
    """
    path, mode, over, mtime_ns = row
    partial = partial_of(path)
    target, old = _before(path, wishes) if over else (path, None)
    fd = os.open(partial, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != size:
            raise OSError(errno.EIO, "has %d bytes instead of %d" % (os.fstat(fd).st_size, size))
        os.fchmod(fd, (0o666 if mode is None else mode & 0o777) & ~int(wishes.get("umask", 0o077)))
        _dress(fd, old, mode, mtime_ns, wishes)
    finally:
        os.close(fd)
    os.replace(partial, target)


def do_send(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"follow"}, [path] -> lots, {"troubles"}."""
    troubles: list[list[Any]] = []
    for lot in lots(json.loads(call.body), bool(call.head.get("follow")), troubles):
        call.write(lot)
    return {"troubles": troubles}, b""


def do_store(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"wishes"}, [row], lots -> see `store`."""
    return store(call.pieces(), json.loads(call.body), call.head["wishes"]), b""


def do_offer(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path"} -> {"have", "digest"}."""
    have, digest = offer(call.head["path"])
    return {"have": have, "digest": digest}, b""


def do_prefix(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path", "size"} -> {"digest"}."""
    return {"digest": prefix(call.head["path"], int(call.head["size"]))}, b""


def do_prefixes(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{}, [[path, size]] -> [digest]."""
    return {}, json.dumps(prefixes(json.loads(call.body))).encode()


def do_read(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path", "start", "follow"} -> bytes, {"digest", "size"}."""
    said: dict[str, Any] = {}
    for data in read(call.head["path"], int(call.head["start"]), bool(call.head.get("follow")), said):
        call.write(data)
    return said, b""


def do_land(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"path", "start"}, bytes -> {"digest", "size"}."""
    return land(call.head["path"], int(call.head["start"]), call.pieces(), CUT_OFF_S), b""


def do_commit(call: Call) -> None:
    """{"row", "size", "wishes"}."""
    commit(call.head["row"], int(call.head["size"]), call.head["wishes"])


HANDLERS = {
    "lots.send": do_send,
    "lots.store": do_store,
    "lots.prefixes": do_prefixes,
    "large.offer": do_offer,
    "large.prefix": do_prefix,
    "large.read": do_read,
    "large.land": do_land,
    "large.commit": do_commit,
}
