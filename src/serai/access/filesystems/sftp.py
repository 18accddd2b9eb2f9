"""What stands in for the porter where a host has no Python, or lets a login have its files only: SFTP.

paramiko's client speaks it through a session of the host's one OpenSSH connection. It has what `far.PorterFiles` has,
with what SFTP cannot do done from here: digests and copies read the files over the network. Times are whole seconds,
and a directory with a name that is no UTF-8 cannot be listed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any

from serai.access.filesystems.sftp_session import drop, session
from serai.describe.host import HostFacts
from serai.errors import AccessError, HostUnreachable
from serai.travel.porter.drafts import another_name, encoded, native, text
from serai.travel.porter.files import kind_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    import paramiko

    from serai.access.openssh import Target

BLOCK = 1 << 20
AT_ONCE = 16  # blocks that are asked for before the first has come


class SftpFiles:
    """The files of a host by SFTP; one session for each process and host.

    Args:
        target: the host.
        why: why its porter cannot be had.

    Raises:
        AccessError: paramiko is not installed, or the host has no SFTP either.
    """

    def __init__(self, target: Target, why: AccessError) -> None:
        self._target = target
        try:
            import paramiko  # noqa: PLC0415, F401 - an extra, and slow to import
        except ImportError:
            raise AccessError(
                f"no porter can run there, and SFTP needs a package that is not installed: {why.what}",
                host=target.host,
                hint="pip install 'serai[sftp]'; or name an interpreter: python=/path/to/python3",
            ) from why
        self._home = ""
        session(target)

    @contextlib.contextmanager
    def _asking(self, path: str) -> Iterator[paramiko.SFTPClient]:
        """Ask the server; a session that is lost is forgotten, and errors name the path."""
        client = session(self._target)
        try:
            with client.sock.lock:
                yield client
        except UnicodeDecodeError as error:
            raise OSError(errno.EILSEQ, "a name in it is no UTF-8, and SFTP's client reads no others", path) from error
        except (EOFError, ConnectionError, TimeoutError) as error:
            drop(self._target, client)
            raise HostUnreachable("the SFTP session was lost", host=self._target.host) from error
        except OSError as error:
            if error.errno is None and str(error) in {"Socket is closed", "Server connection dropped: "}:
                drop(self._target, client)
                raise HostUnreachable("the SFTP session was lost", host=self._target.host) from error
            number = error.errno or errno.EIO
            raise OSError(number, os.strerror(number) if error.errno else str(error), path) from None

    def _at(self, path: str) -> bytes:
        """A path as the server has it."""
        if path == "~" or path.startswith("~/"):
            if not self._home:
                with self._asking(path) as client:
                    self._home = client.normalize(".")
            path = self._home + path[1:]
        return native(path)

    def facts(self) -> HostFacts:
        """See `HostFiles.host_facts`: what SFTP tells is little."""
        self._at("~")
        return HostFacts(self._target.host, "", self._target.user or "", -1, self._home)

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""
        raw = self._at(path)
        try:
            with self._asking(path) as client:
                found = client.lstat(raw)
                facts = _facts(found)
                if facts["islink"]:
                    destination = client.readlink(raw) or b""
                    facts["destination"] = destination if isinstance(destination, str) else text(destination)
                    if follow:
                        facts = {**facts, **_facts(client.stat(raw)), "islink": True}
        except FileNotFoundError:
            above = posixpath.dirname(raw)
            with self._asking(path) as client:
                if above != raw and not stat.S_ISDIR(client.stat(above).st_mode or 0):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            raise
        return facts

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """See `PorterFiles.rows`; one question for each directory."""
        own = self.info(path)
        found: list[dict[str, Any]] = []
        todo = [("", 1)] if own["type"] == "directory" else []
        while todo:
            below, level = todo.pop()
            here = f"{path.rstrip('/')}/{below}"
            try:
                with self._asking(here) as client:
                    entries = client.listdir_attr(self._at(here))
            except PermissionError:
                if not below:
                    raise
                continue
            for entry in entries:
                raw_name: str | bytes = entry.filename
                name = below + (raw_name if isinstance(raw_name, str) else text(raw_name))
                row = _facts(entry)
                if row["islink"]:
                    with contextlib.suppress(OSError):
                        row = self.info(f"{path.rstrip('/')}/{name}")
                    row["type"] = "file" if row["type"] == "file" else "other"
                found.append({**row, "name": name})
                if row["type"] == "directory" and (depth is None or level < depth):
                    todo.append((f"{name}/", level + 1))
        return own, found

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""
        if self.info(path)["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with self._asking(path) as client:
            file = client.open(self._at(path), "rb")
            size = file.stat().st_size or 0
        start = max(0, size + start) if start < 0 else start
        stop = size if stop is None else min(size, size + stop if stop < 0 else stop)
        chunks = [(at, min(BLOCK, stop - at)) for at in range(start, max(start, stop), BLOCK)]
        try:
            for at in range(0, len(chunks), AT_ONCE):
                with self._asking(path):
                    pieces = list(file.readv(chunks[at : at + AT_ONCE]))
                yield from pieces
        finally:
            with contextlib.suppress(OSError, AccessError), self._asking(path):
                file.close()

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one."""
        try:
            return b"".join(self.read_from(path, start, stop))
        except HostUnreachable:
            return b"".join(self.read_from(path, start, stop))

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order."""
        for path, start, stop in wanted:
            try:
                yield self.read(path, start, stop)
            except Exception as error:  # noqa: BLE001 - whoever asked decides
                yield error

    def ahead(self, path: str, start: int, stop: int) -> None:
        """Nothing is read ahead."""

    # ---- writing

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file."""
        with self.writing(path, how, parents=parents) as writing:
            writing.write(data)

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> SftpWriting:
        """See `PorterFiles.writing`."""
        with contextlib.suppress(OSError):
            found = self.info(path, follow=False)
            if found["islink"]:
                with self._asking(path) as client:
                    path = client.normalize(self._at(path))
        if parents:
            self.mkdir(posixpath.dirname(path) or "/", parents=True, exist_ok=True)
        mode: int | None = None
        with contextlib.suppress(FileNotFoundError):
            found = self.info(path)
            mode = stat.S_IMODE(found["mode"])
            if how == "x":
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if found["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return SftpWriting(self, path, how, keep=keep, mode=mode)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        raw = self._at(path)
        with self._asking(path) as client:
            made = not self._is_there(client, raw)
            with client.open(raw, "wb" if made else "r+b") as file:
                file.set_pipelined(True)
                if made:
                    file.chmod(0o600)
                file.seek(start)
                for piece in pieces:
                    file.write(bytes(piece))
                end: int = file.tell()
                file.truncate(end)
        return end

    @staticmethod
    def _is_there(client: paramiko.SFTPClient, raw: bytes) -> bool:
        try:
            client.stat(raw)
        except FileNotFoundError:
            return False
        return True

    # ---- changing

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        above = posixpath.dirname(path.rstrip("/"))
        if parents and above not in {"", "/", path}:
            try:
                self.info(above)
            except FileNotFoundError:
                self.mkdir(above, parents=True, exist_ok=True)
        try:
            with self._asking(path) as client:
                client.mkdir(self._at(path))
        except FileNotFoundError:
            raise
        except OSError:
            try:
                there = self.info(path)["type"]
            except FileNotFoundError:
                there = ""
            if not there:
                raise
            if there != "directory" or not exist_ok:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._asking(path) as client:
            client.rmdir(self._at(path))

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for path in paths:
            if self.info(path, follow=False)["type"] != "directory":
                with self._asking(path) as client:
                    client.remove(self._at(path))
                continue
            if not recursive:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            rows = sorted(self.rows(path, None, detail=True)[1], key=lambda row: row["name"], reverse=True)
            for row in rows:
                below = f"{path}/{row['name']}"
                with self._asking(below) as client:
                    (client.rmdir if row["type"] == "directory" else client.remove)(self._at(below))
            self.rmdir(path)

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file, by way of this machine."""
        found = self.info(source)
        if found["type"] == "directory":
            self.mkdir(target, parents=True, exist_ok=True)
            return
        with self.writing(target, "w", parents=parents) as writing:
            for piece in self.read_from(source):
                writing.write(piece)
        self.stamp(target, mode=stat.S_IMODE(found["mode"]), mtime_ns=found["mtime_ns"] if keep_times else None)

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""
        if parents:
            self.mkdir(posixpath.dirname(target) or "/", parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            if self.info(target)["type"] == "directory":
                target = f"{target}/{posixpath.basename(source)}"
        self.replace(source, target)

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""
        with self._asking(source) as client:
            client.posix_rename(self._at(source), self._at(target))

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""
        if parents:
            self.mkdir(posixpath.dirname(path) or "/", parents=True, exist_ok=True)
        with self._asking(path) as client:
            client.open(self._at(path), "wb" if truncate else "ab").close()
            client.utime(self._at(path), None)

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""
        with self._asking(path) as client:
            if mode is not None:
                client.chmod(self._at(path), mode)
            if mtime_ns is not None:
                client.utime(self._at(path), (mtime_ns // 10**9, mtime_ns // 10**9))

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a symbolic link."""
        if hard:
            raise OSError(errno.ENOTSUP, "SFTP makes no other names of files", path)
        with self._asking(path) as client:
            client.symlink(encoded(destination), self._at(path))

    # ---- digests

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`; the bytes travel here."""
        found = {}
        for path in paths:
            made = hashlib.new(kind)
            for piece in self.read_from(path, start, stop):
                made.update(piece)
            found[path] = made.hexdigest()
        return found


class SftpWriting:
    """See `far.Writing`."""

    def __init__(self, files: SftpFiles, path: str, how: str, *, keep: bool, mode: int | None) -> None:
        self._files = files
        self._path = path
        self._how = how
        self._keep = keep
        folder, name = posixpath.split(path)
        self._temporary = "" if how == "a" else f"{folder.rstrip('/')}/{text(another_name(encoded(name)))}"
        with files._asking(path) as client:  # noqa: SLF001 - both are one
            at = files._at(self._temporary or path)  # noqa: SLF001 - both are one
            self._file = client.open(at, "ab" if how == "a" else "wx")
            self._file.set_pipelined(True)
            if mode is not None and how != "a":
                self._file.chmod(mode)

    def begin(self) -> None:
        """It has begun."""

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        with self._files._asking(self._path):  # noqa: SLF001 - both are one
            self._file.write(bytes(data))

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        with self._files._asking(self._path):  # noqa: SLF001 - both are one
            self._file.close()
        if not self._keep:
            self.commit(exclusive=self._how == "x")

    def commit(self, *, exclusive: bool = False) -> None:
        """Put it in its place."""
        if not self._temporary:
            return
        with self._files._asking(self._path) as client:  # noqa: SLF001 - both are one
            pair = (self._files._at(self._temporary), self._files._at(self._path))  # noqa: SLF001 - both are one
            (client.rename if exclusive else client.posix_rename)(*pair)
        self._temporary = ""

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError, AccessError):
            self._file.close()
        if self._temporary:
            gone, self._temporary = self._temporary, ""
            with contextlib.suppress(OSError, AccessError):
                self._files.remove([gone], recursive=False)

    def __enter__(self) -> SftpWriting:  # noqa: PYI034 - there is nothing below it
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()


def _facts(found: paramiko.SFTPAttributes) -> dict[str, Any]:
    mode, mtime = found.st_mode or 0, found.st_mtime or 0
    return {
        "type": kind_of(mode),
        "size": found.st_size or 0,
        "mode": mode,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "ino": None,
        "nlink": None,
        "mtime_ns": mtime * 10**9,
        "ctime_ns": mtime * 10**9,
        "islink": stat.S_ISLNK(mode),
    }
