"""The agent: one per node. It checks in, starts lanes, passes frames on, and leaves nothing when its front end is gone.

One thread does everything; frames that come in are handed to it by whatever carries them (`feed`).
"""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import signal
import threading
import time

from ..processes import adopt_orphans, end_descendants, leave_no_core
from . import facts, wire
from .lanes import END_GRACE_S, LaneProcess
from .reach import Reach
from .stage import StageError, remove, words_of
from .store import Spool, Store, frames_of, has_cache, is_left, left_by, make_base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..caching.needs import Needs

CANCEL_GRACE_S = 8.0  # a lane that does not answer for so long after a cancellation is ended from outside
STUCK_S = 5.0  # beyond the silence that ends an executor, when its main thread cannot see to that
LOOK_S = 0.2  # between two looks at an executor that lingers
MOST_FRAMES = 1024  # that wait to be taken; with pieces of files, 256 MB
TURN = 64  # frames that are taken before the lanes have their turn
_OF_CACHES = frozenset({wire.NEEDS, wire.PEERS, wire.SHARE, wire.GIVE, wire.GRANTED})
LANE_SETUP = ("node", "run", "keep")


class Agent:
    """The executor of a node.

    Args:
        send: takes a frame to the front end; raises OSError when it is gone.
        sources: the text of the modules that a lane is started from, with "loader".
    """

    def __init__(self, send: Callable[[bytes], object], sources: Mapping[str, str]) -> None:
        self._out = send
        self._reach = Reach()
        self._sources = sources
        self._inbox: collections.deque[bytes | Callable[[], object] | None] = collections.deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._room = threading.Semaphore(MOST_FRAMES)
        self._awake = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self._lanes: dict[int, LaneProcess] = {}
        self._works: dict[int, bytes] = {}
        self._modules: bytes | None = None
        self._store: Store | None = None
        self._needs: Needs | None = None
        self._hello: dict[str, Any] = {}
        self._adopts = False
        self._heard_at = time.monotonic()
        self._beat_at = float("inf")
        self._running = True
        self._ending = False  # it was told to end: nothing is kept
        self._linger_until: float | None = None
        self._look_at = float("inf")

    def feed(self, frame: bytes | None) -> None:
        """Take a frame from the front end; None when it is gone. Any thread may call this.

        It waits while many frames wait already, so that inputs come no quicker than they are written.
        """
        self._heard_at = time.monotonic()
        if frame is not None:
            self._room.acquire()
        self._post(frame)

    def _post(self, one: bytes | Callable[[], object] | None) -> None:
        self._inbox.append(one)
        if not self._awake.is_set():
            self._wake()

    def _cut_off(self) -> None:
        """The front end is gone: end, or finish what is here if that was asked for, and keep what there is to say."""
        linger_s = self._hello.get("linger") or 0
        if self._needs is not None:
            self._needs.cut_off()
        if self._linger_until is not None or self._ending:
            return
        if not linger_s or self._store is None or not self._has_work():
            self._running = False
            return
        self._linger_until = time.monotonic() + linger_s
        self._beat_at, self._look_at = self._linger_until, float("inf")
        self._out = Spool(self._store.base).send

    def _has_work(self) -> bool:
        """Whether bundles are on lanes, or wait for files."""
        return any(lane.bundles for lane in self._lanes.values()) or (self._needs is not None and self._needs.waits)

    def _wake(self) -> None:
        self._awake.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"x")

    def run(self) -> None:
        """Serve until the front end is gone or says so."""
        self._adopts = adopt_orphans()
        try:
            while self._running:
                self._turn()
        except OSError as error:
            self._lament(error)
        finally:
            self._running = False
            self._end()

    def _turn(self) -> None:
        wait = max(0.0, min(min(self._beat_at, self._look_at) - time.monotonic(), 60.0))
        for key, events in self._selector.select(wait):
            lane: LaneProcess | None = key.data
            if lane is None:
                self._take_inbox()
            elif self._lanes.get(lane.number) is not lane:
                pass  # it has gone since: its file descriptors are closed, or another lane's by now
            elif key.fileobj == lane.fd:
                self._take_lane(lane)
            elif events & selectors.EVENT_WRITE and not lane.push():
                self._selector.unregister(lane.fd_in)
        self._check_time(time.monotonic())

    def _lament(self, error: OSError) -> None:
        """Say why, to a front end that is perhaps there."""
        with contextlib.suppress(OSError):
            self._send(wire.TROUBLE, head={"fatal": "the executor ended: %s" % error})

    def _end(self) -> None:
        lanes = list(self._lanes.values())
        if not self._adopts:  # only they know what they started
            until = time.monotonic() + END_GRACE_S
            for lane in lanes:
                lane.hang_up()
            while time.monotonic() < until and any(lane.process.poll() is None for lane in lanes):
                time.sleep(0.01)
        for lane in lanes:
            lane.kill()
        if self._needs is not None:
            self._needs.close()
        end_descendants(os.getpid())
        if self._store is not None and not is_left(self._store.base):
            remove(self._store.base)
        elif self._store is not None:
            self._store.keep_what_is_left()

    def _guard(self, silence: float) -> None:
        """End everything when the main thread cannot: it writes to a front end that neither reads nor is gone."""
        while self._running:
            time.sleep(min(1.0, silence / 4))
            lingers = self._linger_until is not None
            if time.monotonic() - self._heard_at > silence + STUCK_S and self._running and not lingers:
                self._end()
                os._exit(1)

    def _send(
        self, op: int, lane: int = 0, ident: int = 0, head: Mapping[str, Any] | None = None, body: bytes = b""
    ) -> None:
        self._out(wire.pack(op, lane, ident, head, body))

    # ---- from the front end

    def _take_inbox(self) -> None:
        os.read(self._wake_r, 4096)
        self._awake.clear()
        for _ in range(TURN):
            if not self._inbox:
                return
            frame = self._inbox.popleft()
            if frame is None:
                self._cut_off()
                return
            if callable(frame):
                frame()
                continue
            self._room.release()
            self._frame(frame)
        self._wake()  # the rest after the lanes and the beat: inputs may come quicker than they are written

    def _frame(self, frame: bytes) -> None:
        op, number, ident = wire.peek(frame)
        if op == wire.RUN:
            if self._needs is None or not self._needs.hold(number, ident, frame):
                self._to_lane(number, frame, ident)
        elif op in (wire.CANCEL, wire.RECALL):
            self._about_tasks(op, number, ident, frame)
        elif op == wire.PIECE and self._needs is not None:
            _, _, _, head, body = wire.unpack(frame)
            self._needs.piece(number, ident, head, body)
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
            self._ending = True
            self._running = False
        else:
            self._seldom(op, ident, frame)

    def _about_tasks(self, op: int, number: int, ident: int, frame: bytes) -> None:
        if self._needs is not None and op == wire.CANCEL:
            self._needs.cancel(number, frame)
        elif self._needs is not None and self._needs.recall(ident):
            return
        lane = self._lanes.get(number)
        if lane is None:
            return
        self._pass(lane, frame)
        if op == wire.CANCEL:
            lane.cancelled_at = lane.cancelled_at or time.monotonic()
            self._pass(lane, wire.pack(wire.PEEK, number))  # it answers, even if nothing ends by this

    def _seldom(self, op: int, ident: int, frame: bytes) -> None:
        head = wire.unpack(frame)[3]
        if op == wire.PROBE:
            self._probe(head)
        elif op == wire.DROP:
            self._inputs().drop(head["keys"])
        elif op == wire.FORGET:
            for work in head["works"]:
                self._works.pop(work, None)
            self._to_all(frame)
        elif op == wire.MODULES:
            self._modules = frame
            self._to_all(frame)
        elif op == wire.AFAR:
            self._afar(head, wire.unpack(frame)[4])
        elif op in _OF_CACHES:
            self._about_files(op, ident, head)

    def _about_files(self, op: int, ident: int, head: dict[str, Any]) -> None:
        if op == wire.NEEDS:
            self._needed(ident, head)
        elif op == wire.PEERS:
            self._caching().meet(head)
        elif op == wire.SHARE:
            self._caching().share(head)
        elif op == wire.GRANTED:
            self._caching().granted(ident, head)
        else:
            self._caching().give(ident, head)

    def _needed(self, bundle: int, head: dict[str, Any]) -> None:
        try:
            caching = self._caching()
        except OSError as error:  # a full disk: the tasks will say that their files did not come, and go elsewhere
            for one in head["files"]:
                self._send(wire.CAME, 0, int(one[0]), {"took": 0.0, "why": words_of(error)})
        else:
            caching.needs(bundle, head)

    def _probe(self, head: dict[str, Any]) -> None:
        if head["software"]:
            self._send(wire.PROBED, head={"software": facts.software(head["software"])})
        if head.get("reach"):
            self._reach.measure(head["reach"])

    def _caching(self) -> Needs:
        """What brings files to this node; made when the first is wanted."""
        if self._needs is None:
            from ..caching.needs import Needs  # noqa: PLC0415 - compiled where something is to be kept

            self._needs = Needs(self._inputs().base, self._hello, self._send, self._post, self._to_lane)
        return self._needs

    def _afar(self, head: dict[str, Any], program: bytes) -> None:
        """Tasks will read from afar; where this cannot be prepared, they say so."""
        from ..mount import tasks  # noqa: PLC0415 - compiled where something is mounted

        with contextlib.suppress(OSError):
            tasks.prepare(self._inputs().base, head, program)

    def _check_in(self, hello: dict[str, Any]) -> None:
        self._hello = hello
        try:
            base = make_base(hello.get("scratch"), hello["run"])
        except OSError as error:
            self._send(wire.TROUBLE, head={"fatal": "cannot make a directory of its own: %s" % error})
            self._running = False
            return
        self._store = Store(base)
        self._beat_at = time.monotonic() + hello["beat"]
        if hello.get("cache") and has_cache(base):  # said first: what comes next is where tasks go
            with contextlib.suppress(OSError):  # said when it is wanted
                self._caching()
        ad = facts.ad(base, hello.get("software") or ())
        if hello.get("mount"):
            from ..mount.namespace import can_mount  # noqa: PLC0415 - compiled where something may be mounted

            ad["mount"] = can_mount(base)
        self._send(wire.AD, head=ad)
        if hello.get("linger"):
            self._look_at = time.monotonic()
        threading.Thread(target=self._guard, args=(hello["silence"],), name="guard", daemon=True).start()

    def _inputs(self) -> Store:
        if self._store is None:
            raise ValueError("the front end did not say hello first")
        return self._store

    def _file(self, number: int, key: int, frame: bytes) -> None:
        store = self._inputs()
        _, _, _, head, body = wire.unpack(frame)
        try:
            store.write(key, head, body)
        except (StageError, OSError, ValueError) as error:
            why = "%s on %s" % (error if isinstance(error, StageError) else words_of(error), self._hello["node"])
            store.bad[key] = why
            store.drop([key])  # what is there of it is of no use, and the disk may be full
            bad = wire.pack(wire.BAD_FILE, number, key, {"why": why})
            if number == wire.EVERY_LANE:
                self._to_all(bad)
            else:
                self._to_lane(number, bad)

    # ---- to and from lanes

    def _to_lane(self, number: int, frame: bytes, bundle: int = 0) -> None:
        lane = self._lanes.get(number)
        if lane is None:
            try:
                lane = self._start_lane(number)
            except OSError as error:  # too many processes or open files: the others work on
                head = {"exit": None, "log": "cannot start a lane: %s" % error, "bundles": [bundle]}
                self._send(wire.LANE_DIED, number, head=head)
                if bundle and self._needs is not None:
                    self._needs.ended(bundle)
                return
        if bundle:
            lane.bundles[bundle] = None
        self._pass(lane, frame)

    def _to_all(self, frame: bytes) -> None:
        for lane in self._lanes.values():
            self._pass(lane, frame)

    def _pass(self, lane: LaneProcess, frame: bytes) -> None:
        lane.waiting.append(memoryview(frame))
        if len(lane.waiting) == 1 and lane.push():
            self._selector.register(lane.fd_in, selectors.EVENT_WRITE, lane)

    def _start_lane(self, number: int) -> LaneProcess:
        store = self._inputs()
        setup = {name: self._hello[name] for name in LANE_SETUP}
        setup["base"] = store.base
        lane = LaneProcess(number, self._sources, setup)
        self._lanes[number] = lane
        self._selector.register(lane.fd, selectors.EVENT_READ, lane)
        if lane.push():
            self._selector.register(lane.fd_in, selectors.EVENT_WRITE, lane)
        for key, why in store.bad.items():
            self._pass(lane, wire.pack(wire.BAD_FILE, number, key, {"why": why}))
        if self._modules is not None:
            self._pass(lane, self._modules)
        for work in self._works.values():
            self._pass(lane, work)
        return lane

    def _take_lane(self, lane: LaneProcess) -> None:
        frames = lane.reader.read()
        if frames is None:
            self._lane_gone(lane)
            return
        for frame in frames:
            op, _, ident = wire.peek(frame)
            if op == wire.NOW:
                lane.now = (ident, wire.unpack(frame)[3]["took"])
            elif op == wire.BYE:
                lane.said_bye = True  # it ends itself to end a function
            elif op == wire.SPOILED and self._needs is not None:
                self._needs.spoiled(ident, wire.unpack(frame)[3])
            else:
                if op == wire.LAST:
                    lane.bundles.pop(ident, None)
                    if self._needs is not None:
                        self._needs.ended(ident)
                self._out(frame)
            lane.cancelled_at = None

    def _lane_gone(self, lane: LaneProcess) -> None:
        self._selector.unregister(lane.fd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(lane.fd_in)
        del self._lanes[lane.number]
        code = lane.close()
        end_descendants(os.getpid(), spare=[other.process.pid for other in self._lanes.values()] or [0])
        log = lane.tail()
        if lane.said_bye:
            code = 0
        elif code == 0:  # a lane never ends by itself: what it ran did that
            code, log = None, log or "what it ran ended the process, with exit code 0"
        self._send(wire.LANE_DIED, lane.number, head={"exit": code, "log": log, "bundles": list(lane.bundles)})
        if self._needs is not None:
            for bundle in lane.bundles:
                self._needs.ended(bundle)

    # ---- time

    def _check_time(self, now: float) -> None:
        for lane in list(self._lanes.values()):
            if lane.cancelled_at is not None and now - lane.cancelled_at > CANCEL_GRACE_S:
                lane.cancelled_at = None
                lane.kill()
        if self._linger_until is not None:
            if now >= self._linger_until or not self._has_work():
                self._running = False
            return
        if self._hello and now - self._heard_at > self._hello["silence"]:
            self._cut_off()
        elif now >= self._look_at:
            self._look_for_left(now)
        elif now >= self._beat_at:
            self._beat_at = now + self._hello["beat"]
            self._beat()

    def _look_for_left(self, now: float) -> None:
        """Tell what earlier executors of the run left; again soon, while one of them still works."""
        for base in left_by(self._inputs().base, self._hello["run"]):
            for frame in frames_of(base):
                self._out(wire.pack(wire.LEFT, body=frame))
        if left_by(self._inputs().base, self._hello["run"]):
            self._look_at = now + LOOK_S
        else:
            self._send(wire.LEFT)
            self._look_at = float("inf")

    def _beat(self) -> None:
        head = {
            "lanes": {str(lane.number): lane.now for lane in self._lanes.values() if lane.now and lane.now[0]},
            "load": _load(),
            "memory_free_bytes": facts.memory()[1],
            "disk_free_bytes": facts.disk_free(self._inputs().base),
        }
        if self._reach.found:
            head["reach"] = self._reach.found
        self._send(wire.BEAT, head=head)
        if self._needs is not None:
            self._needs.tell_changes()
        for lane in list(self._lanes.values()):
            if lane.process.poll() is not None:  # what a function forked may hold its pipe open
                self._take_lane(lane)
                if self._lanes.get(lane.number) is lane:
                    self._lane_gone(lane)
            elif not lane.waiting:
                self._pass(lane, wire.pack(wire.PEEK, lane.number))


def _load() -> float:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return 0.0


def _heed_signals(agent: Agent) -> None:
    """Leave nothing behind either when a batch system or the end of a session ends this process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take exit codes away
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, lambda *_: agent.feed(None))
    except ValueError:
        pass  # not in the main thread


def serve_pipes(fd_in: int, fd_out: int, sources: Mapping[str, str]) -> None:
    """Be the agent behind a pair of pipes."""
    leave_no_core()
    agent = Agent(lambda frame: wire.write(fd_out, frame), sources)
    _heed_signals(agent)

    def listen() -> None:
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
