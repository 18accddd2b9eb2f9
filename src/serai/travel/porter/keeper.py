"""Keepers: a small process for each job, which starts its command, waits for it and writes down how it ended.

A keeper outlives the porter and the connection. It is forked, which takes a millisecond where a new interpreter takes
thirty, from the *nursery*: a process that the porter forks before it has threads, for a process with threads cannot be
forked safely.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import time

from ..frames import Reader, pack, unpack
from ..frames import write as write_all
from ..processes import Starter, adopt_orphans, cannot_start
from . import records, tree

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
    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401, PLC0415 - once here, and not in every keeper
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
    canceled = os.path.exists(os.path.join(room, "canceled"))  # before it began
    if not canceled:
        main, error = _start(order, writer)
    if main:
        mine, its = tree.look(me), tree.look(main)
        started = {
            "pid": main, "start": its and its.start, "keeper": me, "keeper_start": mine and mine.start,
            "boot": tree.boot(), "time": time.time(),
        }  # fmt: skip
        records.write(room, "started", started)
        write_all(begun, pack(0, 0, number))
        os.close(begun)
        code, error = _wait(order, main, started)
        _write_end(room, code, error)
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


def _start(order: dict[str, Any], writer: list[int]) -> tuple[int, str | None]:
    """Start the command; returns its process, or what is in the way."""
    where = order["cwd"] or os.path.expanduser("~")
    opened: list[int] = []
    try:
        os.chdir(where)
        streams = _streams(order, opened, writer)
    except OSError as error:
        if error.filename in {None, where}:
            return 0, cannot_start(order["argv"], where, error)
        return 0, "cannot open %s: %s" % (error.filename, os.strerror(error.errno or 0))
    environment = {**os.environ, **order["environment"], tree.VARIABLE: order["id"]}
    starter = Starter([(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)])
    try:
        return starter.start(order["argv"], environment), None
    except (OSError, ValueError) as error:
        return 0, cannot_start(order["argv"], where, error)
    finally:
        for fd in opened:
            os.close(fd)
        os.chdir("/")


def _streams(order: dict[str, Any], opened: list[int], writer: list[int]) -> tuple[int, int, int]:
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    out = order["output"] or os.path.join(room, "out")
    err = order["error"] or os.path.join(room, "err")
    fd_out = opening(out, flags)
    return fd_in, fd_out, fd_out if out == err else opening(err, flags)


def _wait(order: dict[str, Any], main: int, started: dict[str, Any]) -> tuple[int | None, str | None]:
    """Wait for the end; returns the exit code, and what is to be said about it."""
    code: int | None = None
    said: list[str] = []

    def over(_number: int, _frame: Any) -> None:
        if said:
            tree.kill(order["id"], started)
            return
        said.append("it ran longer than %g s and was ended" % order["limit_s"])
        found = tree.of_job(order["id"], started)
        tree.send(found, signal.SIGTERM)
        tree.send(found, signal.SIGCONT)
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
