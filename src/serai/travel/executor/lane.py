"""A lane: the process of one slot. It runs tasks one after the other and keeps what they leave.

Two threads: the main one runs tasks; the watching one reads frames, so that a task can be ended while it runs and so
that the end of the agent is seen at once. Python runs signal handlers and most libraries want to live in the main
thread, so that is where the user's functions run.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque

from ..mount.tasks import CANNOT_MOUNT, Afar
from ..processes import Starter, adopt_orphans, cannot_start, end_descendants, find_program, signal_group
from . import wire
from .bundle import FLUSH_BYTES, FLUSH_S, Bundle, Report
from .capture import Capture
from .functions import Functions, install
from .stage import NoMount, NotHere, Spoiled, Stage, StageError, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, NoReturn

    Ended = tuple[int, "int | None", int, "str | None", "list[int] | None"]  # cause, code, rss in kB, detail, sizes

OK, EXIT, EXCEPTION, TIME_LIMIT, CANCELLED, NO_COMMAND, MISSING_OUTPUT, INPUT, OUTPUT, _, EXECUTOR, UNPICKLE = range(12)
GRACE_S = 2.0  # between asking a command to end and making it


class Lane:
    """One slot of a node.

    Args:
        number: the lane's number on its node.
        fd_in: where frames of the agent come from.
        fd_out: where frames to the agent go.
        setup: "node" (its name), "run", "base" (a directory of its own), "keep" (bytes of output kept in a result).
    """

    def __init__(self, number: int, fd_in: int, fd_out: int, setup: dict[str, Any]) -> None:
        self.number = number
        self._reader = wire.Reader(fd_in)
        self._fd_in = fd_in
        self._setup = setup
        self._works: dict[int, tuple[dict[str, Any], bytes]] = {}
        self._queue: deque[Bundle] = deque()
        self._arrived = threading.Semaphore(0)
        self._lock = threading.Lock()  # guards what runs, what waits, what was cancelled, the marks and the results
        self._starting = threading.Lock()  # held while a process is started; kept by a thread that ends this lane
        self._current = 0  # task that runs
        self._started = 0.0
        self._pid = 0  # of its process, when it is a command
        self._bundle: Bundle | None = None
        self._gone: set[int] = set()  # tasks here that were cancelled before they started
        self._ending = 0  # cause for which the running command is being ended
        self._limit_at: float | None = None
        self._kill_at: float | None = None
        self._flush_at: float | None = None
        self._dying = False
        self._report = Report(number, fd_out, lambda: self._die(0))
        self._wake_r, self._wake_w = os.pipe()
        self._capture = Capture(os.path.join(setup["base"], "lane-%d" % number), setup["keep"])
        self._starter = Starter(self._capture.actions)
        self._stage = Stage(setup["base"], number)
        self._afar = Afar(setup["base"], number)
        self._environment = dict(os.environ, SERAI_NODE=setup["node"], SERAI_RUN=setup["run"], SERAI_LANE=str(number))
        self._functions: Functions | None = None
        self._in_function = False
        self._adopts = False

    def run(self) -> NoReturn:
        """Run tasks until the agent is gone."""
        self._adopts = adopt_orphans()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        while True:
            self._arrived.acquire()
            with self._lock:  # at no time is a bundle neither in the queue nor the one that runs
                bundle = self._bundle = self._queue.popleft()
            self._run_bundle(bundle)

    # ---- the watching thread

    def _watch(self) -> None:
        try:
            while True:
                self._look()
        except BaseException:  # noqa: BLE001 - a lane that nobody watches must not live on
            traceback.print_exc()
            self._die(3)

    def _look(self) -> None:
        marks = [mark for mark in (self._limit_at, self._kill_at, self._flush_at) if mark is not None]
        wait = max(0.0, min(marks) - time.monotonic()) if marks else None
        ready, _, _ = select.select([self._fd_in, self._wake_r], [], [], wait)
        if self._wake_r in ready:
            os.read(self._wake_r, 512)
        if self._fd_in in ready:
            frames = self._reader.read()
            if frames is None:
                self._die(0)
            for frame in frames:
                self._frame(frame)
        with self._lock:
            self._check_marks(time.monotonic())

    def _frame(self, frame: bytes) -> None:
        op, _, ident, head, body = wire.unpack(frame)
        if op == wire.RUN:
            self._queue.append(Bundle(ident, head, body))
            self._arrived.release()
        elif op == wire.WORK:
            self._works[ident] = (head, body)
        elif op == wire.PEEK:
            with self._lock:
                task, since = self._current, self._started
            took = time.monotonic() - since if task else 0.0
            self._report.send(wire.pack(wire.NOW, self.number, task, {"took": round(took, 3)}))
        elif op == wire.CANCEL:
            self._cancel(head["ids"])
        elif op == wire.RECALL:
            self._recall(ident)
        elif op == wire.BAD_FILE:
            self._stage.bad[ident] = head["why"]
        elif op == wire.HELD:
            self._stage.held.update({int(number): known for number, known in head["files"].items()})
        else:
            self._seldom(op, head)

    def _seldom(self, op: int, head: dict[str, Any]) -> None:
        if op == wire.FORGET:
            self._forget(head["works"])
        elif op == wire.MODULES:
            self._install(head)
        elif op == wire.BYE:
            self._die(0)

    def _die(self, code: int) -> NoReturn:
        """The agent is gone or says so: leave no process behind."""
        self._starting.acquire()  # for good: the main thread starts nothing any more
        self._dying = True
        self._vanish(code)

    def _vanish(self, code: int) -> NoReturn:
        pid = self._pid
        if pid:
            signal_group(pid, signal.SIGKILL)
        end_descendants(os.getpid())
        if not self._adopts:  # what functions started is in this very group, and cannot be found otherwise
            signal_group(0, signal.SIGKILL)
        os._exit(code)

    def _check_marks(self, now: float) -> None:
        """Do what is due. Called with the lock held."""
        if self._limit_at is not None and now >= self._limit_at:
            self._limit_at = None
            self._end(TIME_LIMIT, now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            if self._pid:
                signal_group(self._pid, signal.SIGKILL)
                os.kill(self._pid, signal.SIGKILL)  # it may have left its group; not reaped, so still this one
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            if self._report.ids and self._bundle is not None:
                if now - self._report.flushed >= FLUSH_S:
                    self._report.emit(self._bundle, last=False)
                else:
                    self._flush_at = self._report.flushed + FLUSH_S

    def _end(self, cause: int, now: float) -> None:
        """End what runs. Called with the lock held."""
        if self._pid:
            self._ending = self._ending or cause
            signal_group(self._pid, signal.SIGTERM)
            signal_group(self._pid, signal.SIGCONT)
            if self._kill_at is None:  # asking again gives no more time
                self._kill_at = now + GRACE_S
        elif self._in_function:
            # A function cannot be ended from outside: the lane tells how everything stands and ends itself.
            self._give_up(cause, now)
        else:  # its process is about to be started, and will not be
            self._ending = self._ending or cause

    def _give_up(self, cause: int, now: float) -> None:
        words = {TIME_LIMIT: "it ran longer than its time limit", CANCELLED: "cancelled"}[cause]
        took = now - self._started
        self._report.add(self._current, cause, None, time.time() - took, took, detail=words)
        for bundle in [self._bundle, *self._queue]:
            if bundle is not None:
                waiting = bundle.ids[bundle.next :]
                for task in waiting:
                    if task in self._gone:
                        self._report.add(task, CANCELLED, None, time.time(), 0.0)
                self._report.emit(bundle, last=True, returned=[task for task in waiting if task not in self._gone])
        self._report.send(wire.pack(wire.BYE, self.number))
        self._vanish(0)

    def _waiting(self) -> Iterator[int]:
        """The tasks that were not started. Called with the lock held."""
        for bundle in [self._bundle, *self._queue]:
            if bundle is not None:
                yield from bundle.ids[bundle.next :]

    def _cancel(self, ids: Iterable[int]) -> None:
        with self._lock:
            wanted = set(ids)
            if self._current in wanted:
                self._end(CANCELLED, time.monotonic())
            self._gone.update(wanted.intersection(self._waiting()))

    def _recall(self, ident: int) -> None:
        """Give back what was not started of a bundle; the answer is part of its results."""
        with self._lock:
            for bundle in [self._bundle, *self._queue]:
                if bundle is not None and bundle.ident == ident:
                    waiting = bundle.ids[bundle.next :]
                    returned = [task for task in waiting if task not in self._gone]
                    # Those that were cancelled stay, to be reported; where they stand does not matter any more.
                    bundle.ids[bundle.next :] = [task for task in waiting if task in self._gone]
                    self._report.send(wire.pack(wire.RESULT, self.number, ident, {"returned": returned}))
                    return
        # It has ended; its last results are on their way.

    def _forget(self, works: Iterable[int]) -> None:
        for work in works:
            self._works.pop(work, None)
        if self._functions is not None:
            self._functions.forget(works)

    def _install(self, sources: dict[str, str]) -> None:
        try:
            install(sources)
        except Exception as error:  # noqa: BLE001 - running a module raises anything
            why = "cannot install modules: %s: %s" % (type(error).__name__, error)
            self._report.send(wire.pack(wire.TROUBLE, self.number, 0, {"why": why}))

    # ---- the main thread

    def _run_bundle(self, bundle: Bundle) -> None:
        self._report.flushed = time.monotonic()
        work, body = self._works.get(bundle.work, (None, b""))
        if bundle.next < len(bundle.ids):  # else all was recalled, and the work may be forgotten
            if work is None:
                self._refuse(bundle, EXECUTOR, "the lane does not know its work")
            elif work["kind"] == "function":
                self._run_functions(bundle, work, body)
            else:
                self._run_commands(bundle, work)
        with self._lock:
            self._report.emit(bundle, last=True)
            self._bundle = None
            if self._gone:
                self._gone.difference_update(bundle.ids)

    def _start(self, bundle: Bundle, *, in_function: bool = False) -> tuple[int, int] | None:
        """Take the next task of a bundle; returns (index, task), or None at its end."""
        with self._lock:
            while bundle.next < len(bundle.ids):
                index = bundle.next
                bundle.next += 1
                task = bundle.ids[index]
                if task in self._gone:
                    self._report.add(task, CANCELLED, None, time.time(), 0.0)
                    continue
                self._current = task
                self._started = time.monotonic()
                self._ending = 0
                self._in_function = in_function
                return index, task
        return None

    def _finish(self, bundle: Bundle, *facts: Any) -> None:
        with self._lock:
            self._current = 0
            self._report.add(*facts)
            if bundle.next >= len(bundle.ids):
                return
            if time.monotonic() - self._report.flushed > FLUSH_S or self._report.bytes > FLUSH_BYTES:
                self._report.emit(bundle, last=False)
            elif self._flush_at is None:  # the next task may run for long
                self._flush_at = self._report.flushed + FLUSH_S
                os.write(self._wake_w, b"x")

    def _refuse(self, bundle: Bundle, cause: int, why: str) -> None:
        while True:
            taken = self._start(bundle)
            if taken is None:
                return
            self._finish(bundle, taken[1], cause, None, time.time(), 0.0, 0, (b"", b"", b""), why)

    def _limit(self, limit_s: float | None) -> None:
        if limit_s:
            self._limit_at = time.monotonic() + limit_s
            os.write(self._wake_w, b"x")

    # ---- commands

    def _run_commands(self, bundle: Bundle, work: dict[str, Any]) -> None:
        environment = dict(self._environment)
        environment.update(work.get("env") or {})
        if self._functions is not None:
            self._stage.clean()  # functions share their process and their directory; commands start in an empty one
        # A task that runs elsewhere and was given no files does not know of the lane's own directory.
        elsewhere = work.get("cwd") and not (work.get("shared") or bundle.inputs or bundle.outputs or bundle.reads)
        while True:
            taken = self._start(bundle)
            if taken is None:
                return
            index, task = taken
            began, wall = self._started, time.time()
            environment["SERAI_TASK"] = str(task)
            try:
                cause, code, rss, detail, files = self._command(bundle, work, index, environment)
            except NotHere as error:
                self._give_back(bundle, task, error)
                self._stage.clean()
                continue
            parts = (*self._capture.take(bundle, task, self._report.send_stream), b"")
            self._finish(bundle, task, cause, code, wall, time.monotonic() - began, rss, parts, detail, files)
            if not elsewhere:
                self._stage.clean()

    def _command(self, bundle: Bundle, work: dict[str, Any], index: int, environment: dict[str, str]) -> Ended:
        refused = self._lay(bundle, work, index)
        if refused is not None:
            return refused
        argv = bundle.argv[index] if bundle.argv else work["argv"]
        where = work.get("cwd") or self._stage.directory
        reads = bundle.reads[index] if bundle.reads else ()
        try:
            os.chdir(where)
            words = argv if not reads else self._words_afar(bundle, reads, argv, environment)
            with self._lock, self._starting:
                if self._ending:
                    return self._ending, None, 0, "cancelled", None
                pid = self._pid = self._starter.start(words, environment)
        except (OSError, ValueError) as error:
            return NO_COMMAND, None, 0, cannot_start(argv, where, error), None
        self._limit(work.get("limit"))
        code, rss, ending = self._wait(pid)
        end_descendants(os.getpid(), 0 if self._adopts else pid)
        trouble = self._tell_seen(bundle, index, reads, code) if reads else ""
        if ending:
            words = "it ran longer than its limit of %g s" % work["limit"] if ending == TIME_LIMIT else "cancelled"
            return ending, code, rss, words, None
        if code is None:
            return EXECUTOR, None, 0, "something in its lane took its exit status away", None
        return _failed(code, rss, trouble) if code or trouble else self._outputs(bundle, index, rss)

    def _words_afar(
        self, bundle: Bundle, reads: Sequence[Any], argv: list[str], environment: dict[str, str]
    ) -> list[str]:
        """What a task is started by that reads from afar."""
        path = find_program(argv[0] if argv else "", environment.get("PATH"))
        if not os.access(path, os.X_OK):  # said as of all others
            os.stat(path)
            raise PermissionError(errno.EACCES, "permission denied", path)
        try:
            return self._afar.words(reads, bundle.sources, argv)
        except OSError as error:
            raise NoMount("", words_of(error)) from error

    def _tell_seen(self, bundle: Bundle, index: int, reads: Sequence[Any], code: int | None) -> str:
        """Tell what a task read from afar; returns what it could not read, and why.

        Raises:
            NoMount: it could not, and was not started.
        """
        why = self._afar.failed() if code == CANNOT_MOUNT else ""
        if why:
            raise NoMount("", why)
        trouble = self._afar.trouble()
        head = {"w": bundle.work, "ok": int(code == 0 and not trouble), "files": self._afar.seen(reads)}
        self._report.send(wire.pack(wire.SEEN, self.number, bundle.ids[index], head))
        return trouble

    def _lay(self, bundle: Bundle, work: dict[str, Any], index: int) -> Ended | None:
        """Lay down what a task needs; returns how it ended if that cannot be done."""
        try:
            landing = bundle.landing[index] if bundle.landing else None
            self._stage.lay(work.get("shared") or (), bundle.inputs[index] if bundle.inputs else (), landing)
            for there, name in self._afar.places(bundle.reads[index] if bundle.reads else ()):
                self._stage.see(there, name)
            if bundle.outputs:
                self._stage.prepare(bundle.outputs[index])
        except StageError as error:
            return INPUT, None, 0, str(error), None
        except (OSError, ValueError) as error:
            return EXECUTOR, None, 0, "cannot prepare a place for the task: %s" % words_of(error), None
        return None

    def _give_back(self, bundle: Bundle, task: int, error: NotHere) -> None:
        """A task cannot have an input in place, or read it from afar: it comes again, with the input itself."""
        if isinstance(error, Spoiled):
            self._report.send(wire.pack(wire.SPOILED, self.number, error.number, {"stamp": error.stamp}))
        elif isinstance(error, NoMount):
            self._capture.take(bundle, task, self._report.send_stream)  # what was said about it; nothing else was
            self._report.send(wire.pack(wire.NO_MOUNT, self.number, 0, {"why": error.why}))
        else:
            self._report.send(wire.pack(wire.NOT_HERE, self.number, 0, {"path": error.path, "why": error.why}))
        with self._lock:
            self._current = 0
            if self._ending:  # meanwhile, its user has withdrawn it
                self._report.add(task, self._ending, None, time.time(), 0.0, detail="cancelled")
            else:
                self._report.emit(bundle, last=False, returned=[task])

    def _wait(self, pid: int) -> tuple[int | None, int, int]:
        """Wait for a command; returns (exit code, peak memory in kB, cause it was ended for or 0)."""
        code: int | None = None
        rss = 0
        try:
            if hasattr(os, "waitid"):  # not reaped before the lock is held: signals never meet another process
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                with self._lock:
                    _, status, usage = os.wait4(pid, 0)
                    self._pid = 0
            else:
                _, status, usage = os.wait4(pid, 0)
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            rss = usage.ru_maxrss // 1024 if sys.platform == "darwin" else usage.ru_maxrss
        except ChildProcessError:  # the watching thread ends everything, or a function before left a collector behind
            if self._dying:
                threading.Event().wait()
        with self._lock:
            self._pid = 0
            self._limit_at = self._kill_at = None
            ending, self._ending = self._ending, 0
        return code, rss, ending

    def _outputs(self, bundle: Bundle, index: int, rss: int) -> Ended:
        try:
            if bundle.landing and bundle.landing[index]:
                return OK, 0, rss, None, self._stage.landed(bundle.landing[index])
            if bundle.outputs:
                task, outputs = bundle.ids[index], bundle.outputs[index]
                return OK, 0, rss, None, self._stage.send(task, bundle.ident, outputs, self._report.send)
        except StageError as error:
            return error.cause, 0, rss, str(error), None
        return OK, 0, rss, None, None

    # ---- functions

    def _run_functions(self, bundle: Bundle, work: dict[str, Any], body: bytes) -> None:
        if self._functions is None:
            self._functions = Functions(self._capture)
        functions = self._functions
        function, failure = functions.prepare(bundle.work, work, body)
        os.environ["SERAI_NODE"] = self._setup["node"]
        where = work.get("cwd") or self._stage.directory
        try:
            os.chdir(where)
        except (OSError, ValueError) as error:
            self._refuse(bundle, NO_COMMAND, "cannot run it in %s: %s" % (where, words_of(error)))
            return
        limit = work.get("limit")
        while True:
            taken = self._start(bundle, in_function=True)
            if taken is None:
                return
            index, task = taken
            began, wall = self._started, time.time()
            self._limit(limit)
            if function is None:
                cause, detail, result = failure or (EXECUTOR, "there is no function", b"")
            else:
                cause, detail, result = functions.call(function, bundle.payload(index))
            with self._lock:
                self._in_function = False
                self._limit_at = None
            parts = (*self._capture.take(bundle, task, self._report.send_stream), result)
            self._finish(bundle, task, cause, 0, wall, time.monotonic() - began, 0, parts, detail)


def _failed(code: int, rss: int, trouble: str) -> Ended:
    """How a command failed: many a one goes on, and ends well, after a part of its input could not be read."""
    if trouble:
        return INPUT, code or None, rss, "%s; it went on, and ended with %d" % (trouble, code), None
    return EXIT, code, rss, None, None


def main(number: int, fd_in: int, fd_out: int, setup: dict[str, Any]) -> None:
    """Be a lane. File descriptors 0, 1 and 2 become the task's: nothing, and the captured streams."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take every exit status away
    Lane(number, fd_in, fd_out, setup).run()
