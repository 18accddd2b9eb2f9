"""Trees to and from an appliance, by way of a temporary directory of this machine: some files at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from serai.access.filesystems.far import read_receipt
from serai.travel.porter.calls import Pulse
from serai.travel.porter.drafts import native, text
from serai.travel.porter.trees import Packer, Unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from serai.access.filesystems.offers import TreeReceipt
    from serai.access.stores.remote import StoreFiles

__all__ = ["receive_tree", "send_tree"]

AT_ONCE = 8
BATCH = 64  # files that are under way or wait
PIECE = 1 << 20
# The disk or the lot is full: the other files would fare no better.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT})


def send_tree(files: StoreFiles, root: str, names: Sequence[str] | None) -> Iterator[bytes]:
    """See `HostFiles.send_tree`."""
    with tempfile.TemporaryDirectory(prefix="serai-store-") as here:
        try:
            rows = files.rows(root, None, detail=True)[1]
            wanted = None if names is None else set(names)
            kept = [row for row in rows if wanted is None or row["name"] in wanted]
            _all(lambda row: _fetch(files, f"{root}/{row['name']}", native(f"{here}/{row['name']}"), row), kept)
            for row in reversed(rows):  # directories last: writing into them changed them
                made = native(f"{here}/{row['name']}")
                if os.path.lexists(made) and not row["islink"]:
                    os.chmod(made, stat.S_IMODE(row["mode"]))
                    os.utime(made, ns=(row["mtime_ns"], row["mtime_ns"]))
            yield from Packer(native(here), Pulse(None)).pack(names)
        finally:
            _open_up(here)


def _fetch(files: StoreFiles, path: str, here: bytes, row: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(here), exist_ok=True)
    if row["islink"]:
        os.symlink(row["destination"].encode("utf-8", "surrogateescape"), here)
    elif row["type"] == "directory":
        os.makedirs(here, exist_ok=True)
    elif row["type"] == "file":
        with open(here, "wb") as file:
            file.writelines(files.read_from(path))


def receive_tree(
    files: StoreFiles, root: str, stream: Iterable[bytes], progress: Callable[[int, int], object] | None
) -> TreeReceipt:
    """See `HostFiles.receive_tree`; what is no relative link inside is refused, as by the appliance."""
    with tempfile.TemporaryDirectory(prefix="serai-store-") as here:
        try:
            unpacker = Unpacker(native(here), lambda _files: None)
            unpacker.unpack(_counted(stream, progress))
            files.mkdir(root, parents=True, exist_ok=True)
            folders: list[tuple[str, os.stat_result]] = []
            others: list[tuple[bytes, str]] = []
            for folder, inner, names in os.walk(native(here)):
                below = text(folder)[len(here) :]
                for name in sorted((*inner, *names)):
                    local, path = os.path.join(folder, name), f"{root}{below}/{text(name)}"
                    found = os.lstat(local)
                    if stat.S_ISDIR(found.st_mode):
                        files.mkdir(path, parents=False, exist_ok=True)
                        folders.append((path, found))
                    else:
                        others.append((local, path))
            done = unpacker.files
            for (_, path), error in zip(others, _all(lambda one: _send(files, *one), others), strict=True):
                if error is None:
                    continue
                if error.errno in _HOPELESS:
                    raise error
                done -= 1
                unpacker.failed += 1
                unpacker.troubles.append([path[len(root) + 1 :], error.errno or 0, error.strerror or str(error)])
            for path, found in reversed(folders):  # writing into them needs the one and changes the other
                files.stamp(path, mode=stat.S_IMODE(found.st_mode) & 0o777, mtime_ns=found.st_mtime_ns)
            unpacker.files = done
            receipt = read_receipt(vars(unpacker))
        finally:
            _open_up(here)
    if progress is not None:
        progress(receipt.size, receipt.files)
    return receipt


def _counted(stream: Iterable[bytes], progress: Callable[[int, int], object] | None) -> Iterator[bytes]:
    taken = 0
    for piece in stream:
        taken += len(piece)
        if progress is not None:
            progress(taken, 0)
        yield piece


def _send(files: StoreFiles, local: bytes, path: str) -> None:
    found = os.lstat(local)
    if stat.S_ISLNK(found.st_mode):
        with contextlib.suppress(FileNotFoundError):
            files.remove([path], recursive=False)
        files.link(text(os.readlink(local)), path, hard=False)
        return
    with contextlib.suppress(FileNotFoundError):  # what is written through a link would be elsewhere
        if files.info(path, follow=False)["islink"]:
            files.remove([path], recursive=False)
    with open(local, "rb", buffering=0) as file, files.writing(posixpath.normpath(path), "w") as writing:
        while piece := file.read(PIECE):
            writing.write(piece)
    files.stamp(path, mode=stat.S_IMODE(found.st_mode) & 0o777, mtime_ns=found.st_mtime_ns)


def _all(act: Callable[[Any], None], wanted: Sequence[Any]) -> list[OSError | None]:
    """Do something with each, some at a time; what the system said to each."""

    def tried(one: Any) -> OSError | None:
        try:
            act(one)
        except OSError as error:
            return error
        return None

    found: list[OSError | None] = []
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="store-tree") as threads:
        waiting = iter(wanted)
        while batch := list(islice(waiting, BATCH)):
            found += threads.map(tried, batch)
    return found


def _open_up(here: str) -> None:
    """Let a directory be removed whatever permissions came with it."""
    subprocess.run(["chmod", "-R", "u+rwX", here], check=False)
