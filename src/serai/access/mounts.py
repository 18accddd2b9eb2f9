"""A host's directory mounted here, for programs that want plain files: the user's sshfs over the one connection."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from typing import IO, TYPE_CHECKING

from serai.access.connections import shared, target_of
from serai.access.filesystems.naming import path_of, place_of
from serai.errors import AccessError, DeadlineExceeded, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["mounted"]

MOUNT_S = 30.0
UNMOUNT_S = 10.0


@contextlib.contextmanager
def mounted(
    url: str, directory: str | None = None, *, read_only: bool = False, ssh_config: str | None = None
) -> Iterator[str]:
    """Mount ``ssh://host/path`` for as long as the context lasts, and yield where.

    Args:
        url: a directory of a host.
        directory: an empty directory here; None makes one, and removes it at the end.
        read_only: whether nothing can be written.
        ssh_config: the file that ssh is given instead of the user's own.

    Raises:
        UsageError: the URL is not one of ssh.
        AccessError: sshfs is missing, or cannot mount it.
        DeadlineExceeded: it did not mount in time.
    """
    place = place_of(url, "ssh")
    if not place:
        raise UsageError(f"{url} is not of a host that can be mounted", hint="write ssh://HOST/PATH")
    program = shutil.which("sshfs")
    host = place["host"]
    if program is None:
        raise AccessError(
            "there is no sshfs on this machine", host=host, hint="install it: apt install sshfs, dnf install fuse-sshfs"
        )
    connection = shared(target_of(Url("ssh", **place), os.environ, ssh_config))
    path = path_of(url, "ssh")
    path = path[2:] or "." if path.startswith("~") else path
    with tempfile.TemporaryDirectory(prefix="serai-sshfs-") as room, contextlib.ExitStack() as stack:
        where = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="serai-mount-"))
        *ssh, _host = connection.argv()
        wrapper = os.path.join(room, "ssh")  # sshfs would cut a command at its blanks and commas
        with open(wrapper, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join(ssh)} "$@"\n')
        os.chmod(wrapper, stat.S_IRWXU)
        named = f"[{host}]" if ":" in host else host
        words = [program, "-f", "-o", f"ssh_command={wrapper}", *(("-o", "ro") if read_only else ())]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [*words, f"{named}:{path}", where],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is the front end's to act on
            )
            try:
                _await_mount(process, where, host, said)
                yield where
            finally:
                _unmount(process, where)


def _await_mount(process: subprocess.Popen[bytes], where: str, host: str, said: IO[bytes]) -> None:
    end = time.monotonic() + MOUNT_S
    while not os.path.ismount(where):
        if process.poll() is not None:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise AccessError(f"sshfs cannot mount it: {last or 'it said nothing'}", host=host)
        if time.monotonic() > end:
            raise DeadlineExceeded(f"sshfs did not mount it within {MOUNT_S:g} s", host=host)
        time.sleep(0.02)


def _unmount(process: subprocess.Popen[bytes], where: str) -> None:
    """Unmount; what is still open there is let go of, because it could be open for ever."""
    gently, at_last = ["fusermount3 -u", "fusermount -u", "umount"], ["fusermount3 -uz", "umount -l"]
    end = time.monotonic() + UNMOUNT_S
    for words in map(str.split, [*gently, *at_last]):
        if process.poll() is not None or time.monotonic() > end:
            break
        if shutil.which(words[0]) is None:
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*words, where], capture_output=True, check=False, timeout=UNMOUNT_S)
            process.wait(1.0)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(UNMOUNT_S)
    if process.poll() is None:
        process.kill()
        process.wait()
