"""The nodes of a pool and their carriers: who is there, who is tried again, who has fallen silent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from serai.dispatch.carrier import Carrier
from serai.dispatch.schedule import events as ev
from serai.match.movement import Move, Way
from serai.pool.members import Member, Patience, Standing
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.clock import Clock
    from serai.data.landing import Landing
    from serai.dispatch.carrier import Came, Timing
    from serai.dispatch.files.catalogue import Catalogue
    from serai.dispatch.ports import Engine, NodeSpec
    from serai.errors import SeraiError


def _nobody(_carrier: Carrier, _event: Any) -> None:
    """Who is told before `Roster.start`."""


class Roster:
    """Connects to nodes, all at the same time, and keeps who is there.

    Args:
        nodes: (node, engine) pairs.
        hello: what agents are told about the run.
        landing: where outputs come home.
        clock: tells the time.
        timing: of the conversation with executors.
        patience: with nodes that do not answer.
        catalogue: the files that tasks read.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[NodeSpec, Engine]],
        hello: Mapping[str, Any],
        landing: Landing,
        clock: Clock,
        timing: Timing,
        patience: Patience,
        catalogue: Catalogue,
    ) -> None:
        self._catalogue = catalogue
        catalogue.to_node = self._to_node
        catalogue.read_from = self._read_from
        for spec, _ in nodes:
            if spec.in_place:
                catalogue.here(spec.name)
        self.specs = {spec.name: spec for spec, _ in nodes}
        self.members = {spec.name: Member(spec.name) for spec, _ in nodes}
        self._engines = {spec.name: engine for spec, engine in nodes}
        self._hello = hello
        self._landing = landing
        self._clock = clock
        self._timing = timing
        self._patience = patience
        self._carriers: dict[str, Carrier] = {}
        self._released: list[threading.Thread] = []  # that end executors
        self._ads: dict[str, dict[str, Any]] = {}
        self._tell: Callable[[Carrier, Any], None] = _nobody

    def start(self, tell: Callable[[Carrier, Any], None]) -> None:
        """Connect to every node; what is heard is told."""
        self._tell = tell
        for name in self.specs:
            self._connect(name)

    def _connect(self, name: str) -> None:
        carrier = Carrier(
            self.specs[name],
            self._engines[name],
            self._hello,
            self._tell,
            self._landing,
            self._clock,
            self._timing,
            self._catalogue,
        )
        self._carriers[name] = carrier
        self.members[name].connecting(self._clock.now())
        carrier.start()

    def is_current(self, carrier: Carrier) -> bool:
        """Whether a carrier has not been given up."""
        return self._carriers.get(carrier.spec.name) is carrier

    def carrier(self, name: str) -> Carrier | None:
        """The carrier of a node that is there."""
        return self._carriers.get(name)

    def _to_node(self, name: str, frame: bytes) -> None:
        """Tell a node something about files; it then speaks with its peers."""
        carrier = self._carriers.get(name)
        if carrier is not None:
            carrier.meet()
            carrier.control(frame)

    def _read_from(self, name: str, file: str, at: int, length: int) -> bytes:
        """A part of a file that a node has, for another; empty where it does not give it."""
        carrier = self._carriers.get(name)
        return b"" if carrier is None else carrier.read(file, at, length)

    def copy(self, action: ev.Copy) -> None:
        """Bring a file to a node, though nothing there waits for it."""
        head = self._catalogue.needs(action.node, [action.file], [Move(action.file, Way.STAGE, action.source)])
        self._to_node(action.node, wire.pack(wire.NEEDS, head=head))

    def ad(self, name: str) -> dict[str, Any]:
        """What a node said at its last check-in."""
        return self._ads.get(name, {})

    def probed(self, name: str, software: Mapping[str, bool]) -> dict[str, Any]:
        """A node has told of programs; returns its ad as it is now. Others may be reading the one it was."""
        ad = self.ad(name)
        self._ads[name] = ad = {**ad, "software": {**ad.get("software", {}), **software}}
        return ad

    def came(self, carrier: Carrier, event: Came, now: float) -> ev.NodeUp:
        """A node has checked in; returns what the schedule is told."""
        spec = carrier.spec
        self.members[spec.name].came(now)
        ad = event.ad
        ad["slots"] = spec.slots or int(ad["cores"])
        ad["memory_bytes"] = spec.memory_bytes or int(ad.get("memory_bytes", 0))  # what tasks may use
        ad.update(spec.declared)
        self._ads[spec.name] = ad
        return ev.NodeUp(spec.name, spec.site, ad["slots"], ad["memory_bytes"], ad)

    def lost(self, carrier: Carrier, error: SeraiError, now: float) -> None:
        """A node is gone, or could not be reached."""
        self._carriers.pop(carrier.spec.name, None)
        self._catalogue.lost(carrier.spec.name)
        self.members[carrier.spec.name].lost(str(error), now, transient=error.transient, patience=self._patience)

    def release(self, name: str, now: float) -> None:
        """A node is not wanted any more, and has nothing to do: end its executor, and try it no more."""
        carrier = self._carriers.pop(name, None)
        if carrier is not None:
            thread = threading.Thread(target=carrier.close, name=f"close-{name}", daemon=True)
            thread.start()
            self._released.append(thread)
        self._catalogue.lost(name)
        self.members[name].released(now)

    def silent(self, now: float) -> list[Carrier]:
        """Carriers of nodes that are up and have said nothing for too long."""
        return [
            carrier
            for name, carrier in self._carriers.items()
            if self.members[name].standing is Standing.UP and now - carrier.heard_at > self._timing.silence_s
        ]

    def check(self, now: float) -> None:
        """Try again what is due."""
        for name, member in self.members.items():
            if member.due(now):
                self._connect(name)

    def wake_at(self, now: float) -> float:
        """When `check` is wanted."""
        marks = [member.retry_at for member in self.members.values() if member.standing is Standing.WAITING]
        return max(now, min(marks, default=now + 60.0))

    @property
    def hopeless(self) -> bool:
        """Whether no node is there and none is expected."""
        return all(member.hopeless for member in self.members.values())

    @property
    def settled(self) -> bool:
        """Whether every node is there or given up: none is expected."""
        return all(member.hopeless or member.standing is Standing.UP for member in self.members.values())

    def why_given_up(self) -> list[str]:
        """A line for each node that is not expected any more."""
        return [
            f"{member.name}: {member.why.partition(chr(10))[0]}" for member in self.members.values() if member.hopeless
        ]

    def why_hopeless(self) -> str:
        """What was wrong with each node, for people."""
        return "\n".join(f"{member.name}: {member.why}" for member in self.members.values()) or "the pool has no nodes"

    def close(self, deadline_s: float) -> None:
        """End every executor, all at the same time, and let go of the engines."""
        carriers = list(self._carriers.values())
        self._carriers.clear()
        threads = [threading.Thread(target=carrier.close, daemon=True) for carrier in carriers]
        for thread in threads:
            thread.start()
        until = self._clock.now() + deadline_s
        for thread in [*threads, *self._released]:
            thread.join(max(0.0, until - self._clock.now()))
        for member in self.members.values():
            if member.standing is not Standing.RELEASED:
                member.standing = Standing.ENDED
        for engine in set(self._engines.values()):
            engine.close()
