"""Keeps workers on a node: makes their room, starts them, says when they end, and leaves nothing behind.

One steward per host and run, behind the one stream that the front end holds. When that stream ends, by intent or since
the front end died, the steward ends its workers with all that they started and removes the room; so does a steward that
nobody speaks to and whose workers have all ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

from .frames import Reader, pack, unpack, write
from .porter.surroundings import addresses, mounts
from .processes import adopt_orphans, end_descendants, kill_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FURNISH = 1  # {"scratch", "files": [{"name", "mode", "size"}, …]}, bodies of the files: make the room
START = 2  # {"id", "argv", "env", "stdin"}: start a worker with this interpreter, in a directory of its own in the room
END = 3  # {"grace_s"}: end everything
DROP = 4  # {"id"}: end a worker that is of no more use
ROOM = 11  # {"room", "socket", "host", "os", "arch", "cores", "python", "who"}
ENDED = 12  # {"id", "code", "said"}
TROUBLE = 13  # {"what"}: there is no room
BEAT = 14  # {}: the host lives, and its workers may; every `BEAT_S` while there are some

TAIL = 4000  # bytes of what a worker said that are passed on
LOOK_S = 0.1  # between two looks at the workers
BEAT_S = 1.0
LONELY_S = 60.0  # without workers and without a word: nobody is coming back
GRACE_S = 3.0
PREFIX = "serai-mr-"  # of the names of rooms
LOCK = "lock"  # in a room: held while its steward lives
NEW_S = 10.0  # a room that was made so lately may not be locked yet


class Steward:
    """The room of one run on this node.

    Args:
        fd_out: where frames for the front end go.
    """

    def __init__(self, fd_out: int) -> None:
        self._out = fd_out
        self._room = ""
        self._lock = -1
        self._workers = {}  # type: dict[str, subprocess.Popen[bytes]]
        self._heard = time.monotonic()
        self._over = False
        self._grace_s = GRACE_S
        self._beat_at = 0.0
        adopt_orphans()

    def serve(self, fd_in: int) -> None:
        """Take frames until there are no more, or END."""
        reader = Reader(fd_in)
        try:
            while not self._over:
                ready, _, _ = select.select([fd_in], [], [], LOOK_S if self._workers else LONELY_S / 10)
                if ready:
                    frames = reader.read()
                    if frames is None:
                        return
                    self._heard = time.monotonic()
                    for frame in frames:
                        self._take(frame)
                self._look()
                self._beat()
                if not self._workers and time.monotonic() - self._heard > LONELY_S:
                    return
        finally:
            self.end()

    def _take(self, frame: bytes) -> None:
        op, _, _, head, body = unpack(frame)
        if op == FURNISH:
            try:
                self._furnish(head, body)
            except OSError as error:
                self._say(TROUBLE, {"what": "no room for workers: %s" % (error.strerror or error)})
        elif op == START:
            self._start(head)
        elif op == DROP:
            self._drop(head)
        elif op == END:
            self._grace_s = float(head.get("grace_s", GRACE_S))
            self._over = True

    def _furnish(self, head: Mapping[str, Any], body: bytes) -> None:
        scratch = os.path.expanduser(head.get("scratch") or "") or None
        if scratch is not None:
            os.makedirs(scratch, exist_ok=True)
        try:
            sweep(scratch or tempfile.gettempdir())
        except FileNotFoundError:  # it says that there is no such file, and means that none can be written
            why = "nothing can be written where temporary files go (a full disk?); scratch=DIR names another directory"
            raise OSError(errno.ENOSPC, why) from None
        self._room = os.path.realpath(tempfile.mkdtemp(prefix=PREFIX, dir=scratch))  # of mode 0700
        self._lock = os.open(os.path.join(self._room, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # some parallel file systems have no locks: there, nothing is ever swept
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        at = 0
        for one in head.get("files", ()):
            path = os.path.normpath(os.path.join(self._room, one["name"]))
            if not path.startswith(self._room + os.sep):
                raise OSError("%r would leave the room" % one["name"])
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, one["mode"] & 0o700 | 0o400)
            with os.fdopen(fd, "wb") as file:
                file.write(memoryview(body)[at : at + one["size"]])
            at += one["size"]
        os.makedirs(os.path.join(self._room, "files"), mode=0o700, exist_ok=True)
        self._say(
            ROOM,
            {
                "room": self._room,
                "socket": self._socket_path(),
                "host": platform.node(),
                "os": platform.system(),
                "arch": platform.machine(),
                "cores": _cores(),
                "python": list(sys.version_info[:3]),
                "who": who(),
            },
        )

    def _socket_path(self) -> str:
        """A path that only this user reaches, and short enough: what ssh binds for a moment is 17 bytes longer."""
        path = os.path.join(self._room, "g")
        if len(os.fsencode(path)) <= 104 - 1 - 17:
            return path
        short = tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")
        os.symlink(short, os.path.join(self._room, "socket"))  # so that it is found and removed at the end
        return os.path.join(short, "g")

    def _start(self, head: Mapping[str, Any]) -> None:
        name = head["id"]
        own = os.path.join(self._room, name)
        try:
            os.mkdir(own, 0o700)
            with open(own + ".err", "wb") as said, open(os.path.join(self._room, head["stdin"]), "rb") as stdin:
                self._workers[name] = subprocess.Popen(
                    [sys.executable, *head["argv"]],
                    stdin=stdin,
                    stdout=said,
                    stderr=said,
                    cwd=own,
                    env=dict(os.environ, **head["env"]),
                    start_new_session=True,
                )
        except OSError as error:
            self._say(ENDED, {"id": name, "code": None, "said": str(error)})

    def _drop(self, head: Mapping[str, Any]) -> None:
        """Kill a worker. What it leaves behind is this process's to end, which adopts it; `_look` says that it has."""
        process = self._workers.get(head["id"])
        if process is not None:
            with contextlib.suppress(OSError):
                kill_tree(process.pid)

    def _look(self) -> None:
        """Say which workers have ended."""
        for name, process in list(self._workers.items()):
            code = process.poll()
            if code is not None:
                del self._workers[name]
                # What it had started and written is of no use to the worker that may come in its place.
                end_descendants(os.getpid(), spare=[one.pid for one in self._workers.values()])
                self._say(ENDED, {"id": name, "code": code, "said": self._said(name)})
                shutil.rmtree(os.path.join(self._room, name), ignore_errors=True)

    def _beat(self) -> None:
        """A worker's own sign of life may be late while its function holds the interpreter; this one is not."""
        now = time.monotonic()
        if self._workers and now - self._beat_at >= BEAT_S:
            self._beat_at = now
            self._say(BEAT, {})

    def _said(self, name: str) -> str:
        try:
            with open(os.path.join(self._room, name + ".err"), "rb") as said:
                said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
                return said.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _say(self, op: int, head: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the front end has gone, which reading tells as well
            write(self._out, pack(op, 0, 0, head))

    def end(self) -> None:
        """End the workers and remove the room; harmless when done twice."""
        workers, self._workers = self._workers, {}
        for process in workers.values():
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGTERM)
                os.killpg(process.pid, signal.SIGCONT)  # one that is stopped would not hear it
        until = time.monotonic() + self._grace_s
        for process in workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        end_descendants(os.getpid())
        room, self._room = self._room, ""
        if room:
            _remove(room)
            os.close(self._lock)


def sweep(parent: str) -> None:
    """Remove the rooms of this user whose stewards are gone, as after a power cut: nobody holds their locks."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(PREFIX):
                _sweep(entry.path)


def _sweep(room: str) -> None:
    lock = -1
    with contextlib.suppress(OSError):
        facts = os.lstat(room)
        if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or time.time() - facts.st_mtime < NEW_S:
            return  # another's, or one that is just being made
        lock = os.open(os.path.join(room, LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(room)
    if lock >= 0:
        os.close(lock)


def _remove(room: str) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(os.readlink(os.path.join(room, "socket")), ignore_errors=True)
    shutil.rmtree(room, ignore_errors=True)


def who() -> dict[str, Any]:
    """Whose files are here and what is mounted: by that it is known which files two hosts share."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return {
        "host": platform.node(),
        "boot": boot,
        "user": os.environ.get("USER", ""),
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "mounts": mounts(),
        "addresses": addresses(),
    }


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def serve_pipes(fd_in: int, fd_out: int, _sources: Mapping[str, str]) -> None:
    """Keep workers behind a pair of pipes.

    Args:
        fd_in: where frames come from.
        fd_out: where frames go.
        _sources: the text of the steward's own modules.
    """
    steward = Steward(fd_out)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))  # `serve` ends everything on its way out
    steward.serve(fd_in)
