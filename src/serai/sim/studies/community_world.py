"""Communities on a virtual clock: machines, their stores, the link between them, and jobs under one rule.

A job reads and computes in turn, in chunks. The link between the communities and each store serve one chunk after the
other, so that those who share them get equal parts. Who may run where is asked of ClassAds; what ``auto`` does is
decided by prices (`serai.sim.studies.community_prices`).
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import classad2

from serai.match.ads import parse_expression
from serai.match.bilateral import matches, rank, with_storage
from serai.match.movement import Links, Way
from serai.sim.studies.communities import AUTO
from serai.sim.studies.community_prices import Home, Load, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.sim.studies.communities import Community, Kind, Rule, Scene

__all__ = ["CommunityOutcome", "CommunityWorld", "run_rule"]


@dataclass(slots=True)
class CommunityOutcome:
    """How all jobs went under a rule.

    Attributes:
        rule: its name.
        jobs: how many.
        completion_s: when the last ended.
        cpu_s: that jobs computed.
        machine_s: that machines were held by jobs.
        wan_bytes: that went between the communities.
        ran: jobs by community and way.
    """

    rule: str
    jobs: int
    completion_s: float
    cpu_s: float
    machine_s: float
    wan_bytes: int
    ran: dict[str, int]

    @property
    def cpu_efficiency(self) -> float:
        """The time that jobs computed over the time for which they held machines."""
        return self.cpu_s / self.machine_s


@dataclass(slots=True)
class _Job:
    """A job that runs, or the stage of a file (without a machine)."""

    kind: int
    store: str
    way: Way
    began_s: float
    chunks_left: int


class _Server:
    """Serves one chunk after the other."""

    def __init__(self, bytes_s: float, latency_s: float = 0.0) -> None:
        self.bytes_s = bytes_s
        self.latency_s = latency_s
        self.moved = 0.0
        self.asked_bytes_s = 0.0  # by jobs that run
        self._free_s = 0.0

    def serve(self, size: float, now: float) -> float:
        """When a chunk of a stream has come."""
        self._free_s = max(now, self._free_s) + size / self.bytes_s
        self.moved += size
        return self._free_s

    def ask(self, size: float, now: float) -> float:
        """When a chunk that is asked for now has come."""
        return self.serve(size, now) + self.latency_s


class CommunityWorld:
    """One run of a scene under a rule.

    Args:
        scene: what is there, and what is to be done.
        rule: a named policy, or `serai.sim.studies.communities.AUTO`.
        before: stores that have all data before the first job; those of the rule by default.
    """

    def __init__(self, scene: Scene, rule: Rule, before: tuple[str, ...] | None = None) -> None:
        self._scene, self._rule = scene, rule
        self._kinds = scene.kinds
        self._now = 0.0
        self._sequence = 0
        self._happenings: list[tuple[float, int, Callable[[], None]]] = []
        self._wan = _Server(scene.wan_bytes_s, scene.wan_latency_s)
        self._lan = {name: _Server(one.store_bytes_s) for name, one in scene.communities.items()}
        self._free = {name: one.machines for name, one in scene.communities.items()}
        self._ends: dict[str, dict[int, float]] = {name: {} for name in scene.communities}  # as expected
        self._waiting = self._submitted()
        full = rule.before if before is None else before
        self._has = {(kind.store, k) for k, kind in enumerate(self._kinds)}
        self._has |= {(store, k) for store in full for k in range(len(self._kinds))}
        self._staged: dict[tuple[str, int], int] = {}  # files of their own that are there and that no job has taken
        self._staging: dict[tuple[str, int], float] = {}  # bytes that are still to come
        self._readers = 0
        self._ranks: dict[tuple[int, str, bool], float | None] = {}
        self._links = Links(scene.wan_bytes_s, scene.wan_latency_s)
        self.outcome = CommunityOutcome(rule.name, sum(kind.jobs for kind in self._kinds), 0.0, 0.0, 0.0, 0, {})

    def run(self) -> CommunityOutcome:
        """Run all jobs; returns how it went.

        Raises:
            ValueError: no machine may ever run some job under this rule.
        """
        if self._rule is not AUTO and self._rule.way is Way.STAGE:
            self._stage_everything()
        self._dispatch()
        while self._happenings:
            self._now, _, happens = heapq.heappop(self._happenings)
            happens()
            self._dispatch()
        if any(self._waiting):
            raise ValueError(f"{self._rule.name!r} leaves {sum(map(len, self._waiting))} jobs waiting for ever")
        self.outcome.completion_s = self._now if not self._staging else self.outcome.completion_s
        self.outcome.wan_bytes = round(self._wan.moved)
        return self.outcome

    def _submitted(self) -> list[deque[int]]:
        """The turns of each kind's jobs in the queue: all kinds are spread over the whole of it."""
        total = sum(kind.jobs for kind in self._kinds)
        return [deque(round(i * total / kind.jobs) for i in range(kind.jobs)) for kind in self._kinds]

    def _at(self, at_s: float, happens: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._happenings, (at_s, self._sequence, happens))

    # ---- who runs where

    def _dispatch(self) -> None:
        while self._dispatch_by_price() if self._rule is AUTO else self._dispatch_by_rule():
            pass

    def _dispatch_by_rule(self) -> bool:
        """Start the oldest job that may run on a free machine, on the machine that it ranks highest."""
        for k in sorted((k for k in range(len(self._kinds)) if self._waiting[k]), key=lambda k: self._waiting[k][0]):
            able = [
                (-rank, store)
                for store in self._free
                if self._free[store] and (rank := self._rank(k, store, has=self._there(store, k))) is not None
            ]
            if able:
                store = min(able)[1]
                self._begin(k, store, Way.HERE if self._there(store, k) else Way.READ)
                return True
        return False

    def _dispatch_by_price(self) -> bool:
        """Start the job that gains most by a free machine; begin to stage what is wanted at a store."""
        best: tuple[bool, float, int, str, Way] | None = None
        for store, free in self._free.items():
            for k in range(len(self._kinds)) if free else ():
                if not self._waiting[k] or self._rank(k, store, has=self._there(store, k)) is None:
                    continue
                choice = decide(self._load(k), self._homes(k), store, self._links)
                if choice.way is Way.STAGE:
                    self._stage(store, k)
                elif choice.way is not None and (best is None or (not choice.full, choice.gain_s) > best[:2]):
                    best = (not choice.full, choice.gain_s, k, store, choice.way)
        if best is None:
            return False
        self._begin(*best[2:])
        return True

    def _load(self, k: int) -> Load:
        kind = self._kinds[k]
        return Load(
            waiting=len(self._waiting[k]),
            file_bytes=kind.file_bytes,
            read_bytes=kind.read_bytes,
            million_instructions=kind.million_instructions,
            shared=not kind.own,
            origin=kind.store,
            readers=self._readers + len(self._staging),
            link_share=self._wan.asked_bytes_s / self._wan.bytes_s,
        )

    def _homes(self, k: int) -> list[Home]:
        return [
            Home(
                store=name,
                frees_s=[0.0] * self._free[name] + [max(0.0, at_s - self._now) for at_s in self._ends[name].values()],
                mips=one.mips,
                store_bytes_s=one.store_bytes_s,
                has=self._there(name, k),
                to_come=self._staging.get((name, k)),
                store_share=self._lan[name].asked_bytes_s / one.store_bytes_s,
            )
            for name, one in self._scene.communities.items()
        ]

    def _rank(self, k: int, store: str, *, has: bool) -> float | None:
        """How a job ranks a machine; None when it may not run there. Equal ones are matched once."""
        key = (k, store, has)
        if key not in self._ranks:
            self._ranks[key] = _rank(self._rule, self._kinds[k], self._scene.communities[store], has=has)
        return self._ranks[key]

    def _there(self, store: str, k: int) -> bool:
        return (store, k) in self._has or self._staged.get((store, k), 0) > 0

    # ---- jobs

    def _begin(self, k: int, store: str, way: Way) -> None:
        self._waiting[k].popleft()
        if (store, k) not in self._has and way is Way.HERE:
            self._staged[store, k] -= 1
        self._free[store] -= 1
        self._readers += way is Way.READ
        name = f"{self._scene.communities[store].name} {'remote' if way is Way.READ else 'local'}"
        self.outcome.ran[name] = self.outcome.ran.get(name, 0) + 1
        job = _Job(k, store, way, self._now, self._scene.chunks)
        self._server(job).asked_bytes_s += self._asks_bytes_s(job)
        self._ends[store][id(job)] = (
            self._now + self._kinds[k].million_instructions / self._scene.communities[store].mips
        )
        self._read(job)

    def _server(self, job: _Job) -> _Server:
        return self._wan if job.way is Way.READ else self._lan[job.store]

    def _asks_bytes_s(self, job: _Job) -> float:
        kind = self._kinds[job.kind]
        return kind.read_bytes * self._scene.communities[job.store].mips / kind.million_instructions

    def _read(self, job: _Job) -> None:
        kind, chunks = self._kinds[job.kind], self._scene.chunks
        server = self._server(job)
        there = server.ask(kind.read_bytes / chunks, self._now)
        compute_s = kind.million_instructions / self._scene.communities[job.store].mips / chunks
        job.chunks_left -= 1
        self._at(there + compute_s, lambda: self._read(job) if job.chunks_left else self._write(job))

    def _write(self, job: _Job) -> None:
        self._at(self._server(job).ask(self._kinds[job.kind].write_bytes, self._now), lambda: self._end(job))

    def _end(self, job: _Job) -> None:
        self._free[job.store] += 1
        self._readers -= job.way is Way.READ
        del self._ends[job.store][id(job)]
        self._server(job).asked_bytes_s -= self._asks_bytes_s(job)
        outcome = self.outcome
        outcome.completion_s = self._now
        outcome.machine_s += self._now - job.began_s
        outcome.cpu_s += self._kinds[job.kind].million_instructions / self._scene.communities[job.store].mips

    # ---- stages

    def _stage_everything(self) -> None:
        """Stage what a rule would have jobs read at a store, and is not there."""
        for store in self._free:
            for k in range(len(self._kinds)):
                if (store, k) not in self._has and self._rank(k, store, has=True) is not None:
                    self._stage(store, k)

    def _stage(self, store: str, k: int) -> None:
        """Begin to stage a dataset: the one file, or one after the other."""
        if (store, k) not in self._staging:
            kind = self._kinds[k]
            self._staging[store, k] = float(kind.file_bytes * (kind.jobs if kind.own else 1))
            self._stage_chunk(store, k)

    def _stage_chunk(self, store: str, k: int) -> None:
        """Bring the next megabyte."""
        kind = self._kinds[k]
        before = self._staging[store, k]
        size = min(1e6, before)
        if not self._waiting[k] or self._staged.get((store, k), 0) >= len(self._waiting[k]):
            del self._staging[store, k]  # nobody is left to read it
            return

        def came() -> None:
            self._staging[store, k] = left = before - size
            if kind.own and left // kind.file_bytes < before // kind.file_bytes:
                self._staged[store, k] = self._staged.get((store, k), 0) + 1
            if left > 0:
                self._stage_chunk(store, k)
                return
            del self._staging[store, k]
            if not kind.own:
                self._has.add((store, k))

        self._at(self._wan.serve(size, self._now), came)


def _rank(rule: Rule, kind: Kind, community: Community, *, has: bool) -> float | None:
    store = classad2.ClassAd({"MyType": "Storage", "Name": community.store, f"Has{kind.dataset}": has})
    machine = classad2.ClassAd({"MyType": "Machine", "Mips": community.mips, "NearestStorage": community.store})
    machine = with_storage(machine, {community.store: store})
    job = classad2.ClassAd({"MyType": "Job"})
    job["Requirements"] = parse_expression(rule.requirements.format(dataset=kind.dataset))
    job["Rank"] = parse_expression(rule.rank.format(dataset=kind.dataset))
    return rank(job, machine) if matches(job, machine) else None


def run_rule(scene: Scene, rule: Rule, before: tuple[str, ...] | None = None) -> CommunityOutcome:
    """Run a scene under a rule; the same every time."""
    return CommunityWorld(scene, rule, before).run()
