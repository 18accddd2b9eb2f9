"""The agent: one per node. It checks in, starts lanes, passes frames on, and leaves nothing when its front end is gone.

One thread does everything; frames that come in are handed to it by whatever carries them (`feed`).
"""

import collections
import fcntl
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from . import facts, wire
from .processes import adopt_orphans, end_descendants
from .stage import StageError
from .store import Store

LANE_BOOT = (
    "import os,sys,json\n"
    "i=os.dup(0);o=os.dup(1);n=os.open(os.devnull,os.O_RDWR);os.dup2(n,0);os.dup2(2,1)\n"
    "def r(k):\n b=b''\n while len(b)<k:\n  c=os.read(i,k-len(b))\n  if not c:sys.exit()\n  b+=c\n return b\n"
    "p=json.loads(r(int(r(12))))\n"
    "exec(p['loader'])\n"
    "load(p['sources'],('wire','processes','capture','stage','functions','lane')).main(p['number'],i,o,p['setup'])\n"
)
CANCEL_GRACE_S = 8.0  # a lane that does not answer for so long after a cancellation is ended from outside
LANE_SETUP = ("node", "run", "keep")


class LaneProcess:
    """A lane, seen from its agent."""

    def __init__(self, number, parcel, log):
        self.number = number
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", LANE_BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                bufsize=0,
            )
        self.log = log
        self.fd = self.process.stdout.fileno()
        self.fd_in = self.process.stdin.fileno()
        os.set_blocking(self.fd_in, False)
        self.reader = wire.Reader(self.fd)
        self.waiting = collections.deque()  # frames it has not taken yet
        self.now = None  # (task, seconds), as it said last
        self.cancelled_at = None
        self.waiting.append(memoryview(b"%12d" % len(parcel) + parcel))

    def push(self):
        """Write what it will take now; returns whether something is left."""
        while self.waiting:
            view = self.waiting[0]
            try:
                done = os.write(self.fd_in, view)
            except BlockingIOError:
                return True
            except OSError:
                self.waiting.clear()  # it has died; the end of its output says so
                return False
            if done == len(view):
                self.waiting.popleft()
            else:
                self.waiting[0] = view[done:]
        return False


class Agent:
    """The executor of a node.

    Args:
        send: takes a frame to the front end; raises OSError when it is gone.
        sources: the text of the modules that a lane is started from, with "loader".
    """

    def __init__(self, send, sources):
        self._out = send
        self._sources = sources
        self._inbox = collections.deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._awake = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self._lanes = {}
        self._works = {}
        self._modules = None
        self._store = None
        self._hello = None
        self._heard_at = time.monotonic()
        self._beat_at = float("inf")
        self._running = True
        self._why = "told so"

    def feed(self, frame):
        """Take a frame from the front end; None when it is gone. Any thread may call this."""
        self._inbox.append(frame)
        if not self._awake.is_set():
            self._awake.set()
            try:
                os.write(self._wake_w, b"x")
            except BlockingIOError:
                pass

    def run(self):
        """Serve until the front end is gone or says so."""
        adopt_orphans()
        try:
            while self._running:
                now = time.monotonic()
                wait = max(0.0, min(self._beat_at - now, 60.0))
                for key, events in self._selector.select(wait):
                    lane = key.data
                    if lane is None:
                        self._take_inbox()
                    elif key.fileobj == lane.fd:
                        self._take_lane(lane)
                    elif events & selectors.EVENT_WRITE and not lane.push():
                        self._selector.unregister(lane.fd_in)
                self._check_time(time.monotonic())
        except OSError as error:
            self._why = str(error)
        finally:
            self._end()

    def _end(self):
        for lane in self._lanes.values():
            try:
                os.kill(lane.process.pid, signal.SIGKILL)
            except OSError:
                pass
        end_descendants(os.getpid())
        if self._store is not None:
            shutil.rmtree(self._store.base, ignore_errors=True)

    def _send(self, op, lane=0, ident=0, head=None, body=b""):
        self._out(wire.pack(op, lane, ident, head, body))

    # ---- from the front end

    def _take_inbox(self):
        os.read(self._wake_r, 4096)
        self._awake.clear()
        while self._inbox:
            frame = self._inbox.popleft()
            if frame is None:
                self._running = False
                self._why = "the connection is gone"
                return
            self._heard_at = time.monotonic()
            self._frame(frame)

    def _frame(self, frame):
        op, number, ident = wire.peek(frame)
        if op == wire.RUN:
            self._to_lane(number, frame)
        elif op in (wire.CANCEL, wire.RECALL):
            lane = self._lanes.get(number)
            if lane is not None:
                if op == wire.CANCEL and lane.cancelled_at is None:
                    lane.cancelled_at = time.monotonic()
                self._pass(lane, frame)
        elif op == wire.FILE:
            self._file(number, ident, frame)
        elif op == wire.WORK:
            self._works[ident] = frame
            self._to_all(frame)
        elif op == wire.PING:
            self._send(wire.BEAT, head={"echo": wire.unpack(frame)[3].get("t")})
        elif op == wire.HELLO:
            self._check_in(wire.unpack(frame)[3])
        elif op == wire.BYE:
            self._running = False
        else:
            self._seldom(op, frame)

    def _seldom(self, op, frame):
        head = wire.unpack(frame)[3]
        if op == wire.PROBE:
            self._send(wire.PROBED, head={"software": facts.software(head["software"])})
        elif op == wire.DROP:
            self._store.drop(head["keys"])
        elif op == wire.FORGET:
            for work in head["works"]:
                self._works.pop(work, None)
            self._to_all(frame)
        elif op == wire.MODULES:
            self._modules = frame
            self._to_all(frame)

    def _check_in(self, hello):
        self._hello = hello
        try:
            base = make_base(hello.get("scratch"), hello["run"])
        except OSError as error:
            self._send(wire.TROUBLE, head={"fatal": "cannot make a directory of its own: %s" % error})
            self._running = False
            return
        self._store = Store(base)
        self._beat_at = time.monotonic() + hello["beat"]
        self._send(wire.AD, head=facts.ad(base, hello.get("software") or ()))

    def _file(self, number, key, frame):
        _, _, _, head, body = wire.unpack(frame)
        try:
            self._store.write(key, head, body)
        except (StageError, OSError) as error:
            why = "%s on %s" % (getattr(error, "strerror", None) or error, self._hello["node"])
            if key in self._store.bad:
                return
            self._store.bad[key] = why
            bad = wire.pack(wire.BAD_FILE, number, key, {"why": why})
            if number == wire.EVERY_LANE:
                self._to_all(bad)
            else:
                self._to_lane(number, bad)

    # ---- to and from lanes

    def _to_lane(self, number, frame):
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._start_lane(number)
        self._pass(lane, frame)

    def _to_all(self, frame):
        for lane in self._lanes.values():
            self._pass(lane, frame)

    def _pass(self, lane, frame):
        lane.waiting.append(memoryview(frame))
        if len(lane.waiting) == 1 and lane.push():
            self._selector.register(lane.fd_in, selectors.EVENT_WRITE, lane)

    def _start_lane(self, number):
        setup = {name: self._hello[name] for name in LANE_SETUP}
        setup["base"] = self._store.base
        parcel = {"loader": self._sources["loader"], "sources": self._sources, "number": number, "setup": setup}
        lane = LaneProcess(
            number, json.dumps(parcel).encode("ascii"), os.path.join(self._store.base, "lane-%d.log" % number)
        )
        self._lanes[number] = lane
        self._selector.register(lane.fd, selectors.EVENT_READ, lane)
        if lane.push():
            self._selector.register(lane.fd_in, selectors.EVENT_WRITE, lane)
        for key, why in self._store.bad.items():
            self._pass(lane, wire.pack(wire.BAD_FILE, number, key, {"why": why}))
        if self._modules is not None:
            self._pass(lane, self._modules)
        for work in self._works.values():
            self._pass(lane, work)
        return lane

    def _take_lane(self, lane):
        frames = lane.reader.read()
        if frames is None:
            self._lane_gone(lane)
            return
        for frame in frames:
            op, number, ident = wire.peek(frame)
            if op == wire.NOW:
                lane.now = (ident, wire.unpack(frame)[3]["took"])
            else:
                self._out(frame)
            lane.cancelled_at = None

    def _lane_gone(self, lane):
        self._selector.unregister(lane.fd)
        try:
            self._selector.unregister(lane.fd_in)
        except KeyError:
            pass
        del self._lanes[lane.number]
        lane.process.stdin.close()
        lane.process.stdout.close()
        try:
            lane.process.kill()
            code = lane.process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            code = None
        end_descendants(os.getpid(), spare=[other.process.pid for other in self._lanes.values()] or [0])
        self._send(wire.LANE_DIED, lane.number, head={"exit": code, "log": _tail(lane.log)})

    # ---- time

    def _check_time(self, now):
        for lane in list(self._lanes.values()):
            if lane.cancelled_at is not None and now - lane.cancelled_at > CANCEL_GRACE_S:
                lane.cancelled_at = None
                lane.process.kill()
        if self._hello is not None and now - self._heard_at > self._hello["silence"]:
            self._running = False
            self._why = "the front end has been silent for %d s" % self._hello["silence"]
        if now >= self._beat_at:
            self._beat_at = now + self._hello["beat"]
            self._beat()

    def _beat(self):
        head = {
            "lanes": {str(lane.number): lane.now for lane in self._lanes.values() if lane.now and lane.now[0]},
            "load": _load(),
            "memory_free_bytes": facts.memory()[1],
            "disk_free_bytes": facts.disk_free(self._store.base),
        }
        self._send(wire.BEAT, head=head)
        for lane in self._lanes.values():
            self._pass(lane, wire.pack(wire.PEEK, lane.number))


def _load():
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return 0.0


def _tail(path, limit=2000):
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def make_base(scratch, run):
    """Make the executor's own directory, and remove those whose executor is gone.

    A directory belongs to a living executor as long as its lock is held; the kernel lets go of it however that one ends.
    """
    parent = os.path.expanduser(scratch) if scratch else tempfile.gettempdir()
    os.makedirs(parent, exist_ok=True)
    prefix = "serai-%d-" % os.getuid()
    for name in os.listdir(parent):
        if name.startswith(prefix):
            _sweep(os.path.join(parent, name))
    base = tempfile.mkdtemp(prefix="%s%s-" % (prefix, run), dir=parent)
    lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return base


def _sweep(path):
    try:
        info = os.lstat(path)
        if info.st_uid != os.getuid() or os.path.islink(path) or time.time() - info.st_mtime < 10:
            return  # another's, or one that is just being made
        lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(lock)


def serve_channel(channel, sources):
    """Be the agent at the far end of an execnet channel."""
    agent = Agent(channel.send, sources)
    channel.setcallback(agent.feed, endmarker=None)
    agent.run()


def serve_pipes(fd_in, fd_out, sources):
    """Be the agent behind a pair of pipes."""
    agent = Agent(lambda frame: wire.write(fd_out, frame), sources)

    def listen():
        reader = wire.Reader(fd_in)
        while True:
            frames = reader.read()
            if frames is None:
                agent.feed(None)
                return
            for frame in frames:
                agent.feed(frame)

    threading.Thread(target=listen, name="listen", daemon=True).start()
    agent.run()
