"""What stands in for the porter where a host has no Python, or lets a login have its files only: SFTP.

paramiko's client speaks it through a session of the host's one OpenSSH connection. Times are whole seconds, and a
directory with a name that is no UTF-8 cannot be listed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any

from serai.access.filesystems.port import Writing
from serai.access.plain.files import PlainFiles, draft_of
from serai.access.plain.sftp_session import drop, session
from serai.describe.host import HostFacts
from serai.errors import AccessError, HostUnreachable
from serai.travel.porter.drafts import encoded, native, text
from serai.travel.porter.files import kind_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    import paramiko

    from serai.access.openssh import Target

BLOCK = 1 << 20
AT_ONCE = 16  # blocks that are asked for before the first has come


class SftpFiles(PlainFiles):
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
    def asking(self, path: str) -> Iterator[paramiko.SFTPClient]:
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

    def at(self, path: str) -> bytes:
        """A path as the server has it."""
        if path == "~" or path.startswith("~/"):
            if not self._home:
                with self.asking(path) as client:
                    self._home = client.normalize(".")
            path = self._home + path[1:]
        return native(path)

    def facts(self) -> HostFacts:
        """See `HostFiles.host_facts`: what SFTP tells is little."""
        self.at("~")
        return HostFacts(self._target.host, "", self._target.user or "", -1, self._home)

    # ---- looking

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""
        raw = self.at(path)
        try:
            with self.asking(path) as client:
                found = client.lstat(raw)
                facts = _facts(found)
                if facts["islink"]:
                    destination = client.readlink(raw) or b""
                    facts["destination"] = destination if isinstance(destination, str) else text(destination)
                    if follow:
                        facts = {**facts, **_facts(client.stat(raw)), "islink": True}
        except FileNotFoundError:
            above = posixpath.dirname(raw)
            with self.asking(path) as client:
                if above != raw and not stat.S_ISDIR(client.stat(above).st_mode or 0):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            raise
        return facts

    def entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """See `PlainFiles.entries`."""
        with self.asking(path) as client:
            listed = client.listdir_attr(self.at(path))
        found = []
        for entry in listed:
            raw: str | bytes = entry.filename
            name = raw if isinstance(raw, str) else text(raw)
            row = _facts(entry)
            if row["islink"]:
                with contextlib.suppress(OSError):
                    row = self.info(f"{path.rstrip('/')}/{name}")
            found.append((name, row))
        return found

    # ---- reading

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""
        if self.info(path)["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with self.asking(path) as client:
            file = client.open(self.at(path), "rb")
            size = file.stat().st_size or 0
        start = max(0, size + start) if start < 0 else start
        stop = size if stop is None else min(size, size + stop if stop < 0 else stop)
        chunks = [(at, min(BLOCK, stop - at)) for at in range(start, max(start, stop), BLOCK)]
        try:
            for at in range(0, len(chunks), AT_ONCE):
                with self.asking(path):
                    pieces = list(file.readv(chunks[at : at + AT_ONCE]))
                yield from pieces
        finally:
            with contextlib.suppress(OSError, AccessError), self.asking(path):
                file.close()

    # ---- writing

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> SftpWriting:
        """See `FarFiles.writing`."""
        with contextlib.suppress(OSError):
            found = self.info(path, follow=False)
            if found["islink"]:
                with self.asking(path) as client:
                    path = client.normalize(self.at(path))
        if parents:
            self.make_parents(path)
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
        raw = self.at(path)
        with self.asking(path) as client:
            made = not self._is_there(client, raw)
            with client.open(raw, "wb" if made else "r+b") as file:
                if made:
                    file.chmod(0o600)
                file.seek(start)
                for piece in pieces:
                    _send(file, bytes(piece))
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

    def make_directory(self, path: str) -> None:
        """See `PlainFiles.make_directory`."""
        try:
            with self.asking(path) as client:
                client.mkdir(self.at(path))
        except FileNotFoundError:
            raise
        except OSError:  # the protocol's version 3 has no word for what is there already
            try:
                self.info(path)
            except FileNotFoundError:
                pass
            else:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            raise

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self.asking(path) as client:
            client.rmdir(self.at(path))

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""
        for path in paths:
            if self.info(path, follow=False)["type"] != "directory":
                with self.asking(path) as client:
                    client.remove(self.at(path))
                continue
            if not recursive:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            rows = sorted(self.rows(path, None, detail=True)[1], key=lambda row: row["name"], reverse=True)
            for row in rows:
                below = f"{path}/{row['name']}"
                with self.asking(below) as client:
                    (client.rmdir if row["type"] == "directory" else client.remove)(self.at(below))
            self.rmdir(path)

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""
        with self.asking(source) as client:
            client.posix_rename(self.at(source), self.at(target))

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time; it is emptied in its place."""
        if parents:
            self.make_parents(path)
        with self.asking(path) as client:
            client.open(self.at(path), "wb" if truncate else "ab").close()
            client.utime(self.at(path), None)

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""
        with self.asking(path) as client:
            if mode is not None:
                client.chmod(self.at(path), mode)
            if mtime_ns is not None:
                client.utime(self.at(path), (mtime_ns // 10**9, mtime_ns // 10**9))

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a symbolic link."""
        if hard:
            raise OSError(errno.ENOTSUP, "SFTP makes no other names of files", path)
        with self.asking(path) as client:
            client.symlink(encoded(destination), self.at(path))


def _send(file: paramiko.SFTPFile, data: bytes) -> None:
    """Write bytes, waiting for no answer before the last of them is sent, and then for all.

    The client passes over an answer to a write that comes while it waits for another: with none outstanding when this
    returns, no error is lost, and nobody waits for what was passed over.
    """
    last = max(0, len(data) - file.MAX_REQUEST_SIZE)
    file.set_pipelined(True)
    file.write(data[:last])
    file.set_pipelined(False)
    file.write(data[last:])


class SftpWriting(Writing):
    """See `Writing`."""

    def __init__(self, files: SftpFiles, path: str, how: str, *, keep: bool, mode: int | None) -> None:
        self._files = files
        self._path = path
        self._how = how
        self._keep = keep
        self._temporary = "" if how == "a" else draft_of(path)
        with files.asking(path) as client:
            at = files.at(self._temporary or path)
            self._file = client.open(at, "ab" if how == "a" else "wx")
            if mode is not None and how != "a":
                self._file.chmod(mode)

    def begin(self) -> None:
        """It has begun."""

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        with self._files.asking(self._path):
            _send(self._file, bytes(data))

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""
        with self._files.asking(self._path):
            self._file.close()
        if not self._keep:
            self.commit(exclusive=self._how == "x")

    def commit(self, *, exclusive: bool = False) -> None:
        """Put it in its place."""
        if not self._temporary:
            return
        with self._files.asking(self._path) as client:
            pair = (self._files.at(self._temporary), self._files.at(self._path))
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
