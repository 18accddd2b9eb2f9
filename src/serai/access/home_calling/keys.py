"""The line in ``authorized_keys``: what it allows, adding it, removing it, and sweeping those of runs that are dead.

A run holds a lock on its record in the state directory for as long as it lives, which the kernel lets go of however it
ends. A record that nobody holds is one of a dead run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import stat
import tempfile
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.errors import DeadlineExceeded, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "serai-home-"  # every comment of ours begins so, and ends with the run
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OURS = re.compile(rb"\s" + MARK.encode() + rb"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\s*\Z")
_EXPIRY = re.compile(rb'expiry-time="(\d{14})"')
_LOCK_DEADLINE_S = 10.0
_POLL_S = 0.02
_LARGEST_BYTES = 16 * 1024**2
MOST_DEAD = 100  # runs whose leavings on nodes are looked for


class Mode(StrEnum):
    """What a task may do at home: SFTP only, or commands too. Never forwarding, nor an agent, nor X11, nor a terminal.

    Files are the user's own, all of them: a task that may write them could give itself more.
    """

    FILES = "files"
    SHELL = "shell"


def comment_of(run: str) -> str:
    """The comment by which the line of a run is known.

    Raises:
        UsageError: the name cannot stand there.
    """
    if not _RUN.fullmatch(run):
        raise UsageError(f"{run!r} cannot be the name of a run here")
    return MARK + run


def line_for(public: str, run: str, mode: Mode, *, expires: float, by_loopback: bool) -> str:
    """The line for ``authorized_keys``. Pure but for the time zone: sshd reads the time as this machine's own.

    Args:
        public: the public key: its kind and blob.
        run: the run's name.
        mode: what is allowed.
        expires: seconds since the epoch.
        by_loopback: every login comes back through a connection of ours, so from this machine itself.
    """
    kind, blob = public.split()[:2]
    options = ["restrict", f'expiry-time="{time.strftime("%Y%m%d%H%M%S", time.localtime(expires))}"']
    if by_loopback:
        options.append('from="127.0.0.1,::1"')
    if mode is Mode.FILES:
        options.append('command="internal-sftp"')
    return f"{','.join(options)} {kind} {blob} {comment_of(run)}"


def with_line(content: bytes, line: str) -> bytes:
    """The file with a line at its end."""
    gap = b"" if not content or content.endswith(b"\n") else b"\n"
    return content + gap + line.encode() + b"\n"


def without_lines(content: bytes, dead: str, now: float) -> bytes:
    """The file without the line of a run, and without lines of ours whose time is over; all others stay as they are.

    Args:
        content: of the file.
        dead: the run.
        now: seconds since the epoch.
    """
    kept = []
    for line in content.splitlines(keepends=True):
        run, expiry = _OURS.search(line), _EXPIRY.search(line)
        over = False
        if run and expiry:
            with contextlib.suppress(ValueError, OverflowError):
                over = time.mktime(time.strptime(expiry[1].decode(), "%Y%m%d%H%M%S")) <= now
        if not (run and (over or run[1].decode() == dead)):
            kept.append(line)
    return b"".join(kept)


class AuthorizedKeys:
    """A file of authorized keys, changed by one process at a time and in one step.

    Args:
        path: the file; a link is followed, and what it leads to is what changes.
        state: a directory of ours; the lock lies there.
    """

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self._lock = state / "authorized_keys.lock"

    def change(self, to: Callable[[bytes], bytes]) -> None:
        """Replaces the content; its mode and owner stay. Nothing is written where nothing changes.

        Raises:
            OSError: it cannot be read or written.
            DeadlineExceeded: another process has been changing it for ten seconds.
            UsageError: it is no file, or too large to be one of keys.
        """
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._lock, _LOCK_DEADLINE_S):
            path = Path(os.path.realpath(self.path))
            try:
                status = path.stat()
            except FileNotFoundError:
                status = None
            if status is not None and (not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_BYTES):
                raise UsageError(f"{path} is not a file of keys")
            before = path.read_bytes() if status is not None else b""
            after = to(before)
            if after != before:
                _replace(path, after, status)


def _replace(path: Path, content: bytes, status: os.stat_result | None) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".authorized_keys.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            if status is not None:
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(path: Path, deadline_s: float) -> Iterator[int]:
    """Holds a lock on a file, which is made where it is not there.

    Raises:
        DeadlineExceeded: another process holds it.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + deadline_s
        while not _try_lock(number):
            if time.monotonic() >= end:
                raise DeadlineExceeded(f"{path} is held by another process for more than {deadline_s:g} s")
            time.sleep(_POLL_S)
        yield number
    finally:
        os.close(number)


def _try_lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Records:
    """The runs that have a line: a file each, which its run holds locked while it lives.

    Args:
        state: the directory.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._held: dict[str, int] = {}

    def add(self, run: str, authorized: Path, expires: float) -> None:
        """Notes a run before its line is written, so that a crash in between leaves no line that nobody knows."""
        comment_of(run)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(self._state / f"{run}.json", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._held[run] = number
        (self._state / f"{run}.dead").unlink(missing_ok=True)  # a run that was taken up again
        _try_lock(number)  # nobody else can have it: it was made just now
        facts = {"pid": os.getpid(), "boot": boot_id(), "host": platform.node(), "expires": expires}
        os.write(number, json.dumps(facts | {"authorized_keys": str(authorized)}).encode())

    def remove(self, run: str) -> None:
        """The run has ended, and its line is gone."""
        (self._state / f"{run}.json").unlink(missing_ok=True)
        number = self._held.pop(run, None)
        if number is not None:
            os.close(number)

    def sweep(self, now: float) -> None:
        """Removes the lines of dead runs, and lines whose time is over. Their names are kept: see `dead`."""
        for path in sorted(self._state.glob("*.json")):
            number = self._of_the_dead(path, now)
            if number is None:
                continue
            try:
                run, file = path.stem, Path(_facts(path).get("authorized_keys") or os.devnull)
                if file.is_file():
                    AuthorizedKeys(file, self._state).change(partial(without_lines, dead=run, now=now))
                path.rename(path.with_suffix(".dead"))
            except OSError:
                continue  # it may be writable the next time
            finally:
                os.close(number)
        for old in self._dead_files()[MOST_DEAD:]:
            old.unlink(missing_ok=True)

    def dead(self) -> list[str]:
        """Runs that died: what they left on nodes is removed when one of these is met again."""
        return [path.stem for path in self._dead_files()[:MOST_DEAD] if _RUN.fullmatch(path.stem)]

    def _dead_files(self) -> list[Path]:
        return sorted(self._state.glob("*.dead"), key=lambda path: path.stat().st_mtime, reverse=True)

    def _of_the_dead(self, path: Path, now: float) -> int | None:
        """The locked file of a run that is dead, or None."""
        if path.stem in self._held or not _RUN.fullmatch(path.stem):
            return None
        try:
            number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        facts = _facts(path)
        here = facts.get("host") == platform.node()
        # Where homes are shared, another machine's lock may not be seen from here: then only time decides.
        if _try_lock(number) and path.exists() and (here or facts.get("expires", 0) <= now):
            return number
        os.close(number)
        return None


def _facts(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def boot_id() -> str:
    """Which life of this machine it is; empty where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
