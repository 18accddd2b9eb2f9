"""The kernel's side of FUSE, version 7.31: operations, and how requests and answers are laid out (linux/fuse.h)."""

from __future__ import annotations

import errno
import stat
import struct

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from ..reading.sources import Stat

VERSION = (7, 31)
ROOT = 1
PAGE = 4096
MOST_DATA = 1 << 20  # bytes of one read or write
MOST_READAHEAD = 1 << 20
BUFFER = MOST_DATA + 4096 + 64

LOOKUP, FORGET, GETATTR, SETATTR, READLINK = 1, 2, 3, 4, 5
MKDIR, UNLINK, RMDIR, RENAME, OPEN, READ, WRITE, STATFS, RELEASE = 9, 10, 11, 12, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 20, 25, 26, 27, 28, 29, 30
ACCESS, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, READDIRPLUS, RENAME2 = 34, 35, 36, 38, 42, 44, 45

ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES = 1 << 0, 1 << 3, 1 << 5
DO_READDIRPLUS, READDIRPLUS_AUTO, PARALLEL_DIROPS, MAX_PAGES = 1 << 13, 1 << 14, 1 << 18, 1 << 22
WANTED = ASYNC_READ | ATOMIC_O_TRUNC | BIG_WRITES | DO_READDIRPLUS | READDIRPLUS_AUTO | PARALLEL_DIROPS | MAX_PAGES
MOST_BACKGROUND = 32  # reads ahead that the kernel may have under way

KEEP_CACHE = 1 << 1  # in the answer to OPEN
SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_MTIME, SET_MTIME_NOW = 1, 2, 4, 8, 32, 256
NOREPLACE = 1  # of RENAME2

IN = struct.Struct("<IIQQIIII")  # len, opcode, unique, nodeid, uid, gid, pid, padding
OUT = struct.Struct("<IiQ")  # len, error, unique
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_INVAL_INODE = struct.Struct("<Qqq")
_ATTR_HEAD = struct.Struct("<QII")
_DIRENT = struct.Struct("<QQII")
ENTRY_BYTES = _ENTRY.size + _ATTR.size
_STATFS = struct.Struct("<5Q4I6I")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")

INIT_IN = struct.Struct("<IIII")
SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
READ_IN = struct.Struct("<QQIIQII")  # fh, offset, size, read flags, lock owner, flags, padding: of READ, READDIR, WRITE
OPEN_IN = struct.Struct("<II")
CREATE_IN = struct.Struct("<IIII")
OPEN_OUT = struct.Struct("<QII")
HANDLE = struct.Struct("<Q")  # first in RELEASE, FLUSH, FSYNC
MKDIR_IN = struct.Struct("<II")
RENAME_IN = struct.Struct("<Q")
RENAME2_IN = struct.Struct("<QII")
FORGET_ONE = struct.Struct("<QQ")
COUNT = struct.Struct("<II")
SIZE_OUT = struct.Struct("<II")
NUMBER = struct.Struct("<Q")

_NOTIFY_INVAL_INODE = 2
_NANO = 1_000_000_000
_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR}


def answer(unique: int, data: bytes = b"", error: int = 0) -> bytes:
    """One answer as it is written to the device; ``error`` is an errno, positive."""
    if error:
        return OUT.pack(OUT.size, -error, unique)
    return OUT.pack(OUT.size + len(data), 0, unique) + data


def init_out(data: bytes) -> bytes:
    """The answer to INIT.

    Raises:
        OSError: the kernel is too old.
    """
    major, minor, readahead, flags = INIT_IN.unpack_from(data)
    if (major, minor) < (7, 23):
        raise OSError(errno.EPROTO, "FUSE %d.%d is older than can be served" % (major, minor))
    agreed = flags & WANTED
    pages = MOST_DATA // PAGE if agreed & MAX_PAGES else 0
    ahead = max(readahead, MOST_READAHEAD)
    congested = MOST_BACKGROUND * 3 // 4
    return _INIT_OUT.pack(*VERSION, ahead, agreed, MOST_BACKGROUND, congested, MOST_DATA, 1, pages, 0, 0)


def attributes(number: int, found: Stat, owner: tuple[int, int]) -> bytes:
    """A file's facts, as ``struct fuse_attr``."""
    seconds, nano = divmod(max(0, found.mtime_ns), _NANO)
    mode = _TYPES.get(found.kind, stat.S_IFREG) | (found.mode & 0o777)
    links = 2 if found.kind == "directory" else 1
    blocks = (found.size + 511) // 512
    times = (seconds, seconds, seconds, nano, nano, nano)
    return _ATTR.pack(number, found.size, blocks, *times, mode, links, owner[0], owner[1], 0, PAGE, 0)


def _valid(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * _NANO)


def entry(number: int, facts: bytes, valid_s: float) -> bytes:
    """The answer to LOOKUP; with number 0: there is no such name, for so long."""
    whole, nano = _valid(valid_s)
    return _ENTRY.pack(number, 0, whole, whole, nano, nano) + (facts or bytes(_ATTR.size))


def attr_out(facts: bytes, valid_s: float) -> bytes:
    """The answer to GETATTR."""
    whole, nano = _valid(valid_s)
    return _ATTR_HEAD.pack(whole, nano, 0) + facts


def dirent(number: int, offset: int, kind: str, name: bytes) -> bytes:
    """One name of a listing."""
    data = _DIRENT.pack(number, offset, len(name), (_TYPES.get(kind, stat.S_IFREG)) >> 12) + name
    return data + bytes(-len(data) % 8)


def statfs_out(total: int, free: int) -> bytes:
    """Sizes in bytes, as STATFS wants them."""
    return _STATFS.pack(total // PAGE, free // PAGE, free // PAGE, 0, 0, PAGE, 255, PAGE, 0, 0, 0, 0, 0, 0, 0)


def changed(number: int) -> bytes:
    """A notice that what the kernel knows of a file, its size for one, is not so any more; not about its pages."""
    data = _INVAL_INODE.pack(number, -1, 0)
    return OUT.pack(OUT.size + len(data), _NOTIFY_INVAL_INODE, 0) + data


def names(data: bytes) -> list[bytes]:
    """The names at the end of a request, each ended by NUL."""
    return data.split(b"\0")[:-1]
