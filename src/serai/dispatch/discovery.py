"""What a run tells the advert service, and is told by it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from serai.access.stores.trust import place
from serai.adverts.service import open_adverts
from serai.dispatch.front_end import NEAREST, STORES, TASK
from serai.dispatch.journal import Batch
from serai.dispatch.schedule import events as ev
from serai.match.communities import Grouping, group
from serai.pool.members import Standing
from serai.pool.nearness import closeness, loads, not_there, places
from serai.pool.publishing import Publisher, attributes
from serai.pool.tasks import task_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.clock import Clock
    from serai.dispatch.dispatcher import Dispatcher
    from serai.dispatch.journal import Journal
    from serai.match.communities import Closeness, Rules

MEASURE_S = 60.0  # between two measurements of a node


class Discovery:
    """Between a run and the advert service.

    Args:
        dispatcher: knows the nodes, and is told of stores.
        journal: keeps the ads of stores, for `serai explain`.
        run: its name.
        adverts: where; see `open_adverts`. Empty for nowhere.
        declared: the ads of stores that pool files describe, by name; an advert adds to what they say.
        clock: tells the time.
        rules: when nodes change their store.

    Attributes:
        warnings: what the user should hear of, once each.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        run: str,
        adverts: str | None,
        declared: Mapping[str, Mapping[str, Any]],
        clock: Clock,
        rules: Rules,
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._run = run
        self._clock = clock
        self._rules = rules
        self._declared = declared
        self._stores: dict[str, Mapping[str, Any]] = dict(declared)
        journal.set_run({STORES: self._stores, TASK: task_facts(run)})
        self._grouping = Grouping()
        self._closest: dict[str, float] = {}
        self._asked: dict[str, tuple[dict[str, tuple[str, int]], float]] = {}
        self.warnings: list[str] = []
        self._compared = False
        self._publisher: Publisher | None = None
        if adverts != "":
            service = partial(open_adverts, adverts, os.environ)
            self._publisher = Publisher(run, service, self.look, self._stores_told, self.note, declared=declared)

    def start(self) -> None:
        """Begin."""
        if self._publisher is not None:
            self._publisher.start(now=any(self._references().values()))
        else:
            self._compare()

    def close(self) -> None:
        """End, and take the ads away."""
        if self._publisher is not None:
            self._publisher.close()

    def look(self) -> dict[str, dict[str, Any]]:
        """The attributes of the nodes that are up, by name."""
        self._find_nearest()
        found = {}
        dispatcher = self._dispatcher
        for node in dispatcher.nodes_now:
            if node.standing == Standing.UP:
                state: dict[str, Any] = {
                    "Run": self._run,
                    "State": "Busy" if node.slots and node.busy >= node.slots else "Claimed" if node.busy else "Idle",
                    "Slots": node.slots,
                    "SlotsBusy": node.busy,
                    "Tasks": node.held,
                }
                beat = dispatcher.last_beats.get(node.name, {})
                if node.name in self._closest:
                    state["StorageRtt"] = self._closest[node.name]
                nearest = self._grouping.at.get(node.name, "")
                found[node.name] = attributes(node.name, dispatcher.roster.ad(node.name), beat, state, nearest)
        return found

    def _find_nearest(self) -> None:
        """Have nodes that name no store measure how near stores are, and group them by what they told."""
        dispatcher, now = self._dispatcher, self._clock.now()
        measured: dict[tuple[str, str], Closeness] = {}
        for node in dispatcher.nodes_now if self._stores else ():
            ad = dispatcher.roster.ad(node.name)
            if node.standing != Standing.UP or ad.get("nearest_storage"):
                continue
            wanted = places(self._stores, str(ad.get("host", "")))
            reached = dispatcher.last_beats.get(node.name, {}).get("reach") or {}
            rates = partial(self._rate, node.name)
            measured |= {(node.name, store): one for store, one in closeness(wanted, reached, rates).items()}
            asked, at = self._asked.get(node.name, ({}, 0.0))
            if wanted and (asked != wanted or now - at >= MEASURE_S):
                self._asked[node.name] = (wanted, now)
                dispatcher.ask_reach(node.name, list(wanted.values()))
        before = self._grouping
        self._grouping = group(before, measured, loads(self._stores), now, self._rules)
        self._closest = {node: measured[node, store].rtt_s for node, store in self._grouping.at.items()}
        if self._grouping.at != before.at:
            nearest = dict(self._grouping.at)
            self._journal.set_run({NEAREST: nearest})
            dispatcher.tell(None, ev.Advertised({}, nearest))

    def _rate(self, node: str, host: str, port: int) -> float:
        """The bytes a second that a node read from a store; 0 where it read nothing, or too little to tell."""
        return self._dispatcher.rate_bytes_s(f"store {place(host, port)}", node)

    def _stores_told(self, news: Mapping[str, Mapping[str, Any] | None]) -> None:
        told: dict[str, Mapping[str, Any] | None] = {}
        for name, ad in news.items():
            own = self._declared.get(name)
            told[name] = own if ad is None else {**(own or {}), **ad}
        self._stores = {name: ad for name, ad in {**self._stores, **told}.items() if ad is not None}
        self._journal.set_run({STORES: self._stores})
        if told:
            self._dispatcher.tell(None, ev.Advertised(told))
        self._compare()

    def _references(self) -> dict[str, str]:
        """The store that each node names, by node."""
        return {
            name: str(spec.declared.get("nearest_storage") or "")
            for name, spec in self._dispatcher.roster.specs.items()
        }

    def _compare(self) -> None:
        """Warn, once all that can be known is, of stores that are named and not there."""
        if not self._compared:
            self._compared = True
            for words in not_there(self._references(), self._stores):
                self.warn(words)

    def warn(self, words: str) -> None:
        """Have the user hear of something: noted, and shown while the run is. Any thread."""
        self.warnings.append(words)
        self.note(words)

    def note(self, words: str) -> None:
        """Have it in the journal. Any thread."""
        self._journal.write(Batch(notes=[(self._clock.wall(), "", 0, words)]))
