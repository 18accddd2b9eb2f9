"""A mediator that has only what `PlainFiles` asks for is a whole file system: here over a directory's own calls."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.access.test_fsspec_suites import Suites

from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.filesystems.naming import served_path
from serai.access.filesystems.port import Writing
from serai.access.plain.files import PlainFiles, draft_of
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable
from serai.testing.files import FilesContract
from serai.travel.porter.drafts import encoded, text, write_at
from serai.travel.porter.files import blocks, info

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path


class DirectoryFiles(PlainFiles):
    """A server's requests, as far as one needs them; those that are in ``lost`` lose the connection once."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.renewed = 0

    def _asked(self, what: str) -> None:
        if what in self.lost:
            self.lost.remove(what)
            raise HostUnreachable("the connection was lost", host="here")

    def renew(self) -> None:
        self.renewed += 1

    def facts(self) -> HostFacts:
        return HostFacts("here", "", "me", -1, "/")

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        return info(encoded(path), follow=follow)

    def entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for raw in os.listdir(encoded(path)):
            below = f"{path.rstrip('/')}/{text(raw)}"
            row = self.info(below, follow=False)
            with contextlib.suppress(OSError):
                row = self.info(below)
            found.append((text(raw), row))
        return found

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        self._asked("read")
        yield from blocks(encoded(path), start, stop)

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> Writing:
        if os.path.islink(encoded(path)):
            path = text(os.path.realpath(encoded(path)))
        if parents:
            self.make_parents(path)
        return DirectoryWriting(path, how, keep=keep)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        return write_at(encoded(path), pieces, start)

    def make_directory(self, path: str) -> None:
        os.mkdir(encoded(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(encoded(path))

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        for path in paths:
            if not recursive or self.info(path, follow=False)["type"] != "directory":
                os.unlink(encoded(path))
                continue
            for name, row in self.entries(path):
                self.remove([f"{path}/{name}"], recursive=not row["islink"])
            self.rmdir(path)

    def replace(self, source: str, target: str) -> None:
        os.replace(encoded(source), encoded(target))

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        if mode is not None:
            os.chmod(encoded(path), mode)
        if mtime_ns is not None:
            os.utime(encoded(path), ns=(mtime_ns, mtime_ns))

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        (os.link if hard else os.symlink)(encoded(destination), encoded(path))


class DirectoryWriting(Writing):
    def __init__(self, path: str, how: str, *, keep: bool) -> None:
        self._final, self._how, self._keep = path, how, keep
        there = os.path.exists(encoded(path))
        if there and how == "x":
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if os.path.isdir(encoded(path)):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self._path = path if how == "a" else draft_of(path)
        self._file = open(encoded(self._path), "ab" if how == "a" else "xb")  # noqa: SIM115 - closed by `finish`
        if there:
            os.chmod(encoded(self._path), os.stat(encoded(path)).st_mode & 0o777)

    def begin(self) -> None:
        pass

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)

    def finish(self) -> None:
        self._file.close()
        if not self._keep:
            self.commit(exclusive=self._how == "x")

    def commit(self, *, exclusive: bool = False) -> None:
        if self._path != self._final:
            if exclusive:
                os.link(encoded(self._path), encoded(self._final))
                os.unlink(encoded(self._path))
            else:
                os.replace(encoded(self._path), encoded(self._final))
            self._path = self._final

    def discard(self) -> None:
        self._file.close()
        if self._path != self._final:
            os.unlink(encoded(self._path))
            self._path = self._final


class DirectoryFileSystem(HostedFileSystem):
    protocol = "directory"

    def __init__(self, **options: Any) -> None:
        super().__init__("directory://here", **options)
        self._files = DirectoryFiles()

    @property
    def far(self) -> DirectoryFiles:
        return self._files

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return served_path(path, "directory", lambda url: url.removeprefix("directory://here"))


class TestSuites(Suites):
    @pytest.fixture
    def fs(self) -> Any:
        return DirectoryFileSystem(auto_mkdir=True)


class TestContract(FilesContract):
    many = 500

    @pytest.fixture
    def fs(self) -> Any:
        return DirectoryFileSystem(skip_instance_cache=True)

    @pytest.fixture
    def room(self, tmp_path: Path) -> str:
        return os.fspath(tmp_path)

    @pytest.fixture
    def lose(self, fs: DirectoryFileSystem) -> Callable[[], None]:
        return lambda: fs.far.lost.append("read")

    def test_what_is_read_again_is_read_over_a_new_connection(self, fs: DirectoryFileSystem, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"it")
        fs.far.lost = ["read"]
        assert fs.cat_file(f"{room}/file") == b"it"
        assert fs.far.renewed == 1
        fs.far.lost = ["read", "read"]
        with pytest.raises(HostUnreachable):
            fs.cat_file(f"{room}/file")

    def test_a_write_that_cannot_be_finished_leaves_nothing(self, fs: DirectoryFileSystem, room: str) -> None:
        def write() -> None:
            with fs.far.writing(f"{room}/file", "x") as writing:
                writing.write(b"ours")
                fs.pipe_file(f"{room}/file", b"theirs")

        with pytest.raises(FileExistsError):
            write()
        assert fs.ls(room, detail=False, refresh=True) == [f"{room}/file"]
        assert fs.cat_file(f"{room}/file") == b"theirs"

    def test_urls_are_told(self, fs: DirectoryFileSystem) -> None:
        assert fs.unstrip_protocol("/a b") == "directory://here/a b"
        assert fs._strip_protocol(["directory://here/a/", "b", ""]) == ["/a", "/b", "/"]
        assert fs.fsid == "directory://here"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日" * 85, "bad\udcff" * 60])
def test_the_name_of_a_draft_is_short_enough_and_utf_8(name: str) -> None:
    folder, _, draft = draft_of(f"/some/{name}").rpartition("/")
    assert folder == "/some"
    assert len(draft.encode()) <= 255
    assert draft != draft_of(f"/some/{name}").rpartition("/")[2]
