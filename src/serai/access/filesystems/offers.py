"""What Serai's own file systems offer over what fsspec asks for; copies are built on it. S3 alone does not.

Paths are those of the file system: text, with bytes that are no UTF-8 as surrogates. Work that concerns a host's files
alone (digests, copies) is done on the host, in one call, where a porter or a store does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from serai.describe.host import HostFacts, Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["HostFacts", "HostFiles", "Mount"]


@runtime_checkable
class HostFiles(Protocol):
    """The files of one host. Each method raises built-in OSErrors, and SeraiError when the host is lost."""

    def host_facts(self) -> HostFacts:
        """Who and where this is; asked once."""
        ...

    def digest(
        self, paths: Sequence[str], start: int = 0, stop: int | None = None, kind: str = "sha256"
    ) -> dict[str, str]:
        """The digests of files, or of the bytes ``start`` to ``stop`` of each, in hexadecimal, by path."""
        ...

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file as they come, in pieces of up to a few MB; fewer than asked at the file's end."""
        ...

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """Write into a file in place from an offset on, cut it after the last byte, and return its size.

        The file is made (mode 0600 until `stamp`) if there is none. This is for partial files, which `replace` puts in
        their place; what came before a lost connection stays.
        """
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename within one file system, in place of what is at ``target``."""
        ...

    def stamp(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Set permissions and the time of the last change."""
        ...

    def symlink(self, destination: str, path: str) -> None:
        """Make a symbolic link at ``path``."""
        ...

    def copy_within(self, source: str, target: str, *, keep_times: bool = False) -> None:
        """Copy a file on the host itself (sharing blocks where its file system can), whole or not at all."""
        ...
