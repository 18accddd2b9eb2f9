"""Trees of files as one stream: no round trip per file, and nothing is written outside of where it was to go.

A record is the length of its head, the head (JSON) and, for a file, its bytes and their SHA-256. Heads are lists:

* ``["d", name, mode, mtime_ns]``: a directory, before what is in it
* ``["f", name, mode, mtime_ns, size]``
* ``["l", name, mtime_ns, destination]``: a symbolic link
* ``["t", name, errno, what]``: something that could not be read
* ``["e", failed]``: the end, with how many could not be read

Names are relative, with ``/``. The receiver opens every directory of a name by descriptor, from the root on, without
following links: neither a hostile name nor a link that lay there before leads out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import struct

from .calls import Pulse, Trouble
from .drafts import BLOCK, MARK, another_name, encoded, native, text, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .calls import Call
    from .files import Answer

LENGTH = struct.Struct(">I")
LONGEST_HEAD = 1 << 20  # bytes; longer ones are a broken peer
GATHER = 1 << 20  # bytes of records in a piece
SMALL = 256 << 10  # bytes: such files are read whole, so that their size is what was read
DIGEST_BYTES = 32
MOST_TROUBLES = 1000  # that are told by name
# The disk is full or broken: the other files would fare no better.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# ---- sending


class Packer:
    """Packs a tree.

    Args:
        root: its directory.
        pulse: told that work goes on.
    """

    def __init__(self, root: bytes, pulse: Pulse) -> None:
        self._root = root
        self._pulse = pulse
        self._failed = 0
        self._held: list[bytes] = []
        self._size = 0

    def pack(self, names: Iterable[str] | None) -> Iterator[bytes]:
        """Yield the stream of what is named, or of everything.

        Raises:
            OSError: the root cannot be read.
        """
        if names is None:
            os.close(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY))
            found = self._walk(self._root, b"")
        else:
            found = (os.path.join(self._root, native_name(name)) for name in names)
        start = len(self._root.rstrip(b"/")) + 1
        for path in found:
            yield from self._one(path, path[start:])
            if self._size >= GATHER:
                yield self._flush()
            self._pulse.beat()
        self._hold(["e", self._failed])
        yield self._flush()

    def _walk(self, folder: bytes, prefix: bytes) -> Iterator[bytes]:
        todo = [folder]
        while todo:
            here = todo.pop()
            try:
                entries = list(os.scandir(here))
            except OSError as error:
                self._trouble(here[len(self._root.rstrip(b"/")) + 1 :], error)
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                if not entry.name.endswith(MARK):  # what is just being written
                    yield entry.path

    def _one(self, path: bytes, name: bytes) -> Iterator[bytes]:
        try:
            found = os.lstat(path)
            mode, mtime_ns = stat.S_IMODE(found.st_mode), found.st_mtime_ns
            if stat.S_ISDIR(found.st_mode):
                self._hold(["d", text(name), mode, mtime_ns])
            elif stat.S_ISLNK(found.st_mode):
                self._hold(["l", text(name), mtime_ns, text(os.readlink(path))])
            elif stat.S_ISREG(found.st_mode):
                yield from self._file(path, name)
            else:
                self._trouble(name, OSError(0, "it is neither a file nor a directory nor a link"))
        except OSError as error:
            self._trouble(name, error)

    def _file(self, path: bytes, name: bytes) -> Iterator[bytes]:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            head = ["f", text(name), stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_size]
            if found.st_size <= SMALL:
                data = os.read(fd, SMALL + 1)
                if len(data) <= SMALL:
                    head[-1] = len(data)
                    self._hold(head, data, hashlib.sha256(data).digest())
                    return
                raise OSError(0, "it grew while it was read")
            self._hold(head)
            yield self._flush()
            left, made = found.st_size, hashlib.sha256()
            while left:
                data = os.read(fd, min(left, BLOCK))
                if not data:
                    # Its size has been told: nothing that follows would be understood.
                    raise Trouble("changed", "%s became shorter while it was read" % text(path))
                made.update(data)
                left -= len(data)
                yield data
            self._held.append(made.digest())
            self._size += DIGEST_BYTES
        finally:
            os.close(fd)

    def _trouble(self, name: bytes, error: OSError) -> None:
        self._failed += 1
        if self._failed <= MOST_TROUBLES:
            self._hold(["t", text(name), error.errno or 0, error.strerror or str(error)])

    def _hold(self, head: list[Any], *bodies: bytes) -> None:
        said = json.dumps(head, separators=(",", ":")).encode("ascii")
        self._held += (LENGTH.pack(len(said)), said, *bodies)
        self._size += LENGTH.size + len(said) + sum(map(len, bodies))

    def _flush(self) -> bytes:
        data = b"".join(self._held)
        self._held, self._size = [], 0
        return data


def native_name(name: str) -> bytes:
    """A name below a root, as the system has it.

    Raises:
        OSError: it leads out of the root.
    """
    raw = encoded(name)
    parts = raw.split(b"/")
    if b"\0" in raw or any(part in {b"", b".", b".."} for part in parts):
        raise OSError(errno.EINVAL, "not a name below the root of a tree", name)
    return raw


# ---- receiving


class _Source:
    """Reads exact numbers of bytes from pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._now = memoryview(b"")
        self._at = 0

    def exactly(self, size: int) -> bytes:
        """So many bytes, in one."""
        if len(self._now) - self._at >= size:
            self._at += size
            return bytes(self._now[self._at - size : self._at])
        return b"".join(self.parts(size))

    def parts(self, size: int) -> Iterator[bytes]:
        """So many bytes, in what parts they come."""
        while size:
            if self._at == len(self._now):
                piece = next(self._pieces, None)
                if piece is None:
                    raise Trouble("cut", "the stream of a tree ended before its end")
                self._now, self._at = memoryview(piece), 0
                continue
            count = min(size, len(self._now) - self._at)
            self._at += count
            size -= count
            yield bytes(self._now[self._at - count : self._at])


class _Arrival:
    """One file that is written under another name; after its first error, its bytes are passed over."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.fd = -1
        self._folder = -1
        self._name = self._temporary = b""

    def attempt(self, act: Callable[..., object], *arguments: object) -> None:
        """Do something unless something failed before."""
        if self.error is None:
            try:
                act(*arguments)
            except OSError as error:
                self.error = error

    def open(self, folder: int, name: bytes) -> None:
        """Begin."""
        self._folder, self._name, self._temporary = folder, name, another_name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self._temporary, flags, 0o600, dir_fd=folder)

    def settle(self, mode: int, mtime_ns: int) -> None:
        """Put it in its place."""
        os.fchmod(self.fd, mode & 0o777)
        os.utime(self.fd, ns=(mtime_ns, mtime_ns))
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = b""

    def close(self) -> None:
        """End; what is not in its place is removed."""
        if self.fd >= 0:
            os.close(self.fd)
            if self._temporary:
                with contextlib.suppress(OSError):
                    os.unlink(self._temporary, dir_fd=self._folder)


class Unpacker:
    """Writes a tree.

    Args:
        root: its directory; made if there is none.
        pulse: told that work goes on, with how many files are written.
    """

    def __init__(self, root: bytes, pulse: Callable[[int], object]) -> None:
        os.makedirs(root, exist_ok=True)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._pulse = pulse
        self._folder, self._folder_fd = b"", self._root
        self._made: list[tuple[bytes, int, int]] = []
        self.files = self.size = self.failed = 0
        self.troubles: list[list[Any]] = []

    def unpack(self, pieces: Iterable[bytes]) -> None:
        """Take the whole stream.

        Raises:
            OSError: the disk is full or broken, or the root cannot be written.
            Trouble: the stream is not what `Packer` gives, or not whole.
        """
        try:
            source = _Source(pieces)
            while self._record(source):
                self._pulse(self.files)
            self._settle()
        finally:
            self._leave()
            os.close(self._root)

    def _record(self, source: _Source) -> bool:
        (length,) = LENGTH.unpack(source.exactly(LENGTH.size))
        if length > LONGEST_HEAD:
            raise Trouble("broken", "this is not the stream of a tree")
        head = json.loads(source.exactly(length))
        kind = head[0]
        if kind == "e":
            self.failed += max(0, head[1] - MOST_TROUBLES)
            return False
        if kind == "t":
            self._trouble(head[1], head[2], head[3])
        elif kind == "f":
            self._file(head, source)
        elif kind in {"d", "l"}:
            try:
                (self._directory if kind == "d" else self._link)(*head[1:])
            except OSError as error:
                self._refused(head[1], error)
        else:
            raise Trouble("broken", "this is not the stream of a tree")
        return True

    def _file(self, head: list[Any], source: _Source) -> None:
        _, name, mode, mtime_ns, size = head
        made, arrival = hashlib.sha256(), _Arrival()
        arrival.attempt(lambda: arrival.open(*self._inside(name)))
        try:
            for part in [source.exactly(size)] if size <= SMALL else source.parts(size):
                made.update(part)
                arrival.attempt(write, arrival.fd, part)
            if made.digest() != source.exactly(DIGEST_BYTES):
                arrival.error = OSError(errno.EBADMSG, "it arrived with another digest than it was sent with", name)
            arrival.attempt(arrival.settle, mode, mtime_ns)
        finally:
            arrival.close()
        if arrival.error is not None:
            self._refused(name, arrival.error)
            return
        self.files += 1
        self.size += size

    def _directory(self, name: str, mode: int, mtime_ns: int) -> None:
        folder, last = self._inside(name)
        try:
            os.mkdir(last, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                raise
            return
        self._made.append((native_name(name), mode, mtime_ns))

    def _link(self, name: str, mtime_ns: int, destination: str) -> None:
        folder, last = self._inside(name)
        temporary = another_name(last)
        os.symlink(encoded(destination), temporary, dir_fd=folder)
        try:
            with contextlib.suppress(NotImplementedError):
                os.utime(temporary, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
            os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(temporary, dir_fd=folder)
            raise

    def _settle(self) -> None:
        """Directories get modes and times last: writing into them needs the one and changes the other."""
        for raw, mode, mtime_ns in reversed(self._made):
            try:
                folder, last = self._inside(text(raw))
                fd = os.open(last, _DIRECTORY, dir_fd=folder)
                try:
                    os.fchmod(fd, mode & 0o777)
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)
            except OSError as error:
                self._refused(text(raw), error)

    def _inside(self, name: str) -> tuple[int, bytes]:
        """The directory of a name, as a descriptor, and the rest of the name."""
        folder, _, last = native_name(name).rpartition(b"/")
        if folder != self._folder:
            self._leave()
            fd = self._root
            for part in folder.split(b"/") if folder else ():
                try:
                    below = self._step(fd, part)
                finally:
                    if fd != self._root:
                        os.close(fd)
                fd = below
            self._folder, self._folder_fd = folder, fd
        return self._folder_fd, last

    @staticmethod
    def _step(fd: int, part: bytes) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:  # its record was not sent, or was refused
            os.mkdir(part, 0o777, dir_fd=fd)
            return os.open(part, _DIRECTORY, dir_fd=fd)

    def _leave(self) -> None:
        if self._folder_fd != self._root:
            os.close(self._folder_fd)
        self._folder, self._folder_fd = b"", self._root

    def _refused(self, name: str, error: OSError) -> None:
        if error.errno in _HOPELESS:
            raise error
        what = error.strerror or str(error)
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            what = "a link or a file is in the way of its directory"
        self._trouble(name, error.errno or 0, what)

    def _trouble(self, name: str, number: int, what: str) -> None:
        self.failed += 1
        if len(self.troubles) < MOST_TROUBLES * 2:
            self.troubles.append([name, number, what])


# ---- what can be asked


def do_send(call: Call) -> Answer:
    """{"root"}, body: a JSON list of names, or nothing for all -> the stream of the tree."""
    names = json.loads(call.body) if call.body else None
    for piece in Packer(native(call.head["root"]), Pulse(None)).pack(names):
        call.write(piece)
    return None


def do_receive(call: Call) -> Answer:
    """{"root"} and the stream -> {"files", "size", "failed", "troubles": [[name, errno, what], …]}.

    Pieces are lines: how many files are written.
    """
    pulse = Pulse(call)

    def tell(files: int) -> None:
        pulse.sign = b"%d\n" % files
        pulse.beat()

    unpacker = Unpacker(native(call.head["root"]), tell)
    unpacker.unpack(call.pieces())
    return {
        "files": unpacker.files,
        "size": unpacker.size,
        "failed": unpacker.failed,
        "troubles": unpacker.troubles,
    }, b""


HANDLERS = {"files.send_tree": do_send, "files.receive_tree": do_receive}
