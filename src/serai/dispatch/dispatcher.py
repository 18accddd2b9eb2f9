"""The dispatcher: the thread where the schedule's decisions become acts.

It drains what was told (by users, carriers and the clock), lets the schedule decide, carries the actions out, writes
the journal, and only then tells the owners. Nothing here waits for a node.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from serai.dispatch.carrier import Beat, Came, Carrier, Gone, NothingLeft
from serai.dispatch.ports import PRICES
from serai.dispatch.reading.telling import Allowance, prices
from serai.dispatch.schedule import events as ev
from serai.dispatch.settling import Settling
from serai.dispatch.snapshot import take
from serai.errors import NodeLost, UsageError
from serai.match.feasible import why_nowhere
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.clock import Clock
    from serai.data.landing import Landing
    from serai.describe.task import Needs
    from serai.dispatch.journal import Journal
    from serai.dispatch.ports import Owner
    from serai.dispatch.roster import Roster
    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.snapshot import NodeNow

DRAIN = 5_000  # things taken from the inbox before the schedule decides
LONGEST_WAIT_S = 1.0
SNAPSHOT_S = 0.2


def _nobody(_node: str) -> None:
    """Who is called before anybody asked to be."""


class Dispatcher:
    """Runs a schedule over real nodes.

    Args:
        schedule: decides.
        journal: remembers.
        roster: the nodes of the pool.
        landing: where outputs come home.
        clock: tells the time.
    """

    def __init__(self, schedule: Schedule, journal: Journal, roster: Roster, landing: Landing, clock: Clock) -> None:
        self._schedule = schedule
        self._journal = journal
        self._clock = clock
        self._roster = roster
        self._inbox: deque[tuple[Carrier | None, Any]] = deque()
        self._submitted: deque[tuple[int, int]] = deque()
        self._wake = threading.Event()
        self._asleep = True
        self._owners: dict[int, Owner] = {}
        self._settling = Settling(journal, landing, self._owners, clock)
        self._explaining = Allowance()
        self._beats: dict[str, Any] = {}
        self._beats_at = 0.0
        self.last_beats: dict[str, Mapping[str, Any]] = {}
        self._leaving: dict[str, None] = {}  # nodes that are to be released
        self._stop = False
        self._snapshot_at = float("-inf")
        self.nodes_now: tuple[NodeNow, ...] = ()
        self._failure: BaseException | None = None
        self._on_hopeless: Callable[[str], None] | None = None
        self._told_hopeless = False
        self._on_nothing_left: Callable[[str], None] = _nobody
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)

    # ---- for users; any thread

    def start(self) -> None:
        """Start the thread, and connect to every node at the same time."""
        self._roster.start(self.tell)
        self._thread.start()

    def tell(self, carrier: Carrier | None, event: Any) -> None:
        """Leave an event in the inbox."""
        self._inbox.append((carrier, event))
        if self._asleep:
            self._wake.set()

    def add_work(self, work: int, needs: Needs, retry: ev.Retry, owner: Owner) -> None:
        """Make a work known; its tasks may follow at once."""
        self._owners[work] = owner
        if self._failure is not None:  # `Settling.abandon` has not seen this one, or tells it twice
            owner.broken(self._failure)
        self.tell(None, ev.WorkAdded(work, needs, retry))

    def submit(self, work: int, task: int) -> None:
        """Hand over one task. Cheap: it is called a great many times."""
        self._submitted.append((work, task))
        if self._asleep:
            self._wake.set()

    def submit_many(
        self,
        work: int,
        tasks: Sequence[int],
        delay_s: float = 0.0,
        inputs: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        """Hand over tasks of one work, which are not sent before a time is over or they are hurried.

        Args:
            work: its number.
            tasks: their numbers.
            delay_s: the time.
            inputs: the catalogued files that each of them reads; None when none does.
        """
        self.tell(None, ev.TasksAdded(work, tasks, delay_s, inputs))

    def hurry(self, tasks: Sequence[int]) -> None:
        """Tasks need not wait any more."""
        self.tell(None, ev.Hurried(tasks))

    def when_nothing_left(self, call: Callable[[str], None]) -> None:
        """Call with a node's name when it has told all that earlier executors left, or is given up."""
        self._on_nothing_left = call

    def cancel(self, tasks: Sequence[int]) -> None:
        """End tasks, running or not."""
        self.tell(None, ev.Cancelled(tasks))

    def cancel_all(self) -> None:
        """End every task that has been handed over."""
        self.cancel(self.unended())

    def unended(self, tasks: Sequence[int] | None = None) -> list[int]:
        """The tasks that have been handed over and have not ended; those of them that are named, or all. Any thread."""
        known = self._schedule.tasks
        return list(known) if tasks is None else [task for task in tasks if task in known]

    @property
    def leaving(self) -> tuple[str, ...]:
        """The nodes that are to be released, and are not yet."""
        return tuple(self._leaving)

    def forget(self, tasks: Sequence[int]) -> None:
        """Tasks that their user withdrew before they were sent: the same as `cancel`."""
        self.tell(None, ev.Cancelled(tasks))

    def release(self, node: str) -> None:
        """Let go of a node; returns at once. Any thread.

        It gets no new tasks, and gives back those that it has not begun and others can run. When it has ended the rest,
        and files that only its cache has are on other nodes, its executor is ended and it is not tried again.

        Raises:
            UsageError: there is no such node.
        """
        if node not in self._roster.specs:
            raise UsageError(f"no node is called {node}", hint=f"there are {', '.join(self._roster.specs)}")
        self.tell(None, ev.Leaving(node))

    def ask_reach(self, node: str, places: Sequence[tuple[str, int]]) -> None:
        """Have a node measure how near (host, port) places are; it tells with its next beats. Any thread."""
        self._control(node, wire.pack(wire.PROBE, head={"software": [], "reach": list(places)}))

    def rate_bytes_s(self, source: str, node: str) -> float:
        """How fast files came from a node or an origin to a node; 0 where that was not measured. Any thread."""
        return self._schedule.holdings.links.measured_bytes_s(source, node)

    def when_hopeless(self, call: Callable[[str], None]) -> None:
        """Call once when tasks wait and no node is left, or expected, that could run them."""
        self._on_hopeless = call

    def look(self) -> ev.Statistics:
        """Statistics of the schedule, as of now; approximate while it works."""
        return self._schedule.statistics()

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread, if it was not asked to end."""
        return self._failure

    @property
    def roster(self) -> Roster:
        """The nodes."""
        return self._roster

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the dispatcher itself, in an owner's callback: it must not wait for itself."""
        return threading.current_thread() is self._thread

    def close(self, deadline_s: float = 15.0) -> None:
        """End everything: the nodes' executors with all they run, then the thread."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive() and not self.is_this_thread:
            self._thread.join(deadline_s)
        self._roster.close(deadline_s)

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._stop:
                self._wait()
                now = self._clock.now()
                self._drain(now)
                self._roster.check(now)
                self._watch(now)
                self._schedule.tell(ev.Tick(), now)
                for action in self._schedule.decide(now):
                    self._act(action)
                self._see_off(now)
                self._settling.flush()
                self._write_beats(now)
                self._check_hope()
                if now - self._snapshot_at >= SNAPSHOT_S:
                    self._snapshot_at = now
                    self._refuse_unmet(now)
                    self.nodes_now = take(self._schedule, self._roster)
            self._settling.finish()
        except BaseException as error:  # noqa: BLE001 - whatever it was, users that wait must hear of it
            self._failure = error
            self._settling.abandon(error)

    def _wait(self) -> None:
        now = self._clock.now()
        longest = SNAPSHOT_S if self._schedule.bundles else LONGEST_WAIT_S
        until = min(self._schedule.wake_at(now), self._roster.wake_at(now), now + longest)
        if until <= now or self._stop:
            return
        self._asleep = True
        if not self._inbox and not self._submitted:
            self._wake.wait(until - now)
        self._asleep = False
        self._wake.clear()

    def _drain(self, now: float) -> None:
        schedule, inbox = self._schedule, self._inbox
        for _ in range(min(len(inbox), DRAIN)):
            carrier, event = inbox.popleft()
            if carrier is None:
                if type(event) is ev.Leaving:
                    self._leaving[event.node] = None
                schedule.tell(event, now)
            elif self._roster.is_current(carrier):
                self._from_node(carrier, event, now)
        self._drain_submitted(now)

    def _drain_submitted(self, now: float) -> None:
        submitted = self._submitted
        count = len(submitted)
        if not count:
            return
        known = self._schedule.works
        tasks: list[int] = []
        current = submitted[0][0]
        for _ in range(count):
            work, task = submitted[0]
            if work not in known:
                break  # it was made known after the inbox was looked at, or lies far behind in it: next time
            if work != current:
                self._schedule.tell(ev.TasksAdded(current, tasks), now)
                current, tasks = work, []
            tasks.append(task)
            submitted.popleft()
        if tasks:
            self._schedule.tell(ev.TasksAdded(current, tasks), now)

    def _from_node(self, carrier: Carrier, event: Any, now: float) -> None:
        name = carrier.spec.name
        if type(event) is ev.Report:
            self._settling.check(event)
            self._schedule.tell(event, now)
        elif type(event) is Beat:
            if "lanes" in event.head:
                self._beats[name] = self.last_beats[name] = event.head
            self._schedule.tell(ev.Heard(name, event.lanes, event.rtt_s), now)
        elif type(event) is Came:
            self._came(carrier, event, now)
        elif type(event) is Gone:
            self._lost(carrier, event, now)
        elif type(event) is NothingLeft:
            self._on_nothing_left(name)
        elif type(event) is ev.Note:
            self._settling.note(event.text, name, event.task)
        else:
            if type(event) is ev.Probed:
                self._record(name, self._roster.probed(name, event.software))
            if type(event) is ev.LaneDown:
                self._settling.note(event.why, name, 0)
            self._schedule.tell(event, now)

    def _came(self, carrier: Carrier, event: Came, now: float) -> None:
        name = carrier.spec.name
        self._schedule.tell(self._roster.came(carrier, event, now), now)
        if event.files:
            self._schedule.tell(ev.Cached(name, event.files), now)
        if name in self._leaving:  # it was not there when it was to be released
            self._schedule.tell(ev.Leaving(name), now)
        self._record(name, event.ad)

    def _lost(self, carrier: Carrier, event: Gone, now: float) -> None:
        name = carrier.spec.name
        self._roster.lost(carrier, event.error, now)
        self._settling.note(str(event.error), name, 0)
        self._forget(name, event.error.what, now)

    def _forget(self, name: str, why: str, now: float) -> None:
        """A node is there no longer."""
        self._schedule.tell(ev.NodeDown(name, why), now)
        self._beats.pop(name, None)
        self.last_beats.pop(name, None)
        self._record(name, None)
        if self._roster.members[name].hopeless:
            self._on_nothing_left(name)

    def _record(self, name: str, ad: Mapping[str, Any] | None) -> None:
        member = self._roster.members[name]
        self._journal.set_node(name, self._roster.specs[name].url, member.standing, self._clock.wall(), ad, member.why)

    def _watch(self, now: float) -> None:
        """Give up executors that have fallen silent."""
        for carrier in self._roster.silent(now):
            words = f"it has been silent for {now - carrier.heard_at:.0f} s"
            self._lost(carrier, Gone(NodeLost(words, host=carrier.spec.name)), now)
            carrier.close_soon()

    def _see_off(self, now: float) -> None:
        """End the executors of nodes that were to be released, have nothing to do, and nothing that only they have."""
        for name in [name for name in self._leaving if self._schedule.may_leave(name)]:
            del self._leaving[name]
            self._roster.release(name, now)
            self._settling.note("it was released", name, 0)
            self._forget(name, "it was released", now)

    def _act(self, action: ev.Action) -> None:
        kind = type(action)
        if kind is ev.Assign:
            self._assign(action)  # type: ignore[arg-type]
        elif kind is ev.Settle:
            self._settling.settle(action)  # type: ignore[arg-type]
        elif kind is ev.Recall:
            self._control(action.node, wire.pack(wire.RECALL, action.lane, action.bundle), action.bundle)  # type: ignore[union-attr]
        elif kind is ev.Kill:
            frame = wire.pack(wire.CANCEL, action.lane, 0, {"ids": action.tasks})  # type: ignore[union-attr]
            self._control(action.node, frame, action.bundle)  # type: ignore[union-attr]
        elif kind is ev.Probe:
            self._control(action.node, wire.pack(wire.PROBE, head={"software": list(action.software)}))  # type: ignore[union-attr]
        elif kind is ev.GiveUp:
            self._settling.gave_up(action)  # type: ignore[arg-type]
        elif kind is ev.Stopped:
            self._settling.stopped(action)  # type: ignore[arg-type]
        elif kind is ev.Closed:
            self._settling.batch.closed.append(action.bundle)  # type: ignore[union-attr]
        else:
            self._act_seldom(action)

    def _act_seldom(self, action: ev.Action) -> None:
        if isinstance(action, ev.Copy):
            self._roster.copy(action)
        elif isinstance(action, ev.Note):
            self._settling.note(action.text, action.node, action.task)

    def _assign(self, action: ev.Assign) -> None:
        owner = self._owners[action.work]
        withdrawn = owner.assigned(action.tasks)
        if withdrawn:
            self.tell(None, ev.Cancelled(withdrawn))
        carrier = self._roster.carrier(action.node)
        if carrier is None:
            return  # the schedule is about to hear that it is gone
        batch = self._settling.batch
        batch.opened.append((action.bundle, action.node, action.lane, self._clock.wall(), json.dumps(action.tasks)))
        if action.moves:
            self._note_prices(action)
        carrier.post(action, owner)

    def _note_prices(self, action: ev.Assign) -> None:
        """Note what the inputs of tasks were thought to cost there and elsewhere, of so many that it slows nothing."""
        for ident in action.tasks:
            now = self._clock.now()
            if not self._explaining.may(now):
                return
            task = self._schedule.tasks.get(ident)
            if task is not None and task.inputs:
                lines = prices(action.node, task.inputs, action.moves, self._schedule.explain_moves(ident))
                self._settling.note(PRICES + "\n".join(lines), action.node, ident)
                self._explaining.did(now, self._clock.now())

    def _control(self, node: str, frame: bytes, about: int = 0) -> None:
        carrier = self._roster.carrier(node)
        if carrier is not None:
            carrier.control(frame, about)

    def _write_beats(self, now: float) -> None:
        if self._beats and now - self._beats_at >= LONGEST_WAIT_S:
            self._beats_at = now
            self._journal.set_beats(self._beats, self._clock.wall())
            self._beats.clear()

    def _refuse_unmet(self, now: float) -> None:
        """Fail the tasks that no node can ever run, once every node is up or given up."""
        schedule = self._schedule
        nodes = schedule.nodes
        if all(node.leaving for node in nodes.values()):
            return  # it is not for what they have: soon none is left, and tasks may be taken up elsewhere
        for work in list(schedule.works.values()):
            if work.fit or not work.waiting or not nodes or not nodes.keys() <= work.unfit.keys():
                continue
            if not self._roster.settled:
                return
            why = why_nowhere([f"{name}: {work.unfit[name]}" for name in nodes] + self._roster.why_given_up())
            tasks = [ident for ident, task in schedule.tasks.items() if task.work is work and not task.bundles]
            self._settling.unmet.update(dict.fromkeys(tasks, why))
            schedule.tell(ev.Cancelled(tasks), now)

    def _check_hope(self) -> None:
        if self._on_hopeless is None or self._told_hopeless or not self._schedule.tasks:
            return
        if self._roster.hopeless:
            self._told_hopeless = True
            self._on_hopeless(self._roster.why_hopeless())
