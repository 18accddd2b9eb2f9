"""Which nodes the expressions of a task's needs, and the nodes' own, let come together: asked by the schedule.

Tasks with equal needs are one *work* in the schedule and are matched once with each node (HTCondor calls this an
autocluster); what was found is remembered until the node's ad, its store's ad or the hour changes. Where neither side
has an expression nothing is evaluated, and the ClassAd library is not even loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from serai.describe.ads.expressions import period_of, software_in
from serai.describe.ads.software import evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serai.describe.task import Needs
    from serai.match.clauses import Refusal

__all__ = ["Answer", "Matching"]

PATIENCE_S = 180.0  # a store's ad lives so long: one that was absent for longer is not coming
FIND_S = 15.0  # so long the store nearest to a node may take to be found
_FINDING = "the one nearest to "
_MOST_ANSWERS = 1_000_000  # remembered; when there are more, all are forgotten and found again as needed


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a node and a task may come together.

    Attributes:
        why: not; "" when they may.
        rank: how much the task wants the node.
        for_now: the no may become a yes: by the clock, or when the ad of a store comes.
    """

    why: str = ""
    rank: float = 0.0
    for_now: bool = False


YES = Answer()


def _utc(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


class Matching:
    """Knows nodes and stores, and answers for one task and one node. No I/O; one thread at a time.

    Args:
        task_facts: attributes that the ad of every task has, such as ``Owner``.
        stores: attributes of stores by name, for ``NearestStorage``.
        moment: the time of day and the date at a `now`, for policies by the hour.
        patience_s: how long the ad of a store that a node refers to is waited for.
    """

    def __init__(
        self,
        task_facts: Mapping[str, Any] | None = None,
        stores: Mapping[str, Mapping[str, Any]] | None = None,
        moment: Callable[[float], datetime] = _utc,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._task_facts = dict(task_facts or {})
        self._stores = {name: dict(ad) for name, ad in (stores or {}).items()}
        self._moment = moment
        self._patience_s = patience_s
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._nearest: dict[str, str] = {}  # found, for nodes that name no store
        self._node_ads: dict[str, Any] = {}  # as they are now, their stores' and the hour in them
        self._store_ads: dict[str, Any] = {}
        self._tasks: dict[Needs, Any] = {}
        self._answers: dict[Needs, dict[str, Answer]] = {}
        self._count = 0
        self._period_s = 0  # how often the clock alone may change an answer
        self._until = inf  # when it may do so next
        self._missing: dict[str, float] = {}  # stores that are referred to and not there: since when
        self.matched = 0  # how often a task was held against a node

    # ---- being told

    def put_node(self, name: str, facts: Mapping[str, Any]) -> None:
        """Take a node's ad: what it said at check-in, and what its site says of it."""
        self.drop_node(name)
        self._facts[name] = facts
        extra = [text for text in (facts.get("attributes") or {}).values() if isinstance(text, str)]
        self._goes_by_the_clock(str(facts.get("requirements") or ""), *(text for text in extra if text[:1] == "="))

    def drop_node(self, name: str) -> None:
        """Forget a node."""
        self._facts.pop(name, None)
        self._missing.pop(f"{_FINDING}{name}", None)
        self._forget(name)

    def put_stores(self, stores: Mapping[str, Mapping[str, Any] | None], nearest: Mapping[str, str] = {}) -> bool:
        """Take stores' new ads (None: it is gone) and the stores found nearest to nodes; returns whether any is new."""
        changed = [name for name, ad in stores.items() if ad != self._stores.get(name)]
        moved = [node for node, store in nearest.items() if self._nearest.get(node) != store]
        for name in changed:
            ad = stores[name]
            self._store_ads.pop(name, None)
            if ad is None:
                self._stores.pop(name)
            else:
                self._stores[name] = dict(ad)
                self._missing.pop(name, None)
        self._nearest.update(nearest)
        if changed:  # whose ads hold it is not kept: stores are few, and seldom change
            for node in self._facts:
                self._forget(node)
        for node in moved:
            self._missing.pop(f"{_FINDING}{node}", None)
            self._forget(node)
        return bool(changed or moved)

    def _forget(self, node: str) -> None:
        self._node_ads.pop(node, None)
        for found in self._answers.values():
            if found.pop(node, None) is not None:
                self._count -= 1

    # ---- being asked

    def software(self, needs: Needs) -> tuple[str, ...]:
        """The programs that must be known of a node before the requirements can be looked at."""
        return tuple(program for name in software_in(needs.requirements + needs.rank) for program in evidence(name))

    def judge(self, needs: Needs, node: str, now: float) -> Answer:
        """Whether a task and a node may come together. What every task needs (cores, memory) is not looked at."""
        if not needs.requirements and not needs.rank and not self._facts[node].get("requirements"):
            return YES
        if needs not in self._tasks:
            self._goes_by_the_clock(needs.requirements, needs.rank)
        self._look_at_the_clock(now)
        found = self._answers.setdefault(needs, {})
        answer = found.get(node)
        if answer is None:
            answer = found[node] = self._match(needs, node, now)
            self._count += 1
            if self._count > _MOST_ANSWERS:
                self._forget_all()
        return answer

    def refusals(self, needs: Needs, node: str, now: float) -> list[Refusal]:
        """What of the expressions keeps a task and a node apart; none when they may come together."""
        if self.judge(needs, node, now).why == "":
            return []
        from serai.match.clauses import refusals  # noqa: PLC0415 - the library is loaded for expressions only

        return refusals(self._task(needs), self._ad(node))

    def ads(self, now: float) -> list[Any]:
        """The ads of all nodes."""
        self._look_at_the_clock(now)
        return [self._ad(node) for node in self._facts]

    def awaited(self, node: str, now: float) -> str:
        """The store that a node refers to and whose ad is not there; "" when it is, or is waited for no longer."""
        name = self._store_awaited(node, now)
        return "" if name.startswith(_FINDING) else name

    def tick(self, now: float) -> bool:
        """Time has passed; returns whether answers may be others for that."""
        changed = self._look_at_the_clock(now)
        for name, since in self._missing.items():
            if now >= since + self._patience_s:
                self._missing[name] = inf  # it is waited for no longer, whoever asks
                self._forget_all()
                changed = True
        return changed

    @property
    def look_at(self) -> float:
        """When answers may be others though nothing was told."""
        return min([self._until, *(since + self._patience_s for since in self._missing.values())])

    def _match(self, needs: Needs, node: str, now: float) -> Answer:
        # The library is loaded by those runs alone that have an expression.
        from serai.match.bilateral import matches, rank  # noqa: PLC0415 - see above
        from serai.match.clauses import refusals, why  # noqa: PLC0415 - see above

        self.matched += 1
        task, ad = self._task(needs), self._ad(node)
        if matches(task, ad):
            return Answer(rank=rank(task, ad))
        found = refusals(task, ad)
        missing = self._store_awaited(node, now) if any(one.three_way for one in found) else ""
        for_now = any(one.period_s or (missing and one.three_way) for one in found)
        missing = "" if missing.startswith(_FINDING) else missing
        return Answer(why(found, missing), for_now=for_now)

    def _task(self, needs: Needs) -> Any:
        if needs not in self._tasks:
            from serai.match.ads import request_ad  # noqa: PLC0415 - see _match

            self._tasks[needs] = request_ad(needs, self._task_facts)
        return self._tasks[needs]

    def _ad(self, node: str) -> Any:
        ad = self._node_ads.get(node)
        if ad is None:
            from serai.match.ads import at, node_ad, stored_ad  # noqa: PLC0415 - see _match
            from serai.match.bilateral import with_storage  # noqa: PLC0415 - see _match

            for name in self._stores.keys() - self._store_ads.keys():
                self._store_ads[name] = stored_ad(self._stores[name])
            facts: Mapping[str, Any] = self._facts[node]
            if not facts.get("nearest_storage") and node in self._nearest:
                facts = {**facts, "nearest_storage": self._nearest[node]}
            ad = with_storage(node_ad(node, facts), self._store_ads)
            if self._period_s:
                ad = at(ad, self._now)
            self._node_ads[node] = ad
        return ad

    def _store_awaited(self, node: str, now: float) -> str:
        """The store that a node refers to and whose ad is not there, as long as it is waited for."""
        name = str(self._facts[node].get("nearest_storage") or self._nearest.get(node, ""))
        if name.startswith("=") or name in self._stores:
            self._missing.pop(name, None)
            return ""
        if not name:  # it may be found by measuring: not waited for as long
            name = f"{_FINDING}{node}"
            self._missing.setdefault(name, now - max(0.0, self._patience_s - FIND_S))
        return name if self._missing.setdefault(name, now) < inf else ""

    # ---- the clock

    def _goes_by_the_clock(self, *texts: str) -> None:
        period = period_of(*texts)
        if period and (not self._period_s or period < self._period_s):
            self._period_s = period
            self._until = -inf

    def _look_at_the_clock(self, now: float) -> bool:
        if not self._period_s or now < self._until:
            return False
        self._now = self._moment(now)
        into = self._now.minute * 60 + self._now.second + self._now.microsecond / 1e6
        self._until = now + self._period_s - into % self._period_s
        self._node_ads.clear()
        self._forget_all()
        return True

    def _forget_all(self) -> None:
        self._answers.clear()
        self._count = 0
