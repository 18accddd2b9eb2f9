"""What can be asked about jobs. See ``records`` for what is kept of them, and ``keeper`` for who does it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import select
import shutil
import signal
import socket
import threading
import time

from ..frames import Reader, pack, unpack
from ..frames import write as write_all
from . import lineage, records
from .calls import LATER, Cancelled, Trouble
from .keeper import nursery
from .waiting import KEPT, LONGEST_S, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .calls import Answer, Call, Handler

START_S = 60.0  # for the keepers of one call to begin
KEEP_S = 7 * 86400.0  # that what is left of a job is kept after its end
MOST_JOBS = 1000  # in one call
READ_BYTES = 1 << 20
STREAMS = {"stdout": ("output", "out"), "stderr": ("error", "err")}


class _Nursery:
    """This side of the nursery: sends orders and is told when their keepers have begun."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        begun_out, begun_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _close_all_but(theirs.fileno(), begun_in)
                nursery(theirs.fileno(), begun_in)
            finally:
                os._exit(1)
        theirs.close()
        os.close(begun_in)
        self._orders = ours
        self._begun = begun_out
        self._lock = threading.Lock()
        self._waiting: dict[int, threading.Event] = {}
        self._numbers = itertools.count(1)
        self._listens = False

    def start(self, orders: list[dict[str, Any]]) -> None:
        """Have commands started; returns when they are, or when what was in the way is written down."""
        events = []
        with self._lock:
            if not self._listens:
                self._listens = True
                threading.Thread(target=self._listen, daemon=True).start()
            frames = []
            for order in orders:
                number = next(self._numbers)
                self._waiting[number] = threading.Event()
                events.append(self._waiting[number])
                frames.append(pack(0, 0, number, order))
            try:
                write_all(self._orders.fileno(), b"".join(frames))
            except OSError:
                os._exit(1)  # it was ended from outside: whoever called makes a new porter and asks again
        until = time.monotonic() + START_S
        for event in events:
            if not event.wait(max(0.0, until - time.monotonic())):
                raise Trouble("broken", "a job's keeper did not begin within %g s" % START_S)

    def _listen(self) -> None:
        reader = Reader(self._begun)
        while True:
            frames = reader.read()
            if frames is None:
                os._exit(1)
            for frame in frames:
                event = self._waiting.pop(unpack(frame)[2], None)
                if event is not None:
                    event.set()


def _close_all_but(*spared: int) -> None:
    """Let go of everything: sshd ends a session when nobody holds its streams."""
    none = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(none, fd)
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        names = [str(fd) for fd in range(256)]
    for name in names:
        if int(name) > 2 and int(name) not in spared:
            with contextlib.suppress(OSError):
                os.close(int(name))


_nursery: list[_Nursery] = []
_waiting = Waiting()
_swept = threading.Event()


def begin() -> None:
    """Be ready for jobs; before this process has a second thread."""
    _nursery.append(_Nursery())
    with contextlib.suppress(OSError, ValueError):  # each job that is waited for takes a descriptor here
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # jobs have what the nursery has


def do_start(call: Call) -> Answer:
    """{"jobs": [{"id", "argv", "environment", "cwd", …, "fed": bytes of input}]}, inputs -> {"jobs": [status]}.

    Asked twice for the same identifier, it starts one job.
    """
    wanted = call.head["jobs"]
    if len(wanted) > MOST_JOBS:
        raise Trouble("usage", "more than %d jobs in one call" % MOST_JOBS)
    os.makedirs(records.base(), 0o700, exist_ok=True)
    orders = []
    offset = 0
    for order in wanted:
        fed = call.body[offset : offset + (order["fed"] or 0)]
        offset += len(fed)
        if _prepare(order, fed):
            orders.append(order)
    if orders:
        _nursery[0].start(orders)
    if not _swept.is_set():
        _swept.set()
        threading.Thread(target=sweep, daemon=True).start()
    return {"jobs": [records.status(order["id"]) for order in wanted]}, b""


def _prepare(order: dict[str, Any], fed: bytes) -> bool:
    """Make the directory of a job; returns whether it is still to be started."""
    room = order["room"] = records.room_of(order["id"])
    order["fed"] = order["fed"] is not None
    home = os.path.expanduser("~")
    order["cwd"] = os.path.join(home, order["cwd"]) if order["cwd"] else home
    with contextlib.suppress(FileExistsError):
        os.mkdir(room, 0o700)
    if os.path.exists(os.path.join(room, "keeper")) or os.path.exists(os.path.join(room, "ended")):
        return False
    for name in ["alive"] + ["in"] * bool(order["interactive"]):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(os.path.join(room, name), 0o600)
    if order["fed"]:
        fd = os.open(os.path.join(room, "in"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(fd, fed)
        finally:
            os.close(fd)
    for key in ("input", "output", "error"):
        if order[key] is not None:
            order[key] = os.path.join(order["cwd"], order[key])
    facts = {key: order[key] for key in ("id", "argv", "cwd", "output", "error", "interactive")}
    records.write(room, "job", {**facts, "created": time.time(), "boot": lineage.boot()})
    return True


def do_status(call: Call) -> Answer:
    """{"ids"} -> {"jobs": [status]}."""
    return {"jobs": [records.status(job) for job in call.head["ids"]]}, b""


def do_list(_call: Call) -> Answer:
    """{} -> {"jobs": [status]}."""
    found = []
    for job in records.names():
        with contextlib.suppress(Trouble):
            found.append(records.status(job))
    return {"jobs": found}, b""


def do_wait(call: Call) -> Answer:
    """{"ids", "any", "deadline_s", "stream", "offset"} -> {"jobs": [status]}, bytes.

    Ends when the jobs have ended, when one has ("any"), when the stream of the only one is longer than "offset" (the
    first bytes beyond it come with the answer), or when time is over.
    """
    for job in call.head["ids"]:
        records.status(job)  # there must be such a job
    stream = call.head.get("stream")
    _waiting.take(call, None if stream is None else _path(call.head["ids"][0], stream))
    return LATER


def do_read(call: Call) -> Answer:
    """{"id", "stream", "offset"} -> pieces: what is there now, then {"job": the status before that}."""
    status = records.status(call.head["id"])
    path = _path(call.head["id"], call.head["stream"])
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        file.seek(int(call.head["offset"]))
        left = max(0, os.fstat(file.fileno()).st_size - int(call.head["offset"]))
        while left:
            data = file.read(min(left, READ_BYTES))
            if not data:
                break
            left -= len(data)
            call.write(data)
    return {"job": status}, b""


def _path(job: str, stream: str) -> str:
    """Where a stream of a job is."""
    if stream not in STREAMS:
        raise Trouble("usage", "a job has stdout and stderr, not %s" % stream)
    key, own = STREAMS[stream]
    room = records.room_of(job)
    named: str | None = (records.read(room, "job") or {}).get(key)
    return named or os.path.join(room, own)


def do_write(call: Call) -> Answer:
    """{"id"}, pieces -> {"bytes": what the job's standard input took}."""
    room = records.room_of(call.head["id"])
    status = records.status(call.head["id"])
    if not (records.read(room, "job") or {}).get("interactive"):
        raise Trouble("usage", "the standard input of job %s is not written to: it is not interactive" % status["id"])
    if status["state"] not in KEPT:
        raise BrokenPipeError(errno.EPIPE, "the job has ended", status["id"])
    try:
        fd = os.open(os.path.join(room, "in"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise BrokenPipeError(errno.EPIPE, "the job has closed its standard input", status["id"]) from None
    total = 0
    try:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        for piece in call.pieces():
            view = memoryview(piece)
            while view:
                if call.cancelled:
                    raise Cancelled
                try:
                    size = os.write(fd, view)
                except BlockingIOError:
                    with call.aside():
                        poll.poll(250)
                    continue
                total += size
                view = view[size:]
    finally:
        os.close(fd)
    return {"bytes": total}, b""


def do_end_input(call: Call) -> Answer:
    """{"id"} -> {}: its standard input ends, after what was written to it."""
    started = records.read(records.room_of(call.head["id"]), "started")
    seen = lineage.look(started["keeper"]) if started else None
    if started and seen is not None and seen.start == started["keeper_start"]:
        os.kill(started["keeper"], signal.SIGUSR1)
    return None


def _started(job: str) -> Mapping[str, Any]:
    """The record of a job that is under way.

    Raises:
        Trouble: it is not.
    """
    status = records.status(job)
    started = records.read(records.room_of(job), "started")
    if status["state"] not in KEPT or started is None:
        raise Trouble("usage", "job %s is not under way: %s" % (job, status["state"]))
    return started


def do_signal(call: Call) -> Answer:
    """{"id", "number", "main"} -> {}: to the job's command only, or to all that it started as well."""
    job, number = call.head["id"], int(call.head["number"])
    started = _started(job)
    found = lineage.of_job(job, started)
    if call.head["main"]:
        found = {pid: seen for pid, seen in found.items() if pid == started["pid"]}
    lineage.send(found, number)
    return None


def do_suspend(call: Call) -> Answer:
    """{"id"} -> {"jobs": [status]}."""
    lineage.stop(call.head["id"], _started(call.head["id"]))
    return do_status(_one(call))


def do_resume(call: Call) -> Answer:
    """{"id"} -> {"jobs": [status]}."""
    lineage.send(lineage.of_job(call.head["id"], _started(call.head["id"])), signal.SIGCONT)
    return do_status(_one(call))


def _one(call: Call) -> Call:
    call.head["ids"] = [call.head["id"]]
    return call


def do_cancel(call: Call) -> Answer:
    """{"ids", "grace_s"} -> {"jobs": [status]}: they end with all they started, and what ended ones left behind."""
    jobs = call.head["ids"]
    known = {}
    for job in jobs:
        under_way = records.status(job)["state"] in KEPT
        if under_way:
            records.write(records.room_of(job), "canceled", {})
        started = records.read(records.room_of(job), "started")
        if started is None and under_way:  # it is being started this moment
            until = time.monotonic() + START_S
            while started is None and records.is_kept(records.room_of(job)) and time.monotonic() < until:
                call.wait(0.01)
                started = records.read(records.room_of(job), "started")
        if started is not None:
            known[job] = started
    for job, started in known.items():
        found = lineage.of_job(job, started)
        lineage.send(found, signal.SIGTERM)
        lineage.send(found, signal.SIGCONT)  # one that is suspended could not act on the other
    until = time.monotonic() + float(call.head["grace_s"])
    pause = 0.002
    left = dict(known)
    while True:
        left = {job: started for job, started in left.items() if lineage.of_job(job, started)}
        if not left or time.monotonic() >= until:
            break
        call.wait(min(pause, max(0.0, until - time.monotonic())))
        pause = min(0.1, pause * 2)
    strong = [job for job, started in left.items() if not lineage.kill(job, started)]
    if strong:
        raise Trouble("broken", "job %s has a process that cannot be ended (another user's?)" % ", ".join(strong))
    _await_records(call, known)
    return do_status(call)


def _await_records(call: Call, jobs: Mapping[str, Any]) -> None:
    """Wait until keepers have written down the end of jobs that have no process any more."""
    until = time.monotonic() + 10.0
    for job in jobs:
        while records.status(job)["state"] in KEPT and time.monotonic() < until:
            call.wait(0.002)


def do_remove(call: Call) -> Answer:
    """{"ids"} -> {}: what is kept of jobs that have ended goes; those that are gone already are passed over."""
    for job in call.head["ids"]:
        room = records.room_of(job)
        if os.path.exists(os.path.join(room, "job")) and records.status(job)["state"] in KEPT:
            raise Trouble("usage", "job %s has not ended: cancel it first" % job)
        shutil.rmtree(room, ignore_errors=True)
    return None


def sweep(keep_s: float = KEEP_S) -> None:
    """Remove what is left of jobs that ended long ago."""
    for job in records.names():
        with contextlib.suppress(OSError):
            room = records.room_of(job)
            last = os.stat(room).st_mtime
            try:
                status = records.status(job)
            except Trouble:  # it was being made when its porter was ended
                status = {"state": "FAILED"}
            if status["state"] not in KEPT and time.time() - status.get("ended", last) > keep_s:
                shutil.rmtree(room, ignore_errors=True)


HANDLERS: dict[str, Handler] = {
    "jobs.start": do_start,
    "jobs.status": do_status,
    "jobs.list": do_list,
    "jobs.wait": do_wait,
    "jobs.read": do_read,
    "jobs.write": do_write,
    "jobs.end_input": do_end_input,
    "jobs.signal": do_signal,
    "jobs.suspend": do_suspend,
    "jobs.resume": do_resume,
    "jobs.cancel": do_cancel,
    "jobs.remove": do_remove,
}
__all__ = ["HANDLERS", "LONGEST_S", "begin", "sweep"]
