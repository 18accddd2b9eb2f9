"""Workers as processes of a steward on each host: all hosts at once, several workers each, nothing left behind.

A host's steward (`serai.travel.steward`) is one process behind one stream over the host's one connection. It makes the
room, into which go the worker's program, the token (a file of mode 0600, never an argument or the environment) and the
user's own executables; the gateway's socket is forwarded there. The steward ends its workers when the stream ends, and
that it does when this process ends, in whatever way.
"""

from __future__ import annotations

import shlex
import threading
import time
from typing import TYPE_CHECKING

from serai.apps.mapreduce.inputs import host_key
from serai.apps.workers.sending import Sent, sent_files
from serai.apps.workers.stewards import PARCEL, START_S, TOKEN, Crew, Place, Steward
from serai.describe.mapreduce import Binaries, Commands, arch_name, os_name
from serai.errors import SeraiError, UsageError
from serai.travel.boot import WORKER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.describe.mapreduce import HostSpec

__all__ = ["Launch", "image_in_room"]


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
        self.places = [Place(spec, host_key(spec.site.url), host_key(spec.site.url) or "local") for spec in hosts]
        self._program = program
        self._address = address
        self._token = token
        self._crew = crew
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self._stewards: dict[Place, Steward] = {}
        self._sent = sent_files(program)

    def start(self) -> None:
        """Begin with all hosts at once; the crew is told what comes of it."""
        for place in self.places:
            self.bring_up(place)

    def bring_up(self, place: Place) -> None:
        """Reach a host and start all of its workers, in a thread of its own; what was there before is given up."""
        self._aside(place, lambda: self._bring_up(place))

    def start_worker(self, place: Place) -> None:
        """Start one more worker on a host that is up, in a thread of its own: a stream may be full for a while."""
        self._aside(place, lambda: self._start(place, self._names(1), anew=False))

    def drop(self, place: Place, worker: str) -> None:
        """Have a worker ended that gives no sign of life."""
        steward = self._stewards.get(place)
        if steward is not None:
            self._aside(place, lambda: steward.drop(worker))

    def silent(self) -> list[Place]:
        """Hosts with workers that have given no sign of life for longer than their way explains."""
        now = time.monotonic()
        with self._lock:
            return [place for place, steward in self._stewards.items() if steward.pulse.stopped(now)]

    def abandon(self, place: Place) -> None:
        """Give up a host: what still runs there is ended, if the host hears that."""
        with self._lock:
            steward = self._stewards.pop(place, None)
        if steward is not None:
            threading.Thread(target=steward.close, name=f"abandon-{place.name}", daemon=True).start()

    def close(self, deadline_s: float = START_S) -> None:
        """End every worker and remove the rooms; hosts that do not answer are left to their stewards."""
        with self._lock:
            self._closed = True
            stewards = list(self._stewards.values())
        enders = [threading.Thread(target=steward.close, daemon=True) for steward in stewards]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join(deadline_s)

    def _aside(self, place: Place, do: Callable[[], None]) -> None:
        def work() -> None:
            try:
                do()
            except (SeraiError, OSError) as error:
                if not self._closed:  # else the run was over before the host was there
                    why = _reason(error) if isinstance(error, SeraiError) else f"{place.name}: {error}"
                    transient = error.transient if isinstance(error, SeraiError) else True
                    self._crew.host_lost(place, why, transient=transient)

        threading.Thread(target=work, name=f"launch-{place.name}", daemon=True).start()

    def _bring_up(self, place: Place) -> None:
        with self._lock:
            former = self._stewards.pop(place, None)
        if former is not None:
            former.close()
        steward = Steward(place, self._crew)
        with self._lock:
            closed = self._closed
            if not closed:
                self._stewards[place] = steward
        if closed:
            steward.close()
            return
        facts = steward.furnish([*self._sent, *self._own_sent()])
        place.who, place.facts = facts.pop("who", {}), facts
        place.image = image_in_room(self._program, place)
        steward.forward(place.facts["socket"], self._address)
        steward.kept = True
        self._start(place, self._names(place.spec.workers or int(place.facts["cores"])), anew=True)

    def _start(self, place: Place, workers: Sequence[str], *, anew: bool) -> None:
        steward = self._stewards.get(place)
        if steward is None:
            return  # it was lost meanwhile, and starts all of them when it is back
        self._crew.host_up(place, workers, anew=anew)
        for worker in workers:
            steward.start(worker, place.facts)

    def _own_sent(self) -> list[Sent]:
        return [Sent(TOKEN, self._token.encode()), Sent(PARCEL, WORKER.packed())]

    def _names(self, count: int) -> list[str]:
        with self._lock:
            first = self._count + 1
            self._count += count
        return [f"w{number}" for number in range(first, first + count)]


def _reason(error: SeraiError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())


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
