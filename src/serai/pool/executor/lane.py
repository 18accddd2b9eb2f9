"""A lane: the process of one slot. It runs tasks one after the other and keeps what they leave.

Two threads: the main one runs tasks; the watching one reads frames, so that a task can be ended while it runs and so that
the end of the agent is seen at once. Python runs signal handlers and most libraries want to live in the main thread, so
that is where the user's functions run.
"""

import errno
import os
import select
import signal
import sys
import threading
import time
from collections import deque

from . import wire
from .capture import Capture
from .processes import adopt_orphans, end_descendants, find_program
from .stage import Stage, StageError

OK, EXIT, EXCEPTION, TIME_LIMIT, CANCELLED, NO_COMMAND, MISSING_OUTPUT, INPUT, OUTPUT, _, EXECUTOR, UNPICKLE = range(12)
GRACE_S = 2.0  # between asking a command to end and making it
FLUSH_S = 0.1  # results wait for company no longer than this
PLAIN_SIGNALS = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ", "SIGINT") if hasattr(signal, name)]


class Bundle:
    """Tasks of one work that came together."""

    def __init__(self, ident, head, body):
        self.ident = ident
        self.work = head["w"]
        self.ids = head["ids"]
        self.argv = head.get("argv")
        self.lengths = head.get("len")
        self.inputs = head.get("in")
        self.outputs = head.get("out")
        self.landing = head.get("land")
        self.body = body
        self.next = 0  # index of the first task that was not started; moved under the lane's lock


class Results:
    """What is known of the tasks of a bundle and was not yet sent."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.ids = []
        self.causes = []
        self.exits = []
        self.started_us = []
        self.took_us = []
        self.rss_kb = []
        self.sizes = []
        self.parts = []
        self.details = {}
        self.outputs = {}

    def add(self, task, cause, code, started, took, rss_kb=0, parts=(b"", b"", b""), detail=None, outputs=None):
        if detail:
            self.details[str(len(self.ids))] = detail
        if outputs:
            self.outputs[str(len(self.ids))] = outputs
        self.ids.append(task)
        self.causes.append(cause)
        self.exits.append(code)
        self.started_us.append(int(started * 1e6))
        self.took_us.append(int(took * 1e6))
        self.rss_kb.append(rss_kb)
        self.sizes.append([len(part) for part in parts])
        self.parts.extend(parts)

    def head(self):
        """The head of the frame: parallel lists, left out where all of their entries are the usual ones."""
        head = {"ids": self.ids, "at": self.started_us, "took": self.took_us}
        for name, values in (("cause", self.causes), ("exit", self.exits), ("rss", self.rss_kb)):
            if any(values):
                head[name] = values
        if any(map(any, self.sizes)):
            head["sizes"] = self.sizes
        if self.details:
            head["detail"] = self.details
        if self.outputs:
            head["files"] = self.outputs
        return head


class Lane:
    """One slot of a node.

    Args:
        number: the lane's number on its node.
        fd_in: where frames of the agent come from.
        fd_out: where frames to the agent go.
        setup: "node" (its name), "run", "base" (a directory of its own), "keep" (bytes of output kept in a result).
    """

    def __init__(self, number, fd_in, fd_out, setup):
        self.number = number
        self._reader = wire.Reader(fd_in)
        self._fd_in = fd_in
        self._fd_out = fd_out
        self._setup = setup
        self._works = {}
        self._queue = deque()
        self._arrived = threading.Semaphore(0)
        self._lock = threading.Lock()  # guards _current, _gone, Bundle.next and the results
        self._out_lock = threading.Lock()
        self._current = 0  # task that runs
        self._started = 0.0
        self._pid = 0  # of its process, when it is a command
        self._bundle = None
        self._gone = set()  # tasks that were cancelled before they started
        self._ending = 0  # cause for which the running command is being ended
        self._limit_at = None
        self._kill_at = None
        self._results = Results()
        self._wake_r, self._wake_w = os.pipe()
        self._capture = Capture(os.path.join(setup["base"], "lane-%d" % number), setup["keep"])
        self.stage = Stage(setup["base"], number)
        self._environment = dict(os.environ, SERAI_NODE=setup["node"], SERAI_RUN=setup["run"], SERAI_LANE=str(number))
        self._functions = None
        self._in_function = False
        self._paths = {}
        self._cwd = None

    def run(self):
        """Run tasks until the agent is gone."""
        adopt_orphans()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        while True:
            self._arrived.acquire()
            bundle = self._queue.popleft()
            self._run_bundle(bundle)

    # ---- the watching thread

    def _watch(self):
        while True:
            marks = [mark for mark in (self._limit_at, self._kill_at) if mark is not None]
            wait = max(0.0, min(marks) - time.monotonic()) if marks else None
            ready, _, _ = select.select([self._fd_in, self._wake_r], [], [], wait)
            if self._wake_r in ready:
                os.read(self._wake_r, 512)
            if self._fd_in in ready:
                frames = self._reader.read()
                if frames is None:
                    self._die()
                for frame in frames:
                    self._frame(frame)
            self._check_marks(time.monotonic())

    def _frame(self, frame):
        op, _, ident, head, body = wire.unpack(frame)
        if op == wire.RUN:
            bundle = Bundle(ident, head, body)
            self._queue.append(bundle)
            self._arrived.release()
        elif op == wire.WORK:
            self._works[ident] = (head, body)
        elif op == wire.FORGET:
            for work in head["works"]:
                self._works.pop(work, None)
        elif op == wire.PEEK:
            with self._lock:
                task, since = self._current, self._started
            took = time.monotonic() - since if task else 0.0
            self._send(wire.pack(wire.NOW, self.number, task, {"took": round(took, 3)}))
        elif op == wire.CANCEL:
            self._cancel(head["ids"])
        elif op == wire.RECALL:
            self._recall(ident)
        elif op == wire.BAD_FILE:
            self.stage.bad[ident] = head["why"]
        elif op == wire.MODULES:
            self._install(head)
        elif op == wire.BYE:
            self._die()

    def _die(self):
        """The agent is gone or says so: leave no process behind."""
        pid = self._pid
        if pid:
            _signal_group(pid, signal.SIGKILL)
        end_descendants(os.getpid())
        os._exit(0)

    def _check_marks(self, now):
        with self._lock:
            if self._limit_at is not None and now >= self._limit_at:
                self._limit_at = None
                self._end(TIME_LIMIT, now)
            if self._kill_at is not None and now >= self._kill_at:
                self._kill_at = None
                if self._pid:
                    _signal_group(self._pid, signal.SIGKILL)

    def _end(self, cause, now):
        """End what runs. Called with the lock held."""
        if self._pid:
            self._ending = self._ending or cause
            _signal_group(self._pid, signal.SIGTERM)
            _signal_group(self._pid, signal.SIGCONT)
            self._kill_at = now + GRACE_S
        elif self._in_function:
            # A function cannot be ended from outside: the lane tells how everything stands and ends itself.
            self._give_up(cause, now)
        else:  # its process is about to be started, and will be ended at once
            self._ending = self._ending or cause

    def _give_up(self, cause, now):
        words = {TIME_LIMIT: "it ran longer than its time limit", CANCELLED: "cancelled"}
        bundle, results = self._bundle, self._results
        results.add(self._current, cause, None, time.time() - (now - self._started), now - self._started,
                    detail=words[cause])  # fmt: skip
        returned = [task for task in bundle.ids[bundle.next :] if task not in self._gone]
        self._emit(bundle, last=True, returned=returned)
        for waiting in list(self._queue):
            self._results.clear()
            self._emit(waiting, last=True, returned=[task for task in waiting.ids if task not in self._gone])
        end_descendants(os.getpid())
        os._exit(0)

    def _cancel(self, ids):
        with self._lock:
            wanted = set(ids)
            if self._current in wanted:
                wanted.discard(self._current)
                self._end(CANCELLED, time.monotonic())
            self._gone |= wanted

    def _recall(self, ident):
        """Give back what was not started of a bundle; the answer is part of its results."""
        with self._lock:
            bundle = self._bundle
            if bundle is None or bundle.ident != ident:
                bundle = next((one for one in self._queue if one.ident == ident), None)
            if bundle is None:
                return  # it has ended; its last results are on their way
            returned = bundle.ids[bundle.next :]
            del bundle.ids[bundle.next :]
            head = {"returned": returned}
            self._send(wire.pack(wire.RESULT, self.number, ident, head))

    def _install(self, sources):
        from .functions import install  # noqa: PLC0415 - only lanes that run functions pay for it

        install(sources)

    # ---- the main thread

    def _run_bundle(self, bundle):
        head, body = self._works[bundle.work]
        with self._lock:
            self._bundle = bundle
            self._results.clear()
        if head["kind"] == "function":
            self._run_functions(bundle, head, body)
        else:
            self._run_commands(bundle, head)
        with self._lock:
            self._emit(bundle, last=True)
            self._bundle = None
            self._gone -= set(bundle.ids)

    def _start(self, bundle):
        """Take the next task of a bundle; returns (index, task), or None at its end."""
        with self._lock:
            while bundle.next < len(bundle.ids):
                index = bundle.next
                bundle.next += 1
                task = bundle.ids[index]
                if task in self._gone:
                    self._results.add(task, CANCELLED, None, time.time(), 0.0)
                    continue
                self._current = task
                self._started = time.monotonic()
                self._ending = 0
                return index, task
        return None

    def _finish(self, bundle, *facts, **more):
        with self._lock:
            self._current = 0
            self._results.add(*facts, **more)
            if bundle.next < len(bundle.ids) and time.monotonic() - self._flushed > FLUSH_S:
                self._emit(bundle, last=False)

    def _emit(self, bundle, last, returned=()):
        """Send what is known of a bundle. Called with the lock held."""
        head = self._results.head()
        if last:
            head["last"] = 1
        if returned:
            head["returned"] = list(returned)
        self._send(wire.pack(wire.RESULT, self.number, bundle.ident, head, b"".join(self._results.parts)))
        self._results.clear()
        self._flushed = time.monotonic()

    _flushed = 0.0

    def _send(self, frame):
        with self._out_lock:
            try:
                wire.write(self._fd_out, frame)
            except OSError:
                self._die()

    def _limit(self, limit_s):
        if limit_s:
            self._limit_at = time.monotonic() + limit_s
            os.write(self._wake_w, b"x")

    def _enter(self, directory):
        if directory != self._cwd:
            os.chdir(directory)
            self._cwd = directory

    # ---- commands

    def _run_commands(self, bundle, work):
        environment = dict(self._environment)
        environment.update(work.get("env") or {})
        self._flushed = time.monotonic()
        while True:
            taken = self._start(bundle)
            if taken is None:
                return
            index, task = taken
            began, wall = self._started, time.time()
            environment["SERAI_TASK"] = str(task)
            facts = self._command(bundle, work, index, task, environment)
            cause, code, rss, detail, files = facts
            parts = self._capture.take(task, self._send_stream) + (b"",)
            self._finish(bundle, task, cause, code, wall, time.monotonic() - began, rss, parts, detail, files)
            self.stage.clean()

    def _command(self, bundle, work, index, task, environment):
        """Run one command; returns (cause, exit code, peak memory in kB, detail, files)."""
        argv = bundle.argv[index] if bundle.argv else work["argv"]
        landing = bundle.landing[index] if bundle.landing else None
        try:
            where = self._place(work)
            self.stage.lay(work.get("shared") or (), bundle.inputs[index] if bundle.inputs else (), landing)
            if bundle.outputs:
                self.stage.prepare(bundle.outputs[index])
        except StageError as error:
            return INPUT, None, 0, str(error), None
        except OSError as error:
            return EXECUTOR, None, 0, "cannot prepare a place for the task: %s" % error, None
        try:
            self._enter(where)
            pid = self._spawn(argv, environment)
        except OSError as error:
            return NO_COMMAND, None, 0, _cannot_start(argv, where, error), None
        with self._lock:
            self._pid = pid
            if self._ending:
                self._end(self._ending, time.monotonic())
                os.write(self._wake_w, b"x")
        self._limit(work.get("limit"))
        _, status, usage = os.wait4(pid, 0)
        with self._lock:
            self._pid = 0
            self._limit_at = self._kill_at = None
            ending, self._ending = self._ending, 0
        end_descendants(os.getpid(), pid)
        rss = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss // 1024
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        if ending:
            words = "it ran longer than its limit of %g s" % work["limit"] if ending == TIME_LIMIT else "cancelled"
            return ending, code, rss, words, None
        if code:
            return EXIT, code, rss, None, None
        try:
            if landing:
                return OK, 0, rss, None, self.stage.landed(landing)
            if bundle.outputs:
                return OK, 0, rss, None, self.stage.send(task, bundle.ident, bundle.outputs[index], self._send)
        except StageError as error:
            return error.cause, 0, rss, str(error), None
        return OK, 0, rss, None, None

    def _place(self, work):
        where = work.get("cwd")
        return where or self.stage.directory

    def _spawn(self, argv, environment):
        program = argv[0]
        path = self._paths.get(program)
        if path is None:
            path = find_program(program, environment.get("PATH"))
            if os.path.isabs(path):  # relative ones depend on the directory
                self._paths[program] = path
        actions = self._capture.actions
        try:
            return os.posix_spawn(path, argv, environment, file_actions=actions, setpgroup=0, setsigdef=PLAIN_SIGNALS)
        except OSError as error:
            self._paths.pop(program, None)
            if error.errno != errno.ENOEXEC:
                raise
        # A script without a first line that names its interpreter: what a shell does with it.
        argv = ["/bin/sh", path, *argv[1:]]
        return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setpgroup=0, setsigdef=PLAIN_SIGNALS)

    def _send_stream(self, task, which, size, chunks):
        """Send a standard stream that is too long for a result as a file."""
        for offset, data in chunks:
            head = {"stream": which, "size": size, "at": offset, "bundle": self._bundle.ident}
            self._send(wire.pack(wire.OUTPUT, self.number, task, head, data))

    # ---- functions

    def _run_functions(self, bundle, work, body):
        if self._functions is None:
            from .functions import Functions  # noqa: PLC0415 - lanes that run commands do not need it

            self._functions = Functions(self._capture)
        functions = self._functions
        function, failure = functions.prepare(bundle.work, work, body)
        self._flushed = time.monotonic()
        os.environ["SERAI_NODE"] = self._setup["node"]
        self._enter(self._place(work))
        start = 0
        starts = []
        for length in bundle.lengths:
            starts.append(start)
            start += length
        limit = work.get("limit")
        while True:
            taken = self._start(bundle)
            if taken is None:
                return
            index, task = taken
            began, wall = self._started, time.time()
            self._in_function = True
            self._limit(limit)
            cause, detail, result = failure or functions.call(
                function, bundle.body[starts[index] : starts[index] + bundle.lengths[index]]
            )
            with self._lock:
                self._in_function = False
                self._limit_at = None
            parts = self._capture.take(task, self._send_stream) + (result,)
            self._finish(bundle, task, cause, 0, wall, time.monotonic() - began, 0, parts, detail)


def _signal_group(pid, number):
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _cannot_start(argv, where, error):
    if error.errno == errno.ENOENT and not os.path.isdir(where):
        return "there is no directory %s to run it in" % where
    if error.errno == errno.ENOENT:
        return "there is no program %s" % argv[0]
    if error.errno == errno.E2BIG:
        return "its arguments are too long for this system (%d bytes)" % sum(len(word) for word in argv)
    return "cannot start %s: %s" % (argv[0], os.strerror(error.errno or 0))


def main(number, fd_in, fd_out, setup):
    """Be a lane. File descriptors 0, 1 and 2 become the task's: nothing, and the captured streams."""
    lane = Lane(number, fd_in, fd_out, setup)
    lane.run()
