"""The ads of a run's nodes in the advert service, for as long as it lives; and the ads of stores, for the run.

Stores that only the run's pool files describe are told of, too, apart from those that publish themselves: whoever
looks at the nodes can then tell what is near them.

All of it is done by one thread of its own and none of it is needed: a service that does not answer is said once, and
tried again. Ads expire by themselves when the run's front end is gone.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.errors import SeraiError, UsageError
from serai.match.ads import node_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serai.adverts.service import Adverts

NODES = "/nodes"
STORES = "/stores"
DECLARED = "/declared"  # stores that pool files describe: /declared/RUN/NAME
MOST_NODES = 10_000  # that are published; further ones are not
LAST_S = 2.0  # that a run's end waits for its ads to be taken away


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When what is done.

    Attributes:
        first_s: runs that are over by then publish nothing.
        look_s: between two looks at the nodes and the stores.
        renew_s: after so long a node's ad is published again, also when it is the same.
        life_s: an ad lives so long unless it is renewed.
    """

    first_s: float = 1.0
    look_s: float = 2.0
    renew_s: float = 20.0
    life_s: float = 60.0


class Publisher:
    """Publishes the ads of nodes, and tells of the ads of stores.

    Args:
        run: its name: ads are at ``/nodes/RUN/NODE``.
        service: opens the advert service.
        look: the attributes of the nodes that are up, by name.
        on_stores: is told the ads of stores that are new or others, by name; None for one that is gone. After the
            first look it is told, too, when there are none.
        say: is told what is wrong, once.
        rhythm: when what is done.
        declared: the ads of stores that the run's pool files describe, by name.
    """

    def __init__(
        self,
        run: str,
        service: Callable[[], Adverts],
        look: Callable[[], Mapping[str, Mapping[str, Any]]],
        on_stores: Callable[[Mapping[str, Mapping[str, Any] | None]], object],
        say: Callable[[str], object],
        rhythm: Rhythm | None = None,
        declared: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._directory = f"{NODES}/{run}"
        self._declared_at = f"{DECLARED}/{run}"
        self._declared = declared or {}
        self._service = service
        self._look = look
        self._on_stores = on_stores
        self._say = say
        self._rhythm = rhythm or Rhythm()
        self._said: set[str] = set()
        self._published: dict[str, tuple[Mapping[str, Any], float]] = {}  # path: (attributes, renewed at)
        self._stores: dict[str, Mapping[str, Any]] = {}
        self._looked = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="publish", daemon=True)

    def start(self, *, now: bool) -> None:
        """Begin; at once when somebody waits for the ads of stores."""
        self._now = now
        self._thread.start()

    def close(self) -> None:
        """Take the ads away, if the service answers soon."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(LAST_S)

    # ---- the thread

    def _work(self) -> None:
        if not self._now and self._end.wait(self._rhythm.first_s):
            return
        adverts: Adverts | None = None
        while True:
            try:
                adverts = adverts or self._service()
                self._read_stores(adverts)
                self._publish(adverts)
            except (SeraiError, OSError) as error:
                self._trouble(f"the nodes are not advertised: {error}")
                if adverts is not None:
                    adverts.close()
                adverts = None
                self._published.clear()
            if self._end.wait(self._rhythm.look_s):
                break
        if adverts is not None:
            self._take_away(adverts)

    def _take_away(self, adverts: Adverts) -> None:
        try:
            if self._published:
                adverts.remove(self._directory, recursive=True)
            if self._published and self._declared:
                adverts.remove(self._declared_at, recursive=True)
        except (SeraiError, OSError):
            return  # they expire
        finally:
            adverts.close()

    def _read_stores(self, adverts: Adverts) -> None:
        found = {entry.path.rpartition("/")[2]: entry.attributes for entry in adverts.each(STORES)}
        news: dict[str, Mapping[str, Any] | None] = {
            name: ad for name, ad in found.items() if self._stores.get(name) != ad
        }
        news |= dict.fromkeys(self._stores.keys() - found.keys())
        self._stores = dict(found)
        if news or not self._looked:
            self._looked = True
            self._on_stores(news)

    def _publish(self, adverts: Adverts) -> None:
        rhythm, now = self._rhythm, adverts.now()
        nodes = dict(list(self._look().items())[:MOST_NODES])
        paths = {f"{self._directory}/{name.replace('/', '_')}": ad for name, ad in nodes.items()}
        if nodes:
            paths |= {f"{self._declared_at}/{name}": ad for name, ad in self._declared.items()}
        for path in self._published.keys() - paths.keys():
            del self._published[path]
            _forget(adverts, path)
        for path, ad in paths.items():
            before, at = self._published.get(path, ({}, float("-inf")))
            # What changes with every beat is told when the ad is renewed; whether it is busy, a little sooner.
            soon = rhythm.renew_s if before.get("State") == ad.get("State") else rhythm.renew_s / 4
            if now - at < soon and _lasting(before) == _lasting(ad):
                continue
            if self._end.is_set():
                return
            try:
                adverts.put(path, dict(ad), rhythm.life_s)
            except UsageError as error:
                self._trouble(f"a node is not advertised: {error.what}")
            self._published[path] = (ad, now)

    def _trouble(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            with contextlib.suppress(SeraiError):  # the run has ended meanwhile
                self._say(words)


def attributes(
    name: str, facts: Mapping[str, Any], beat: Mapping[str, Any], state: Mapping[str, Any], nearest: str = ""
) -> dict[str, Any]:
    """The ad of a node as it is published: plain values, expressions as texts that begin with ``=``.

    Args:
        name: of the node.
        facts: what it said at check-in, and its site of it.
        beat: what it said last.
        state: further attributes, which say what it does.
        nearest: the store that was found nearest to it, where its site names none.
    """
    ad = node_attributes(name, facts) | dict(facts.get("attributes") or {})
    if facts.get("requirements"):
        ad["Requirements"] = f"={facts['requirements']}"
    for key, attribute in (("nearest_storage", "NearestStorage"), ("community", "Community")):
        if facts.get(key):
            ad[attribute] = facts[key]
    if nearest:
        ad.setdefault("NearestStorage", nearest)
    if "load" in beat:
        ad["LoadAvg"] = beat["load"]
    for key, attribute, unit in (("memory_free_bytes", "MemoryFree", 1 << 20), ("disk_free_bytes", "Disk", 1024)):
        if key in beat:
            ad[attribute] = int(beat[key]) // unit
    return ad | dict(state)


_PASSING = frozenset({"LoadAvg", "MemoryFree", "Disk", "SlotsBusy", "Tasks", "State"})


def _lasting(ad: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if name in _PASSING else value for name, value in ad.items()}


def _forget(adverts: Adverts, path: str) -> None:
    try:
        adverts.remove(path)
    except FileNotFoundError:
        return  # it expired
