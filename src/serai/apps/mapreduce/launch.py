"""Workers as processes of a steward on each host: all hosts at once, several workers each, nothing left behind.

A host's steward (`serai.travel.steward`) is one process behind one stream over the host's one connection. It makes the
room, into which go the worker's program, the token (a file of mode 0600, never an argument or the environment) and the
user's own executables; the gateway's socket is forwarded there. The steward ends its workers when the stream ends, and
that it does when this process ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from serai.access.connections import target_of
from serai.access.starting import start_here, start_there
from serai.apps.mapreduce.inputs import host_key
from serai.describe.mapreduce import Binaries, Commands, arch_name, os_name
from serai.errors import AccessError, NodeLost, SeraiError, UsageError
from serai.travel.boot import STEWARD, WORKER
from serai.travel.frames import pack, unpack
from serai.travel.steward import END, ENDED, FURNISH, ROOM, START, TROUBLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.openssh import Connection
    from serai.describe.mapreduce import HostSpec
    from serai.travel.stream import PipeLink

START_S = 30.0  # for a room
GRACE_S = 2.0  # for workers to end by themselves
LARGEST_SENT = 512 << 20  # bytes of executables and files that travel to a room
PARCEL, TOKEN = "worker.parcel", "token"  # names in a room


class Crew(Protocol):
    """Who is told what becomes of hosts and workers; from several threads.

    Attributes:
        name: the run's.
    """

    name: str

    def host_up(self, host: Place, workers: Sequence[str]) -> None:
        """These workers are about to start there."""

    def host_failed(self, host: Place, why: str) -> None:
        """No worker can be had there; or those that were are gone with it."""

    def worker_ended(self, worker: str, why: str) -> None:
        """A worker's process has ended."""


@dataclass(slots=True)
class Place:
    """A host of the run.

    Attributes:
        spec: how it was asked for.
        key: how inputs name it; "" for this machine.
        name: for people.
        facts: what its steward said: room, socket, host, os, arch, cores, python.
        image: the executable in its room, as words for a shell; "" when commands are run.
    """

    spec: HostSpec
    key: str
    name: str
    facts: dict[str, Any]
    image: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that travels to a room.

    Attributes:
        name: in the room.
        data: what it holds.
        mode: its permissions for its owner.
    """

    name: str
    data: bytes
    mode: int = 0o600


class Launch:
    """Starts workers on hosts and ends them.

    Args:
        hosts: where.
        program: what is run: executables or files that must be there.
        address: of the gateway's socket on this machine.
        token: of the gateway.
        crew: who is told.
    """

    def __init__(
        self, hosts: Sequence[HostSpec], program: Commands | Binaries, address: str, token: str, crew: Crew
    ) -> None:
        self.places = [Place(spec, host_key(spec.site.url), host_key(spec.site.url) or "local", {}) for spec in hosts]
        self._program = program
        self._address = address
        self._token = token
        self._crew = crew
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self._stewards: list[_Steward] = []
        self._threads: list[threading.Thread] = []
        self._sent = sent_files(program)

    def start(self) -> None:
        """Begin with all hosts at once; the crew is told what comes of it."""
        for place in self.places:
            thread = threading.Thread(target=self._bring_up, args=(place,), name=f"launch-{place.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, deadline_s: float = START_S) -> None:
        """End every worker and remove the rooms; hosts that do not answer are left to their stewards."""
        with self._lock:
            self._closed = True
            stewards = list(self._stewards)
        enders = [threading.Thread(target=steward.close, daemon=True) for steward in stewards]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join(deadline_s)

    def _bring_up(self, place: Place) -> None:
        try:
            steward = _Steward(place, self._crew)
            with self._lock:
                self._stewards.append(steward)
                closed = self._closed
            if closed:
                steward.close()
                return
            place.facts = steward.furnish([*self._sent, *self._own_sent()])
            place.image = image_in_room(self._program, place)
            steward.forward(place.facts["socket"], self._address)
            workers = self._names(place.spec.workers or int(place.facts["cores"]))
            self._crew.host_up(place, workers)
            for worker in workers:
                steward.start(worker, place.facts)
        except (SeraiError, OSError) as error:
            if not self._closed:  # else the run was over before the host was there
                why = _reason(error) if isinstance(error, SeraiError) else f"{place.name}: {error}"
                self._crew.host_failed(place, why)

    def _own_sent(self) -> list[Sent]:
        return [Sent(TOKEN, self._token.encode()), Sent(PARCEL, WORKER.packed())]

    def _names(self, count: int) -> list[str]:
        with self._lock:
            first = self._count + 1
            self._count += count
        return [f"w{number}" for number in range(first, first + count)]


def _reason(error: SeraiError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())


class _Steward:
    """The steward of one place, seen from here.

    Raises:
        SeraiError: it cannot be started.
    """

    def __init__(self, place: Place, crew: Crew) -> None:
        self._place = place
        self._crew = crew
        self._run = crew.name
        self._heard = threading.Condition()
        self._room: dict[str, Any] | None = None
        self._trouble = ""
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
            self._heard.wait_for(lambda: self._room is not None or self._trouble, START_S)
            if self._trouble:
                raise AccessError(self._trouble, host=self._place.name)
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
            "TMPDIR": f"{room}/{worker}",
        }
        self._workers.add(worker)
        argv = ["-u", "-c", WORKER.program()]
        self._link.send(pack(START, 0, 0, {"id": worker, "argv": argv, "env": env, "stdin": PARCEL}))

    # ---- hearing

    def _deliver(self, frame: bytes | None) -> None:
        if frame is None:
            self._lost()
            return
        op, _, _, head, _ = unpack(frame)
        if op == ENDED:
            self._workers.discard(head["id"])
            if not self._closing:
                self._crew.worker_ended(head["id"], _why_ended(head))
            return
        with self._heard:
            if op == ROOM:
                self._room = head
            elif op == TROUBLE:
                self._trouble = str(head["what"])
            self._heard.notify_all()

    def _lost(self) -> None:
        with self._heard:
            self._trouble = self._trouble or "the connection to it was lost"
            self._heard.notify_all()
        if self._closing:
            return
        workers, self._workers = self._workers, set()
        for worker in sorted(workers):
            self._crew.worker_ended(worker, f"the connection to {self._place.name} was lost")

    def close(self) -> None:
        """End its workers, and it."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._link.send(pack(END, 0, 0, {"grace_s": GRACE_S}))
        self._link.close(GRACE_S * 2 + 3.0)
        if self._connection is not None and self._forwarded is not None:
            with contextlib.suppress(SeraiError):
                self._connection.end_forward_back(*self._forwarded)


def _why_ended(head: dict[str, Any]) -> str:
    code = head.get("code")
    how = "it ended" if not code else f"it ended with exit status {code}" if code > 0 else f"signal {-code} ended it"
    if code is None:
        how = "it could not be started"
    last = str(head.get("said") or "").strip().rpartition("\n")[2]
    return f"{how}: {last}" if last else how


# ---- what travels


def sent_files(program: Commands | Binaries) -> list[Sent]:
    """The user's files that belong into a room: executables as ``bin/0`` …, files of commands below ``files``.

    Raises:
        UsageError: one cannot be read, or they are too large.
    """
    sent: list[Sent] = []
    try:
        if isinstance(program, Binaries):
            for number, image in enumerate(program.images):
                sent.append(_sent(f"bin/{number}", image.path, 0o700))
        else:
            for path in program.send:
                sent += _tree(path)
            sent += named_files(program, {one.name for one in sent})
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be sent to workers: {error.strerror}") from error
    total = sum(len(one.data) for one in sent)
    if total > LARGEST_SENT:
        raise UsageError(f"{total} bytes are too much to send to every host", hint="name large data as inputs")
    return sent


def named_files(program: Commands, known: set[str]) -> list[Sent]:
    """The files that commands name by themselves, such as ``./count.awk``; they are put where the commands find them.

    Args:
        program: the commands.
        known: names in the room that are taken.
    """
    found: dict[str, Sent] = {}
    for command in (program.mapper, program.combiner, program.reducer):
        try:
            words = shlex.split(command or "")
        except ValueError:
            continue  # the shell may still take it
        for word in words:
            name = os.path.normpath(f"files/{word}")
            path = os.path.join(program.home, word)
            if not word.startswith("/") and name.startswith("files/") and name not in known and os.path.isfile(path):
                found[name] = _sent(name, path)
    return list(found.values())


def _tree(path: str) -> list[Sent]:
    name = os.path.basename(os.path.normpath(path))
    if not os.path.isdir(path):
        return [_sent(f"files/{name}", path)]
    found = []
    for directory, _, names in os.walk(path):
        below = os.path.relpath(directory, path)
        found += [_sent(os.path.normpath(f"files/{name}/{below}/{one}"), os.path.join(directory, one)) for one in names]
    return found


def _sent(name: str, path: str, mode: int | None = None) -> Sent:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe's other end is not waited for
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{path} is no regular file, and cannot be sent to workers")
        return Sent(name, file.read(LARGEST_SENT + 1), (facts.st_mode & 0o700) if mode is None else mode)


def image_in_room(program: Commands | Binaries, place: Place) -> str:
    """The words that run the image that fits a host, once the host has said what it is.

    Raises:
        UsageError: the host is not what it was said to be, or there is no image for it.
    """
    if not isinstance(program, Binaries):
        return ""
    os_, arch = os_name(place.facts["os"]), arch_name(place.facts["arch"])
    for said, is_, what in ((place.spec.os, os_, "OS"), (place.spec.arch, arch, "arch")):
        if said not in {"any", is_}:
            raise UsageError(f"its {what} is {is_}, and not {said} as the session says", host=place.name)
    image = program.image_for(os_, arch)
    if image is None:
        raise UsageError(f"no <BinaryImage> runs on {os_} {arch}", host=place.name)
    number = program.images.index(image)
    return shlex.join([f"{place.facts['room']}/bin/{number}", *image.arguments])
