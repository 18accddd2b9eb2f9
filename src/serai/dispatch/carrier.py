"""A carrier: the front end's side of one executor. It connects, checks the executor in, and carries frames both ways.

Its own thread sends, so that a slow or hung node holds up nobody else; what comes in is taken by the engine's thread.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause
from serai.dispatch.files.filling import GRANT, Filler
from serai.dispatch.files.origins import measured
from serai.dispatch.heard import check_ad, check_report, lanes_of
from serai.dispatch.ports import WAY, CargoPostponed, CargoRefused, Place
from serai.dispatch.reading.telling import joined, read_words
from serai.dispatch.schedule import events as ev
from serai.errors import NodeLost, SeraiError
from serai.match.movement import Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serai.clock import Clock
    from serai.data.landing import Landing
    from serai.dispatch.files.catalogue import Catalogue
    from serai.dispatch.ports import Engine, Link, NodeSpec, Owner

GIVE_S = 30.0  # for a part of a file that is relayed
MOST_ORIGINS, MOST_WHY = 100, 300  # that a node says it cannot read from, and characters of why
MOST_JOBS = 100_000  # bundles waiting to be sent to one node: far above depth x lanes of any


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the conversation with an executor.

    Attributes:
        beat_s: between two heartbeats.
        silence_s: after so long without a word either side gives the other up.
        check_in_s: from the start of the agent to its ad.
    """

    beat_s: float = 2.0
    silence_s: float = 15.0
    check_in_s: float = 30.0


@dataclass(slots=True)
class Gone:
    """A carrier has ended: its node is not there any more."""

    error: SeraiError


@dataclass(slots=True)
class Came:
    """The executor has checked in."""

    ad: dict[str, Any]
    took_s: float
    files: list[int]  # catalogued ones that are there already


@dataclass(slots=True)
class NothingLeft:
    """Earlier executors of this run on the node have ended, and all that they left was told."""


@dataclass(slots=True)
class Beat:
    """What a node says it does."""

    head: dict[str, Any]
    lanes: dict[int, tuple[int, float]]
    rtt_s: float | None


class Carrier:
    """One executor's carrier.

    Args:
        spec: the node.
        engine: what starts agents there.
        hello: what the agent is told about the run.
        tell: takes (this carrier, an event) to the dispatcher; any thread.
        landing: where pieces of outputs go.
        clock: tells the time.
        timing: times of the conversation.
        catalogue: the files that tasks read.
    """

    def __init__(
        self,
        spec: NodeSpec,
        engine: Engine,
        hello: Mapping[str, Any],
        tell: Callable[[Carrier, Any], None],
        landing: Landing,
        clock: Clock,
        timing: Timing,
        catalogue: Catalogue,
    ) -> None:
        self.spec = spec
        self._catalogue = catalogue
        self._filler = Filler(spec.name, catalogue, self._send_piece)
        self._sending = threading.Lock()  # one frame at a time, whoever sends it
        self._requests = itertools.count(1)
        self._answers: dict[int, queue.Queue[bytes]] = {}
        self._origins_missed: set[str] = set()
        self._meets = False  # it was told to speak with its peers
        self.heard_at = self._began = clock.now()
        self._engine = engine
        self._hello = dict(hello)
        self._tell = tell
        self._landing = landing
        self._clock = clock
        self._timing = timing
        self._jobs: queue.Queue[tuple[ev.Assign, Owner] | None] = queue.Queue(MOST_JOBS)
        self._control: deque[bytes] = deque(maxlen=MOST_JOBS)
        self._unsent: dict[int, list[bytes]] = {}  # bundles that wait, with what is to be said about them
        self._lock = threading.Lock()  # guards _unsent
        self._came = threading.Event()
        self._ended = threading.Event()
        self._ad: dict[str, Any] | None = None
        self._held: list[str] = []  # digests of its cache, which it tells before its ad
        self._trouble: str | None = None
        self._link: Link | None = None
        self._place: Place | None = None
        self._pinged_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"carry-{spec.name}", daemon=True)

    def start(self) -> None:
        """Begin to connect, on the carrier's own thread."""
        self._thread.start()

    def post(self, assign: ev.Assign, owner: Owner) -> None:
        """Send a bundle; returns at once."""
        with self._lock:
            self._unsent[assign.bundle] = []
        self._jobs.put_nowait((assign, owner))

    def control(self, frame: bytes, about: int = 0) -> None:
        """Send a short frame ahead of bundles that wait, but behind the one it is ``about``; returns at once."""
        with self._lock:
            waits = self._unsent.get(about)
            if waits is not None:
                waits.append(frame)
                return
        self._control.append(frame)
        if self._jobs.empty():
            self._jobs.put_nowait((_NOTHING, _NOBODY))

    def close(self) -> None:
        """End the executor and everything it runs."""
        self._ended.set()
        self._jobs.put_nowait(None)
        self._filler.close()
        link = self._link
        if link is not None:
            link.close()

    def close_soon(self) -> None:
        """The same without waiting for it."""
        threading.Thread(target=self.close, name=f"close-{self.spec.name}", daemon=True).start()

    def join(self, deadline_s: float) -> None:
        """Wait until the carrier's thread has ended."""
        self._thread.join(deadline_s)

    # ---- the carrier's own thread

    def _run(self) -> None:
        try:
            self._serve()
        except SeraiError as error:
            self._gone(error)
        except OSError as error:
            self._gone(NodeLost(f"the connection ended: {error}", host=self.spec.name))
        except Exception as error:  # noqa: BLE001 - a node that nobody serves, and nobody knows of, would be worse
            self._gone(NodeLost(f"its carrier failed: {error!r}", host=self.spec.name))
        finally:
            self._filler.close()
            if self._link is not None:
                self._link.close()

    def _send(self, frame: bytes) -> None:
        link = self._link
        if link is None:
            raise NodeLost("it was never there", host=self.spec.name)
        with self._sending:
            link.send(frame)

    def meet(self) -> None:
        """Let the node speak with its peers, if it may; any thread."""
        if not self._meets and not self.spec.in_place:
            self._meets = True
            secrets = self._catalogue.secrets()
            if secrets is not None:
                self.control(wire.pack(wire.PEERS, head=secrets))

    def read(self, name: str, at: int, length: int) -> bytes:
        """A part of a file that the node may give to peers; empty where it does not, in time. Any thread but it."""
        request, answer = next(self._requests), queue.Queue[bytes](1)
        self._answers[request] = answer
        try:
            self.control(wire.pack(wire.GIVE, 0, request, {"name": name, "at": at, "length": length}))
            return answer.get(timeout=GIVE_S)
        except queue.Empty:
            return b""
        finally:
            self._answers.pop(request, None)

    def _gone(self, error: SeraiError) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._tell(self, Gone(error))

    def _serve(self) -> None:
        link = self._engine.connect(self.spec, self._deliver)
        self._link = link
        if self._ended.is_set():  # closed while it was connecting
            link.close()
            return
        own: dict[str, Any] = {"node": self.spec.name, "scratch": self.spec.scratch, "linger": self.spec.linger_s}
        if self.spec.cache_bytes is not None:
            own["cache"] = {**self._hello.get("cache", {}), "limit": self.spec.cache_bytes}
        if self.spec.in_place:
            own["mount"] = 0  # files are used where they lie
        self._send(wire.pack(wire.HELLO, head=self._hello | own))
        if not self._came.wait(self._timing.check_in_s):
            raise NodeLost(  # and tried again: it may only be busy, or hang for a while
                f"its executor did not check in within {self._timing.check_in_s:g} s",
                host=self.spec.name,
                hint="is the node very busy, or its home directory not there?",
            )
        if self._ad is None:
            raise NodeLost(self._trouble or "its executor ended before it checked in", host=self.spec.name)
        place = self._place = Place(self.spec, self._ad, set())
        while not self._ended.is_set():
            self._send_control()
            try:
                job = self._jobs.get(timeout=self._timing.beat_s)
            except queue.Empty:
                self._ping()
                continue
            if job is None:
                return
            if job[0] is not _NOTHING:
                self._send_bundle(job[0], job[1], place)
            self._ping()

    def _send_control(self) -> None:
        link = self._link
        if link is not None and self._control:
            with self._sending:  # in their order, whoever sends them
                while self._control:
                    link.send(self._control.popleft())

    def _send_piece(self, frame: bytes) -> None:
        """Send a piece of a file, behind what is short and waits."""
        self._send_control()
        self._send(frame)

    def _ping(self) -> None:
        now = self._clock.now()
        if self._pinged_at is None or now - self._pinged_at >= self._timing.beat_s:
            self._pinged_at = now
            self._send(wire.pack(wire.PING, head={"t": now}))

    def _send_bundle(self, assign: ev.Assign, owner: Owner, place: Place) -> None:
        if any(move.way == Way.READ for move in assign.moves):
            self._lead_back(place)
        try:
            for frame in owner.cargo(assign, place):
                if wire.peek(frame)[0] == wire.NEEDS:
                    self.meet()
                    self._send_control()
                self._send(frame)
                self._send_control()
        except CargoRefused as refused:
            tasks = list(refused.why)
            causes = [refused.why[task][0] for task in tasks]
            facts = {"detail": {str(n): refused.why[task][1] for n, task in enumerate(tasks)}}
            rest = len(tasks) < len(assign.tasks)
            report = ev.Report(
                assign.node, assign.lane, assign.bundle, tasks, causes, [0] * len(tasks), last=not rest, final=True
            )
            report.facts = (facts, b"")
            self._tell(self, report)
        except CargoPostponed as postponed:
            rest = len(postponed.tasks) < len(assign.tasks)
            self._tell(
                self,
                ev.Report(
                    assign.node,
                    assign.lane,
                    assign.bundle,
                    (),
                    None,
                    (),
                    postponed.tasks,
                    last=not rest,
                    facts=({}, b""),
                ),
            )
        finally:
            for task, way in place.ways:
                self._tell(self, ev.Note(WAY + way, self.spec.name, task))
            place.ways.clear()
            with self._lock:
                self._control.extend(self._unsent.pop(assign.bundle, ()))
            self._send_control()

    def _lead_back(self, place: Place) -> None:
        """Let tasks of the node read from afar, unless they can already."""
        gate = self._catalogue.gate
        if place.way_back or gate is None or not place.ad.get("mount"):
            return
        try:
            place.way_back, frame = gate.lead(self._link, str(place.ad["base"]))
        except (SeraiError, OSError) as error:
            self._no_mount(error.what if isinstance(error, SeraiError) else str(error))
            return
        self._send(frame)
        self.meet()
        self._send_control()

    # ---- the engine's thread

    def _deliver(self, frame: bytes | None) -> None:
        if frame is None:
            self._came.set()
            self._gone(NodeLost(self._trouble or "the connection to its executor ended", host=self.spec.name))
            return
        self.heard_at = self._clock.now()
        try:
            op, lane, ident, head, body = wire.unpack(frame)
            self._frame(op, lane, ident, head, body)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._gone(NodeLost(f"its executor sent something that cannot be read: {error!r}", host=self.spec.name))

    def _frame(self, op: int, lane: int, ident: int, head: dict[str, Any], body: bytes) -> None:
        if op in {wire.RESULT, wire.LAST}:
            self._tell(self, self._report(op, lane, ident, head, body))
        elif op == wire.OUTPUT:
            self._landing.piece(ident, head, body)
        elif op == wire.BEAT:
            echo = head.get("echo")
            self._tell(self, Beat(head, lanes_of(head), None if echo is None else self.heard_at - float(echo)))
        elif op == wire.AD:
            check_ad(head)
            self._ad = head
            took_s = self._clock.now() - self._began
            self._catalogue.came(
                self.spec.name, head, self._held, lambda files: self._tell(self, Came(head, took_s, files))
            )
            self._came.set()
            if self._held:
                self.meet()
        elif op == wire.GIVEN:
            answer = self._answers.get(ident)
            if answer is not None and answer.empty():
                answer.put_nowait(body)
        elif op in _ABOUT_FILES:
            self._about_files(op, lane, ident, head)
        else:
            self._seldom(op, lane, head, body)

    def _about_files(self, op: int, lane: int, ident: int, head: dict[str, Any]) -> None:
        name, catalogue = self.spec.name, self._catalogue
        if op == wire.NEED:
            self._filler.ask(ident, GRANT if head.get("origin") else lane)
        elif op == wire.HOLDS and self._ad is None:
            self._held += head.get("has", ())
        elif op == wire.HOLDS:
            catalogue.holds(name, head.get("has", ()), head.get("gone", ()))
            if head.get("has"):
                self.meet()
        elif op == wire.CAME:
            catalogue.moved(name, ident, head)
            self._missed(head.get("missed"))
        elif op == wire.SEEN:
            self._seen(ident, head)
        elif op == wire.SERVES:
            catalogue.serves(name, head.get("addresses", ()), int(head.get("port", 0)))
        elif self._place is not None:  # READY
            for task, files in self._place.reads.pop(ident, ()):
                ways = [f"{shown} {head['ways'].get(str(number), 'cached')}" for number, shown in files.items()]
                self._tell(self, ev.Note(WAY + joined(ways), name, task))

    def _seen(self, task: int, head: dict[str, Any]) -> None:
        """A task has read from afar."""
        looks = self._place.looks.pop(task, {}) if self._place is not None else {}
        ways = []
        for row in head["files"]:
            number, missed = row[0], row[5]
            if number not in looks:
                continue
            (read, _), (moved, took_s), source = measured(row[1]), measured(row[2], row[3]), str(row[4])
            shown = looks[number]
            ways.append(f"{shown} {read_words(read, self._catalogue.file(number).size, took_s, source)}")
            for origin in missed:
                self._catalogue.missed(self.spec.name, number, origin)
            self._missed(missed)
            if head["ok"]:
                self._tell(self, ev.Moved(self.spec.name, number, source, moved, took_s, read, int(head["w"])))
        if ways:
            self._tell(self, ev.Note(WAY + joined(ways), self.spec.name, task))

    def _missed(self, missed: Mapping[str, str] | None) -> None:
        """The node could not read from origins: said once for each of them."""
        for origin, why in (missed or {}).items():
            if origin in self._origins_missed or len(self._origins_missed) >= MOST_ORIGINS:
                continue
            self._origins_missed.add(origin)
            words = f"nothing comes straight from its origin here: {str(why)[:MOST_WHY]}"
            self._tell(self, ev.Note(words, self.spec.name))

    def _no_mount(self, why: str) -> None:
        """Tasks cannot read from afar there: they do not, from now on."""
        if self._place is not None and self._ad is not None:
            self._place.way_back, self._ad["mount"] = "", False
        self._tell(self, ev.NoMount(self.spec.name))
        self._tell(self, ev.Note(f"nothing is read from afar here: {why}", self.spec.name))

    def _seldom(self, op: int, lane: int, head: dict[str, Any], body: bytes) -> None:
        if op == wire.LEFT and not body:
            self._tell(self, NothingLeft())
        elif op == wire.LEFT:  # by an earlier executor of this run on this node
            inner, lane, ident, head, body = wire.unpack(body)
            if inner in {wire.RESULT, wire.LAST, wire.OUTPUT}:
                self._frame(inner, lane, ident, head, body)
        elif op == wire.PROBED:
            self._tell(self, ev.Probed(self.spec.name, head["software"]))
        elif op == wire.LANE_DIED:
            self._lane_died(lane, head)
        elif op == wire.NOT_HERE and self._place is not None:
            path = head["path"] if len(self._place.not_here) < MOST_JOBS else ""
            self._place.not_here[path] = str(head["why"])
        elif op == wire.NO_MOUNT:
            self._no_mount(str(head["why"]))
        elif op == wire.TROUBLE:
            self._trouble = str(head.get("fatal") or head)
            if head.get("fatal"):
                self._came.set()

    def _lane_died(self, lane: int, head: dict[str, Any]) -> None:
        if not 0 <= lane < (self.spec.slots or (self._ad or {})["cores"]):
            raise ValueError(f"there is no lane {lane}")
        code = head.get("exit")
        words = f"a lane ended with exit code {code}" + (f": {head['log'][-500:]}" if head.get("log") else "")
        self._tell(self, ev.LaneDown(self.spec.name, lane, words, code != 0, head.get("bundles")))

    def _report(self, op: int, lane: int, ident: int, head: dict[str, Any], body: bytes) -> ev.Report:
        check_report(head, len(body))
        return ev.Report(
            self.spec.name,
            lane,
            ident,
            head.get("ids", ()),
            head.get("cause"),
            head.get("took", ()),
            head.get("returned", ()),
            last=op == wire.LAST,
            final=self._is_final(head),
            facts=(head, body),
        )

    def _is_final(self, head: dict[str, Any]) -> bool:
        """Whether all that failed did because of inputs which the front end cannot read."""
        if not self._filler.unreadable or not head.get("cause"):
            return False
        details = head.get("detail", {})
        return all(
            cause in {Cause.OK, Cause.INPUT}
            and (cause == Cause.OK or any(why in details.get(str(n), "") for why in self._filler.unreadable))
            for n, cause in enumerate(head["cause"])
        )


_ABOUT_FILES = frozenset({wire.NEED, wire.HOLDS, wire.CAME, wire.SERVES, wire.READY, wire.SEEN})
_NOTHING: Any = object()  # wakes the thread, for a control frame
_NOBODY: Any = None
