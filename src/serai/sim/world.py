"""The world: a clock, nodes, links and faults, with the schedule in the middle."""

from __future__ import annotations

import heapq
import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.machine import Schedule
from serai.sim.cache import Cache
from serai.sim.checks import Broken, Ledger, empty, must, sanity
from serai.sim.executor import Executor
from serai.sim.models import Faults, NodeModel, Truth, WorkModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STEPS_MOST = 1_000_000
TICKS_MOST = 100  # at one moment: the schedule must not want to be woken again and again for nothing
KEPT = 50


class World:
    """A world that is drawn from a seed and runs until every task has ended.

    Args:
        seed: where all chance comes from.
        nodes: that there are.
        works: to be done.
        faults: how often things go wrong.
        limits: of the schedule.
        silence_s: heartbeats missing for so long mean that a node is given up.
        check_every: steps between two full looks at the schedule; 0 for none. The ledger is kept at every step.
        most_s: virtual seconds after which the world is held to be stuck.
    """

    def __init__(
        self,
        seed: int,
        nodes: Sequence[NodeModel],
        works: Sequence[WorkModel],
        faults: Faults | None = None,
        *,
        limits: ev.Limits | None = None,
        silence_s: float = 15.0,
        check_every: int = 1,
        most_s: float = 100_000.0,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation wants a seed, not secrecy
        self.faults = faults or Faults()
        self.now = 0.0
        self.schedule = Schedule(limits or ev.Limits(), random.Random(seed + 1))  # noqa: S311 - the same
        self.models = {node.name: node for node in nodes}
        self.up: dict[str, Executor] = {}
        self.truth: dict[int, Truth] = {}
        self.ledger = Ledger(self.schedule, self.models, self.truth)
        self.sizes: dict[int, int] = {}
        self._caches: dict[str, Cache] = {}
        self.ended_at = 0.0
        self.last: deque[tuple[float, object]] = deque(maxlen=KEPT)
        self.steps = 0
        self._silence_s = silence_s
        self._check_every = check_every
        self._most_s = most_s
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._pushed = 0
        self._tick_at = float("inf")
        self._ticked_at = -1.0
        self._ticks = 0
        self._planned = 0  # happenings that bring news from outside: the world is not over before
        for node in nodes:
            self.plan(node.up_at_s, partial(self.node_up, node.name))
        for number, work in enumerate(works, start=1):
            self.plan(work.added_at_s, partial(self._add, number, work))
        self._draw_faults()

    def know_files(self, sizes: Sequence[int], origins: Sequence[str] = ()) -> World:
        """There are files of these sizes that works may read, some at origins of their own; numbers begin with 1."""
        self.sizes = dict(enumerate(sizes, start=1))
        event = ev.FilesAdded(list(self.sizes), list(self.sizes.values()), origins)
        self.ledger.told(event)
        self.schedule.tell(event, 0.0)
        return self

    # ---- the clock

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._pushed += 1
        heapq.heappush(self._heap, (max(when, self.now), self._pushed, what))

    def plan(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen from outside; the world goes on until it has."""
        self._planned += 1

        def happen() -> None:
            self._planned -= 1
            what()

        self.at(when, happen)

    def chance(self, probability: float) -> bool:
        """Throw the dice; a world without this chance does not throw at all."""
        return probability > 0 and self.random.random() < probability

    def run(self) -> World:
        """Run until all is over; raises `Broken` where a promise is."""
        try:
            while self._heap and not self._over():
                self.now, _, what = heapq.heappop(self._heap)
                self.steps += 1
                what()
                if self.now > self._most_s or self.steps > STEPS_MOST:
                    must(False, "stuck:", self.schedule.statistics())  # noqa: FBT003 - a promise that is not kept
            self.ledger.check_end()
            empty(self.schedule)
        except Broken as broken:
            raise self.explain(str(broken)) from None
        except Exception as error:
            raise self.explain(f"{type(error).__name__}: {error}") from error
        return self

    def _over(self) -> bool:
        return not self._planned and self.ledger.over and not self.schedule.bundles

    def explain(self, what: str) -> Broken:
        """Say what is broken, with the seed and what happened before."""
        lines = [f"seed {self.seed}, after {self.steps} steps, at {self.now:.4f} s: {what}"]
        lines += [f"  {when:10.4f}  {happening}" for when, happening in self.last]
        return Broken("\n".join(lines))

    # ---- the dispatcher's part

    def tell(self, event: ev.Event) -> None:
        """Tell the schedule, and carry out what it decides."""
        self.last.append((self.now, event))
        self.ledger.told(event)
        self.schedule.tell(event, self.now)
        actions = self.schedule.decide(self.now)
        self.last.extend((self.now, action) for action in actions)
        self.ledger.decided(actions, self.now)
        for action in actions:
            self._carry(action)
        if not self.ledger.over:
            self.ended_at = self.now
        if self._check_every and self.steps % self._check_every == 0:
            sanity(self.schedule, self.now)
        self._wake()

    def _carry(self, action: ev.Action) -> None:
        if isinstance(action, ev.Assign | ev.Recall | ev.Kill | ev.Probe | ev.Copy):
            executor = self.up.get(action.node)
            if executor is not None and executor.heard_of:
                executor.send(action)

    def _wake(self) -> None:
        when = self.schedule.wake_at(self.now)
        if when < self._tick_at:
            self._tick_at = when
            self.at(when, lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if when == self._tick_at:
            self._ticks = self._ticks + 1 if when == self._ticked_at else 0
            self._ticked_at = when
            must(self._ticks < TICKS_MOST, "the schedule wants tick after tick at", when)
            self._tick_at = float("inf")
            self.tell(ev.Tick())

    def _add(self, number: int, work: WorkModel) -> None:
        first = len(self.truth) + 1
        for position in range(work.tasks):
            takes = work.takes_s * (1.0 + work.spread * (2.0 * self.random.random() - 1.0))
            self.truth[first + position] = Truth(
                number,
                takes,
                work.needs,
                work.fails.get(position, 0),
                work.poison.get(position, ""),
                work.function,
                reads=work.reads.get(position, ()),
                fraction=work.fraction,
            )
        self.tell(ev.WorkAdded(number, work.needs, work.retry))
        idents = range(first, first + work.tasks)
        inputs = [self.truth[ident].reads for ident in idents] if work.reads else None
        self.tell(ev.TasksAdded(number, idents, inputs=inputs))

    def started(self, executor: Executor, task: int) -> None:
        """An attempt is started."""
        self.truth[task].runs += 1
        if executor.heard_of:
            self.ledger.started(executor, task)

    # ---- nodes

    def node_up(self, name: str) -> None:
        """A node checks in."""
        model = self.models[name]
        if name in self.up:
            return
        executor = Executor(self, model)
        self.up[name] = executor
        ad = {"python": (3, 12), "mount": model.mounts}
        self.tell(ev.NodeUp(name, model.site, model.slots, model.memory_bytes, ad, model.rtt_s))
        executor.beat()
        if self.cache(name).files:
            self.tell(ev.Cached(name, list(self.cache(name).files)))

    def node_dies(self, name: str) -> None:
        """A node dies, with what it had on its way; it comes back some day."""
        executor = self.up.get(name)
        if executor is None or not executor.alive or executor.frozen:
            return
        self.last.append((self.now, f"{name} dies"))
        executor.alive = False
        self._end_cache(name)
        seen = self.now + (self._silence_s if self.chance(0.3) else executor.rtt_s)
        self.plan(seen, lambda: self.give_up(executor, "the connection is gone"))

    def node_hangs(self, name: str, for_s: float) -> None:
        """A node does nothing for a while; longer than the deadline means that it is given up."""
        executor = self.up.get(name)
        if executor is None or not executor.alive or executor.frozen:
            return
        self.last.append((self.now, f"{name} hangs for {for_s:.1f} s"))
        executor.freeze()
        if for_s < self._silence_s:
            self.plan(self.now + for_s, executor.thaw)
        else:
            self.plan(self.now + self._silence_s, lambda: self.give_up(executor, "no heartbeat"))

    def give_up(self, executor: Executor, why: str) -> None:
        """The front end gives an executor up; its node comes back later with another one."""
        name = executor.model.name
        if self.up.get(name) is not executor:
            return
        if executor.alive:
            self._end_cache(name)
        executor.alive = executor.heard_of = executor.frozen = False
        del self.up[name]
        self.tell(ev.NodeDown(name, why))
        self.plan(self.now + self.random.uniform(0.1, self.faults.away_s), lambda: self.node_up(name))

    def cache(self, name: str) -> Cache:
        """The cache of a node, which may survive its executor."""
        found = self._caches.get(name)
        if found is None:
            found = self._caches[name] = Cache(self.models[name].cache_bytes)
        return found

    def _end_cache(self, name: str) -> None:
        """An executor ends; what was in use is so no longer, and some day its node is set up anew."""
        self.cache(name).free_all()
        if self.sizes and self.chance(self.faults.wiped):
            del self._caches[name]

    def node_leaves(self, name: str, tries: int = 20) -> None:
        """A node is told to go away, and goes when it may, or when it has waited for long."""
        executor = self.up.get(name)
        if executor is None or not executor.alive:
            return
        if tries == 20:
            self.tell(ev.Leaving(name))
        if self.schedule.may_leave(name) or not tries:
            self.give_up(executor, "it went away")
        else:
            self.plan(
                self.now + 1.0, lambda: self.node_leaves(name, tries - 1) if self.up.get(name) is executor else None
            )

    # ---- faults

    def _draw_faults(self) -> None:
        faults, names = self.faults, list(self.models)
        kinds: list[tuple[int, Callable[[str], None]]] = [
            (faults.deaths, self.node_dies),
            (faults.hangs, lambda name: self.node_hangs(name, self.random.uniform(0.1, 2.0 * self._silence_s))),
            (faults.lane_deaths, self._lane_dies),
            (faults.slow, self._slow),
            (faults.cancels, lambda _: self._cancel()),
            (faults.leaves, self.node_leaves),
        ]
        for times, what in kinds:
            for _ in range(times):
                when = self.random.uniform(0.0, faults.within_s)
                self.plan(when, partial(what, self.random.choice(names)))

    def _lane_dies(self, name: str) -> None:
        executor = self.up.get(name)
        if executor is not None and executor.alive and not executor.frozen:
            executor.lose_lane(self.random.randrange(len(executor.lanes)), blame=False)

    def _slow(self, name: str) -> None:
        executor = self.up.get(name)
        if executor is None:
            return

        def recover() -> None:
            executor.rtt_s, executor.bandwidth_bps = executor.model.rtt_s, executor.model.bandwidth_bps

        executor.rtt_s = self.random.uniform(0.1, 2.0)
        executor.bandwidth_bps = 1e4
        self.plan(self.now + self.random.uniform(1.0, 20.0), recover)

    def _cancel(self) -> None:
        if self.truth:
            most = min(len(self.truth), 20)
            self.tell(ev.Cancelled(self.random.sample(sorted(self.truth), self.random.randint(1, most))))
