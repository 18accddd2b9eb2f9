"""Keepers: a small process for each job, which starts its command, waits for it and writes down how it ended.

A keeper outlives the porter and the connection. It is forked, which takes a millisecond where a new interpreter takes
thirty, from the *nursery*: a process that the porter forks before it has threads, for a process with threads cannot be
forked safely.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import gc
import os
import select
import signal
import termios
import threading
import time

from ..frames import Reader, pack, unpack
from ..frames import write as write_all
from ..processes import Starter, adopt_orphans, cannot_start, find_prctl, signal_group
from . import lineage, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

GRACE_S = 3.0  # between the polite signal and the other one, when the time of a job is over


def nursery(orders: int, begun: int) -> NoReturn:
    """Fork a keeper for every order that comes, until nobody is left to send any. Runs in a process of its own.

    Args:
        orders: where orders come from, in frames.
        begun: where the number of an order is written when its keeper has started the command, or could not.
    """
    find_prctl()  # once here, and not in every keeper
    lineage.boot()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are on their own: nobody need collect them
    gc.disable()
    gc.freeze()  # a collector would touch, and so copy, the pages that keepers share
    reader = Reader(orders)
    while True:
        frames = reader.read()
        if frames is None:
            os._exit(0)
        for frame in frames:
            _, _, number, order, _ = unpack(frame)
            try:
                forked = os.fork()
            except OSError as error:
                _write_end(order["room"], None, "cannot start a process for it: %s" % error.strerror)
                write_all(begun, pack(0, 0, number))
                continue
            if forked == 0:
                try:
                    os.close(orders)
                    keep(order, number, begun)
                finally:
                    os._exit(0)


class _Pump:
    """Takes what a job prints through pipes, so that no more than a limit of it is kept; the rest is thrown away."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._targets: dict[int, list[int]] = {}  # by where bytes come from: the file, and how many more it gets

    def pipe(self, target: int) -> int:
        """Where to write for a file."""
        source, end = os.pipe()
        self._targets[source] = [target, self._limit]
        return end

    def start(self) -> None:
        """Begin, in a thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def drain(self) -> None:
        """Wait until what was written before is in its files."""
        while True:
            with self._lock:
                if not any(_waiting_bytes(source) for source in self._targets):
                    return
            time.sleep(0.001)

    def _run(self) -> None:
        poll = select.poll()
        for source in self._targets:
            poll.register(source, select.POLLIN)
        while self._targets:
            for source, _ in poll.poll():
                with self._lock:
                    data = os.read(source, 1 << 16)
                    target, left = self._targets[source]
                    with contextlib.suppress(OSError):  # a full disk: the job goes on, as with the limit
                        write_all(target, data[:left])
                    self._targets[source][1] -= len(data[:left])
                    if not data:
                        poll.unregister(source)
                        del self._targets[source]


def _waiting_bytes(source: int) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(source, termios.FIONREAD, size)
    return size[0]


def keep(order: dict[str, Any], number: int, begun: int) -> None:
    """Be the keeper of a job, until it and all that it left behind have ended."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    room = order["room"]
    try:
        os.close(os.open(os.path.join(room, "keeper"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:  # it has one: the order came twice
        write_all(begun, pack(0, 0, number))
        return
    alive = os.open(os.path.join(room, "alive"), os.O_RDWR | os.O_CLOEXEC)
    adopt_orphans()
    writer = [-1]  # what keeps standard input from ending, where it is written to
    signal.signal(signal.SIGUSR1, lambda _number, _frame: _close(writer))
    me = os.getpid()
    main, error = 0, None
    pump = _Pump(order["output_limit"]) if order["output_limit"] is not None else None
    canceled = os.path.exists(os.path.join(room, "canceled"))  # before it began
    if not canceled:
        main, error = _start(order, writer, pump)
    if main:
        mine, its = lineage.look(me), lineage.look(main)
        started = {
            "pid": main, "start": its and its.start, "keeper": me, "keeper_start": mine and mine.start,
            "boot": lineage.boot(), "time": time.time(),
        }  # fmt: skip
        try:
            records.write(room, "started", started)
        except OSError as trouble:  # what nobody could find again must not run
            signal_group(main, signal.SIGKILL)
            error = "nothing can be written down about it: %s" % trouble.strerror
        write_all(begun, pack(0, 0, number))
        os.close(begun)
        if pump is not None:
            pump.start()
        code, said = _wait(order, main, started)
        if pump is not None:
            pump.drain()
        _write_end(room, code, error or said)
    else:
        _write_end(room, None, error)
        write_all(begun, pack(0, 0, number))
    os.close(alive)
    _close(writer)
    with contextlib.suppress(ChildProcessError):  # what is left keeps its parent, so that `cancel` finds it
        while True:
            os.waitpid(-1, 0)


def _close(fds: list[int]) -> None:
    fd, fds[0] = fds[0], -1
    if fd >= 0:
        os.close(fd)


def _start(order: dict[str, Any], writer: list[int], pump: _Pump | None) -> tuple[int, str | None]:
    """Start the command; returns its process, or what is in the way."""
    where = order["cwd"] or os.path.expanduser("~")
    opened: list[int] = []
    try:
        os.chdir(where)
        streams = _streams(order, opened, writer, pump)
    except OSError as error:
        if error.filename in {None, where}:
            return 0, cannot_start(order["argv"], where, error)
        return 0, "cannot open %s: %s" % (error.filename, os.strerror(error.errno or 0))
    environment = {**os.environ, **order["environment"], lineage.VARIABLE: order["id"]}
    starter = Starter([(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)])
    try:
        return starter.start(order["argv"], environment), None
    except (OSError, ValueError) as error:
        return 0, cannot_start(order["argv"], where, error)
    finally:
        for fd in opened:
            os.close(fd)
        os.chdir("/")


def _streams(order: dict[str, Any], opened: list[int], writer: list[int], pump: _Pump | None) -> tuple[int, int, int]:
    """Open the three standard streams; what is to be closed again goes to ``opened``."""
    room = order["room"]

    def opening(path: str, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        opened.append(fd)
        return fd

    own_in = os.path.join(room, "in")
    if order["interactive"]:
        fd_in = opening(own_in, os.O_RDONLY | os.O_NONBLOCK)
        writer[0] = os.open(own_in, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(fd_in, True)
    else:
        fd_in = opening(order["input"] or (own_in if order["fed"] else os.devnull), os.O_RDONLY)

    def printing(named: str | None, own: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        if named is not None or pump is None:
            return opening(named or os.path.join(room, own), flags)
        end = pump.pipe(os.open(os.path.join(room, own), flags, 0o666))
        opened.append(end)
        return end

    fd_out = printing(order["output"], "out")
    same = order["output"] is not None and order["output"] == order["error"]
    return fd_in, fd_out, fd_out if same else printing(order["error"], "err")


def _wait(order: dict[str, Any], main: int, started: dict[str, Any]) -> tuple[int | None, str | None]:
    """Wait for the end; returns the exit code, and what is to be said about it."""
    code: int | None = None
    said: list[str] = []

    def over(_number: int, _frame: Any) -> None:
        if said:
            lineage.kill(order["id"], started)
            return
        said.append("it ran longer than %g s and was ended" % order["limit_s"])
        found = lineage.of_job(order["id"], started)
        lineage.send(found, signal.SIGTERM)
        lineage.send(found, signal.SIGCONT)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    if order["limit_s"]:
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, order["limit_s"])
    with contextlib.suppress(ChildProcessError):
        while code is None or order["await_children"]:
            done, status = os.waitpid(-1, 0)
            if done == main:
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if not (said and not order["await_children"]):
        signal.setitimer(signal.ITIMER_REAL, 0)  # else what the command left behind is still to be ended
    return code, said[0] if said else None


def _write_end(room: str, code: int | None, error: str | None) -> None:
    canceled = os.path.exists(os.path.join(room, "canceled"))
    facts = {"code": code, "error": error, "canceled": canceled, "time": time.time()}
    try:
        records.write(room, "ended", facts)
    except OSError as trouble:
        if trouble.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        # A full disk is no reason to lose an exit code: what the job itself wrote is not touched, the record waits.
        for _ in range(600):
            time.sleep(1)
            with contextlib.suppress(OSError):
                records.write(room, "ended", facts)
                return
