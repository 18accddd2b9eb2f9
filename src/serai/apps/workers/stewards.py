"""A host's steward, seen from here: one process behind one stream, which makes a room there and keeps workers in it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from serai.access.connections import target_of
from serai.access.starting import start_here, start_there
from serai.errors import AccessError, NodeLost, SeraiError
from serai.travel.boot import MARK, STEWARD, WORKER
from serai.travel.frames import pack, unpack
from serai.travel.mapreduce.link import GAVE_UP
from serai.travel.steward import BEAT, BEAT_S, DROP, END, ENDED, FURNISH, ROOM, START, TROUBLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.access.openssh import Connection
    from serai.apps.workers.sending import Sent
    from serai.describe.mapreduce import HostSpec
    from serai.travel.stream import PipeLink

START_S = 30.0  # for a room
GRACE_S = 2.0  # for workers to end by themselves
PARCEL, TOKEN = "worker.parcel", "token"  # names in a room
LEAST_SILENT_S, MOST_SILENT_S = 5.0, 60.0  # how late a host's sign of life may be
LENIENT = 4.0  # times as late as it has been
FADES = 0.98  # from one sign to the next: how late they were is remembered for a minute or so


class Crew(Protocol):
    """Who is told what becomes of hosts and workers; from several threads.

    Attributes:
        name: the run's.
    """

    name: str

    def host_up(self, host: Place, workers: Sequence[str], *, anew: bool) -> None:
        """These workers are about to start there; anew: the host was reached, rather than one more worker started."""

    def host_lost(self, host: Place, why: str, *, transient: bool) -> None:
        """It cannot be reached, or not any more: its workers are gone with the way to it."""

    def worker_ended(self, worker: str, why: str, *, by_itself: bool) -> None:
        """A worker's process has ended; by itself, unless it gave up since the front end could not be reached."""


@dataclass(eq=False, slots=True)
class Place:
    """A host of the run.

    Attributes:
        spec: how it was asked for.
        key: how inputs name it; "" for this machine.
        name: for people.
        facts: what its steward said: room, socket, host, os, arch, cores, python.
        who: whose files are there, and what is mounted; see `locality.facts_of`.
        image: the executable in its room, as words for a shell; "" when commands are run.
    """

    spec: HostSpec
    key: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    who: dict[str, Any] = field(default_factory=dict)
    image: str = ""


@dataclass(slots=True)
class Pulse:
    """The signs of life of a host, and how late they come: a full link delays them, and that is no death.

    As in TCP's retransmission (RFC 6298) the measured lateness sets the limit.

    Attributes:
        at: when the last came; None before the first.
        late_s: how late they have been.
    """

    at: float | None = None
    late_s: float = 0.0

    def beat(self, now: float) -> None:
        """One came."""
        if self.at is not None:
            self.late_s = max(now - self.at - BEAT_S, self.late_s * FADES)
        self.at = now

    def stopped(self, now: float) -> bool:
        """Whether the next one has been due for so long that there is none."""
        limit_s = min(MOST_SILENT_S, max(LEAST_SILENT_S, BEAT_S + LENIENT * self.late_s))
        return self.at is not None and now - self.at > limit_s


class Steward:
    """The steward of one place.

    Args:
        place: where.
        crew: who is told.

    Raises:
        SeraiError: it cannot be started.

    Attributes:
        kept: it has been taken on: when it is lost from now on, the crew is told.
        pulse: its signs of life, by this process's monotonic clock.
    """

    def __init__(self, place: Place, crew: Crew) -> None:
        self._place = place
        self._crew = crew
        self._run = crew.name
        self._heard = threading.Condition()
        self._room: dict[str, Any] | None = None
        self._trouble: SeraiError | None = None
        self.kept = False
        self.pulse = Pulse()
        self._workers: set[str] = set()
        self._closing = False
        self._forwarded: tuple[str, str] | None = None
        self._link, self._connection = self._start()

    # ---- starting

    def _start(self) -> tuple[PipeLink, Connection | None]:
        site = self._place.spec.site
        if not self._place.key:
            return start_here(STEWARD, site.python, self._deliver), None
        return start_there(STEWARD, target_of(site.url, os.environ, site.ssh_config), site.python, self._deliver)

    def furnish(self, sent: Sequence[Sent]) -> dict[str, Any]:
        """Have the room made; returns what the steward says of it."""
        files = [{"name": one.name, "mode": one.mode, "size": len(one.data)} for one in sent]
        head = {"scratch": self._place.spec.site.scratch, "files": files}
        self._link.send(pack(FURNISH, 0, 0, head, b"".join(one.data for one in sent)))
        with self._heard:
            self._heard.wait_for(lambda: self._room is not None or self._trouble is not None, START_S)
            if self._trouble is not None:
                raise self._trouble
            if self._room is None:
                raise NodeLost(f"it made no room for workers within {START_S:g} s", host=self._place.name)
            return self._room

    def forward(self, there: str, here: str) -> None:
        """Let its workers reach the gateway."""
        if self._connection is not None:
            self._connection.forward_back(there, here)
            self._forwarded = (there, here)
        else:
            self._place.facts["socket"] = here

    def start(self, worker: str, facts: dict[str, Any]) -> None:
        """Start a worker."""
        room = facts["room"]
        env = {
            "SERAI_GATEWAY": facts["socket"],
            "SERAI_GATEWAY_TOKEN_FILE": f"{room}/{TOKEN}",
            "SERAI_RUN": self._run,
            "SERAI_WORKER": worker,
            "SERAI_ROOM": room,
            "TMPDIR": f"{room}/{worker}",
        }
        self._workers.add(worker)
        argv = ["-u", "-c", WORKER.program()]
        self._link.send(pack(START, 0, 0, {"id": worker, "argv": argv, "env": env, "stdin": PARCEL}))

    def drop(self, worker: str) -> None:
        """End a worker that gives no sign of life; its end is told like any other."""
        self._link.send(pack(DROP, 0, 0, {"id": worker}))

    # ---- hearing

    def _deliver(self, frame: bytes | None) -> None:
        if frame is None:
            self._lost()
            return
        op, _, _, head, _ = unpack(frame)
        if op == BEAT:
            self.pulse.beat(time.monotonic())
            return
        if op == ENDED:
            self._workers.discard(head["id"])
            if not self._closing:
                self._crew.worker_ended(head["id"], why_ended(head), by_itself=head.get("code") != GAVE_UP)
            return
        with self._heard:
            if op == ROOM:
                self._room = head
            elif op == TROUBLE:
                self._trouble = AccessError(str(head["what"]), host=self._place.name)
            self._heard.notify_all()

    def _lost(self) -> None:
        lost = NodeLost("the connection to it was lost", host=self._place.name)
        with self._heard:
            self._trouble = self._trouble or lost
            self._heard.notify_all()
        if self.kept and not self._closing:
            self._crew.host_lost(self._place, str(lost), transient=True)

    def close(self) -> None:
        """End its workers, and it."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._link.send(pack(END, 0, 0, {"grace_s": GRACE_S}))
        self._link.close(GRACE_S * 2 + 3.0)
        if self._connection is not None and self._forwarded is not None:
            with contextlib.suppress(SeraiError):
                self._connection.end_forward_back(*self._forwarded)


def why_ended(head: Mapping[str, Any]) -> str:
    """How a worker ended, in words: its exit status or signal, and the last line that it wrote."""
    code = head.get("code")
    if code is None:
        how = "it could not be started"
    elif code < 0:
        how = f"{_signal_name(-code)} ended it"
        if -code == signal.SIGKILL:
            how += " (somebody's kill -9, or the kernel's where memory is short)"
    else:
        how = f"it ended with exit status {code}" if code else "it ended"
    said = str(head.get("said") or "").replace(MARK.decode(), "")  # with which every program begins
    last = said.strip().rpartition("\n")[2]
    return f"{how}: {last}" if last else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
