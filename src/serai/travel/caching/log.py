"""What is in a cache and how it was used, as a log that every executor appends to and reads on from where it was.

A line is ``+ digest size came mtime_ns [used uses]``, ``u digest used`` or ``- digest``. A lock file makes one executor
at a time read and write; a line that its writer was killed in the middle of counts for nothing.

The log never says less than there is on the disk: an object is in it before it has its name, and leaves it after. Who
was killed between the two leaves a line too many, which whoever looks for that object takes out. So does who cannot
write down that one has left, because the disk is full: that is when objects must leave.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time

from .coming import BLOCK, Stamp
from .replacement import Entry, Replacement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = re.compile("[0-9a-f]{64}").fullmatch
LONGEST_LOG = 4 << 20  # bytes, before it is written anew with what still counts
LOCK_S = 10.0  # for another executor to let go of the log: one that was stopped holds up nobody for ever …
AGAIN_S = 0.2  # … and much less once it did, until it has been seen to let go


class Held:
    """An object that is there.

    Attributes:
        size: bytes.
        came: when.
        stamp_ns: its time of modification, as whoever brought it saw it.
        used, uses: when it was asked for last, and how often.
        whole: its stamp when this process last saw its bytes to be what its name says.
    """

    __slots__ = ("came", "size", "stamp_ns", "used", "uses", "whole")

    def __init__(self, size: int, came: float, stamp_ns: int) -> None:
        self.size = size
        self.came = came
        self.used = came
        self.uses = 1
        self.stamp_ns = stamp_ns
        self.whole: Stamp | None = None


class Log:
    """The log of a cache. Everything but `locked` wants the lock.

    Args:
        directory: the cache's.
        fresh: gives an empty rule of replacement, which is told what comes, is used and goes.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, directory: str, fresh: Callable[[], Replacement]) -> None:
        self._directory = directory
        self._fresh = fresh
        self.rule = fresh()
        self.objects: dict[str, Held] = {}
        self._changes: dict[str, bool] = {}  # since `take_changes`: whether an object is there now
        self._threads = threading.RLock()
        self._at = 0
        self._longest = LONGEST_LOG
        self._hangs = False  # whoever has the lock did not let go of it
        self._astray = False  # somebody else wrote where this thought to be on its own
        self._ragged = False  # the log ends in the middle of a line
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock_fd = os.open(os.path.join(directory, "index.lock"), flags, 0o600)
        self._log = self._open()

    @property
    def held_bytes(self) -> int:
        """What the objects take together."""
        return self.rule.held_bytes

    def take_changes(self) -> dict[str, bool]:
        """What has come (True) and what has gone (False) since this was asked last, whoever did it."""
        changes, self._changes = self._changes, {}
        return changes

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others from the log, and know what they wrote."""
        with self._threads:
            self._lock()
            try:
                self._read_on()
                yield
            finally:
                with contextlib.suppress(OSError):
                    fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    # ---- writing

    def came(self, digest: str, size: int, now: float, mtime_ns: int) -> None:
        """An object is about to have its name.

        Raises:
            OSError: that cannot be written; it must not get it.
        """
        self._write("+ %s %d %.6f %d\n" % (digest, size, now, mtime_ns))

    def was_used(self, digest: str, now: float) -> None:
        """An object was asked for."""
        self._note_down("u %s %.6f\n" % (digest, now))

    def went(self, digests: Iterable[str]) -> None:
        """Objects are there no more."""
        text = "".join("- %s\n" % digest for digest in digests)
        if text:
            self._note_down(text)

    def correct(self, there: Iterable[tuple[str, os.stat_result]]) -> None:
        """Make it say what is there."""
        found = dict(there)
        self.went(self.objects.keys() - found.keys())
        lines = []
        for digest, info in found.items():
            known = self.objects.get(digest)
            if known is None or known.size != info.st_size:
                lines.append("+ %s %d %.6f %d\n" % (digest, info.st_size, info.st_mtime, info.st_mtime_ns))
        if lines:
            self._write("".join(lines))

    def _note_down(self, text: str) -> None:
        """Write what is so in any case."""
        try:
            self._write(text)
        except OSError:
            self._apply(text.splitlines())

    def _write(self, text: str) -> None:
        data = memoryview(("\n" + text if self._ragged else text).encode("ascii"))
        self._ragged = True  # half of it is written, if the disk is full: then it is not so
        self._at += len(data)
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError:
            self._astray = True
            raise
        self._ragged = False
        self._astray = self._astray or os.fstat(self._log).st_size != self._at
        self._apply(text.splitlines())
        if self._at > self._longest:
            self._write_anew()

    def _write_anew(self) -> None:
        lines = [
            "+ %s %d %.6f %d %.6f %d\n" % (digest, one.size, one.came, one.stamp_ns, one.used, one.uses)
            for digest, one in self.objects.items()
        ]
        data = "".join(lines).encode("ascii")
        self._longest = max(LONGEST_LOG, 2 * len(data))  # else each further line would cost as much as all of them
        if len(data) * 2 > self._at:
            return
        path = os.path.join(self._directory, "log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(path + ".new", flags, 0o600), "wb") as file:
                file.write(data)
            os.rename(path + ".new", path)
            self._reopen()
        except OSError:  # no space, say: it may become longer, then
            with contextlib.suppress(OSError):
                os.unlink(path + ".new")
            self._longest = self._at + LONGEST_LOG
        else:
            self._at = len(data)

    # ---- reading

    def _lock(self) -> None:
        until, pause_s = time.monotonic() + (AGAIN_S if self._hangs else LOCK_S), 0.001
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    self._hangs = True
                    return  # what two write at once is put right by whoever looks for an object that is not there
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.02)
            except OSError:  # some file systems have no locks: there, one executor is on its own
                return
            else:
                self._hangs = False
                return

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(os.path.join(self._directory, "log"), flags, 0o600)

    def _reopen(self) -> None:
        """Open the log by its name; what was open is closed only then, or lines would go to who gets its number."""
        before, self._log = self._log, self._open()
        os.close(before)

    def _read_on(self) -> None:
        """Take in what others wrote."""
        info = os.fstat(self._log)
        if self._astray or not info.st_nlink or info.st_size < self._at:  # or it was written anew
            self._reopen()
            self._at, self._astray = 0, False
            self._begin_again()
        elif info.st_size > self._at:
            self._take_in()

    def _begin_again(self) -> None:
        before, self.objects, self.rule = self.objects, {}, self._fresh()
        changes = dict(self._changes)
        self._take_in()
        for digest in before.keys() - self.objects.keys():
            self._changes[digest] = False
        for digest in self.objects.keys() & before.keys():
            self.objects[digest].whole = before[digest].whole
            self._changes.pop(digest, None)
            if digest in changes:
                self._changes[digest] = True

    def _take_in(self) -> None:
        data = b""
        while True:
            more = os.pread(self._log, BLOCK, self._at + len(data))
            if not more:
                break
            data += more
        self._at += len(data)
        self._ragged = bool(data) and not data.endswith(b"\n")  # its writer was killed in the middle of it
        if self._ragged:
            with contextlib.suppress(OSError):  # the disk is full: the next line begins with it
                self._at += os.write(self._log, b"\n")
                self._ragged = False
        self._apply(data.decode("ascii", "replace").splitlines())

    def _apply(self, lines: Iterable[str]) -> None:
        for line in lines:
            words = line.split()
            with contextlib.suppress(ValueError, IndexError, KeyError):  # half a line
                if words[0] == "u":
                    one = self.objects[words[1]]
                    one.used, one.uses = float(words[2]), one.uses + 1
                    self._note(words[1], one)
                elif words[0] == "-":
                    self._gone(words[1])
                elif words[0] == "+" and NAME(words[1]):
                    made = Held(int(words[2]), float(words[3]), int(words[4]))
                    if len(words) > 6:
                        made.used, made.uses = float(words[5]), int(words[6])
                    self.objects[words[1]] = made
                    self._changes[words[1]] = True
                    self._note(words[1], made)

    def _note(self, digest: str, one: Held) -> None:
        self.rule.note(Entry(digest, one.size, one.came, one.used, one.uses))

    def _gone(self, digest: str) -> None:
        if self.objects.pop(digest, None) is not None:
            self.rule.forget(digest)
            self._changes[digest] = False


__all__ = ["LOCK_S", "LONGEST_LOG", "NAME", "Held", "Log"]
