"""What a mediator of files has to have, so that `hosted.HostedFileSystem` makes a file system of fsspec of it.

Paths are text, absolute or below ``~``. Every method raises built-in OSErrors that name the path, and SeraiError when
the host is lost. A server that does one thing at a time needs less: see `serai.access.plain.files.PlainFiles`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from serai.describe.host import HostFacts

__all__ = ["Ahead", "FarFiles", "Writing"]


class Ahead(Protocol):
    """Bytes that were asked for before they are wanted."""

    def pieces(self) -> Iterator[bytes]:
        """Yield them as they come."""

    def result(self) -> tuple[dict[str, Any], bytes]:
        """What was told at the end, and the bytes if they came with that."""

    def cancel(self) -> None:
        """They are not wanted any more."""


class Writing(Protocol):
    """A file that is being written; as a context, it is finished, or given up after an error."""

    def begin(self) -> None:
        """Wait until it is known that it can be written.

        Raises:
            OSError: it cannot.
        """

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""

    def finish(self) -> None:
        """Put it in its place, or keep it for `commit`."""

    def commit(self, *, exclusive: bool = False) -> None:
        """Put in its place what was kept."""

    def discard(self) -> None:
        """Give it up, also when it could not be finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.finish()
        except BaseException:
            self.discard()
            raise


class FarFiles(Protocol):
    """The files of one host or server. Facts are ``type``, ``size``, ``mode``, ``islink``, ``mtime_ns`` and so on."""

    def facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""

    def info(self, path: str, *, follow: bool = True) -> dict[str, Any]:
        """What is known of a path."""

    def rows(self, path: str, depth: int | None, *, detail: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A path's own facts, and what is below it, with names relative to it."""

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """See `HostFiles.read_from`."""

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, in one."""

    def read_many(self, wanted: Sequence[tuple[str, int, int | None]]) -> Iterator[bytes | Exception]:
        """The bytes of many ranges, in order, or why one cannot be had."""

    def ahead(self, path: str, start: int, stop: int) -> Ahead | None:
        """Ask for bytes that will be wanted; None where that cannot be."""

    def put(self, path: str, data: bytes | memoryview, how: str, *, parents: bool) -> None:
        """Write a whole file; ``how`` is ``w``, or ``x``: there must be none."""

    def writing(self, path: str, how: str, *, parents: bool = False, keep: bool = False) -> Writing:
        """Begin to write a file, which is not there before it is finished; how ``a``: in place, from its end on."""

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""

    def mkdir(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def remove(self, paths: Sequence[str], *, recursive: bool) -> None:
        """Remove files, or whole directories."""

    def copy(self, source: str, target: str, *, parents: bool = False, keep_times: bool = False) -> None:
        """Copy a file there; of a directory, make one."""

    def move(self, source: str, target: str, *, parents: bool = False) -> None:
        """Rename; into ``target`` if it is a directory."""

    def replace(self, source: str, target: str) -> None:
        """Rename, in place of what is there."""

    def touch(self, path: str, *, truncate: bool, parents: bool) -> None:
        """Make a file if there is none, and set its time."""

    def stamp(self, path: str, *, mode: int | None, mtime_ns: int | None) -> None:
        """Set permissions and time."""

    def link(self, destination: str, path: str, *, hard: bool) -> None:
        """Make a link."""

    def digest(self, paths: Sequence[str], start: int, stop: int | None, kind: str) -> dict[str, str]:
        """See `HostFiles.digest`."""
