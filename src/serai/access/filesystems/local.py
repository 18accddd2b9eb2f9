"""``local:``: this machine's files, for fsspec: its own, with writes that are seen when whole, and what hosts offer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from serai.access.filesystems.offers import HostFacts, Mount
from serai.travel.porter.calls import Pulse
from serai.travel.porter.drafts import Draft, copy, encoded, native, put_in_place, stamp, write_at
from serai.travel.porter.files import blocks, digest
from serai.travel.porter.serve import who
from serai.travel.porter.surroundings import addresses, mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

__all__ = ["LocalFiles"]


class LocalFiles(LocalFileSystem):
    """This machine's files; ``local:/path``, or ``local:path`` from the working directory on."""

    protocol = "local"

    @staticmethod
    def _get_kwargs_from_urls(_path: str) -> dict[str, Any]:
        return {}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        if not set(mode) & set("wx") or "+" in mode:
            file = super()._open(path, mode, block_size, **kwargs)
            if "a" in mode:
                file.seek(0, os.SEEK_END)
            return file
        return _WholeFile(path, mode, fs=self, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes of a file or of a part of it; see fsspec."""
        return b"".join(blocks(native(self._strip_protocol(path)), start or 0, end))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file; see fsspec."""
        with self.open(path, "xb" if mode == "create" else "wb", **kwargs) as file:
            file.write(value)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file; of a directory, make one."""
        self._copy(path1, path2, keep_times=False, parents=True)

    def _copy(self, source: str, target: str, *, keep_times: bool, parents: bool) -> None:
        pulse = Pulse(None)
        copy(
            native(self._strip_protocol(source)),
            native(self._strip_protocol(target)),
            pulse,
            keep_times=keep_times,
            parents=parents,
        )

    # ---- what `offers.HostFiles` names

    def host_facts(self) -> HostFacts:
        """See `HostFiles.host_facts`."""
        facts = who()
        return HostFacts(
            facts["host"],
            facts["boot"],
            facts["user"],
            facts["uid"],
            facts["home"],
            tuple(Mount(*one) for one in mounts()),
            tuple(addresses()),
        )

    def digest(
        self, paths: Sequence[str], start: int = 0, stop: int | None = None, kind: str = "sha256"
    ) -> dict[str, str]:
        """See `HostFiles.digest`."""
        pulse = Pulse(None)
        return {path: digest(native(self._strip_protocol(path)), start, stop, kind, pulse) for path in paths}

    def read_from(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `HostFiles.read_from`."""
        return blocks(native(self._strip_protocol(path)), start, stop)

    def write_at(self, path: str, pieces: Iterable[bytes | memoryview], start: int = 0) -> int:
        """See `HostFiles.write_at`."""
        return write_at(native(self._strip_protocol(path)), pieces, start)

    def replace(self, source: str, target: str) -> None:
        """See `HostFiles.replace`."""
        os.replace(native(self._strip_protocol(source)), native(self._strip_protocol(target)))

    def stamp(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """See `HostFiles.stamp`."""
        stamp(native(self._strip_protocol(path)), mode, mtime_ns)

    def symlink(self, destination: str, path: str) -> None:
        """See `HostFiles.symlink`."""
        os.symlink(encoded(destination), native(self._strip_protocol(path)))

    def copy_within(self, source: str, target: str, *, keep_times: bool = False) -> None:
        """See `HostFiles.copy_within`."""
        self._copy(source, target, keep_times=keep_times, parents=False)


class _WholeFile(LocalFileOpener):
    """A file that is seen under its name when it was closed, or committed by a transaction."""

    def _open(self) -> None:
        if self.f is not None and not self.f.closed:
            return
        how = "x" if "x" in self.mode else "w"
        self._draft = Draft(native(self.path), how, parents=self.fs.auto_mkdir)
        self.f: Any = open(os.dup(self._draft.fileno()), "wb")  # noqa: SIM115 - closed by `close`
        if self.compression:
            from fsspec.compression import compr  # noqa: PLC0415 - only this needs it

            self.f = compr[self.compression](self.f, mode="wb")

    def close(self) -> None:
        """Put it in its place, unless a transaction will."""
        if self.f.closed:
            return
        try:
            self.f.close()
            if self.autocommit:
                self._draft.commit()
            else:
                self._place, self._kept = self._draft.place, self._draft.keep()
        finally:
            self._draft.discard()

    def commit(self) -> None:
        """Put in its place what a transaction has held back."""
        self.close()
        if self._kept:
            put_in_place(self._kept, self._place, exclusive="x" in self.mode)

    def discard(self) -> None:
        """Remove what a transaction has held back."""
        self.close()
        if self._kept:
            os.unlink(self._kept)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._incontext = False
        if kind is not None and self.autocommit and not self.f.closed:
            self._draft.discard()
            self.f.close()
            return
        self.close()
