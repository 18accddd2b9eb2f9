"""Many tasks, many nodes: tasks that no expression can tell apart are matched once (HTCondor's autoclusters).

Which attributes of a task count is known from the expressions: those that a node's ``Requirements`` or ``Rank`` refer
to. Tasks with the same expressions and the same values of those are one *cluster*, and are matched as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import classad2

from serai.describe.ads.expressions import clauses_of, words
from serai.match.bilateral import holds, matches, rank, with_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Clause", "Explained", "Matchmaker"]

_MOST_CLUSTERS = 10_000  # remembered; when there are more, all are forgotten and made again as needed
_OWN = ("Requirements", "Rank")


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a task's requirements.

    Attributes:
        text: as it is in the ad.
        rejected: names of nodes for which it does not hold.
        undefined: those of them that lack what it refers to.
    """

    text: str
    rejected: tuple[str, ...]
    undefined: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a task can or cannot run.

    Attributes:
        able: nodes that match, the best first.
        clauses: of the task's requirements, in their order.
        refused_by: nodes whose own requirements the task does not meet, though it would take them.
    """

    able: tuple[str, ...]
    clauses: tuple[Clause, ...]
    refused_by: tuple[str, ...]


class Matchmaker:
    """Knows nodes and stores, and answers which nodes a task may have. No I/O; one thread at a time.

    Args:
        nodes: ads by name.
        stores: ads by name, for ``NearestStorage``.
    """

    def __init__(
        self, nodes: Mapping[str, classad2.ClassAd] | None = None, stores: Mapping[str, classad2.ClassAd] | None = None
    ) -> None:
        self._nodes = dict(nodes or {})
        self._stores = dict(stores or {})
        self._whole: dict[str, classad2.ClassAd] = {}  # with the store's ad in it
        self._significant: tuple[str, ...] = ()
        self._found: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.matched = 0  # how often a task was held against a node
        self._refresh()

    def put_node(self, name: str, ad: classad2.ClassAd | None) -> None:
        """Take a node's new ad, or forget the node."""
        if ad is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = ad
        self._refresh()

    def put_store(self, name: str, ad: classad2.ClassAd | None) -> None:
        """Take a store's new ad, or forget the store."""
        if ad is None:
            self._stores.pop(name, None)
        else:
            self._stores[name] = ad
        self._refresh()

    def cluster(self, task: classad2.ClassAd) -> tuple[str, ...]:
        """What the task is matched by: equal for tasks that no expression can tell apart."""
        own = self._referred(task)
        values = [str(task.lookup(name)) if name in task else "" for name in (*self._significant, *own)]
        return tuple([str(task.lookup(name)) if name in task else "" for name in _OWN] + values)

    def candidates(self, task: classad2.ClassAd) -> tuple[str, ...]:
        """The nodes that match, the best first; equally good ones by name."""
        key = self.cluster(task)
        found = self._found.get(key)
        if found is None:
            ranked = []
            for name in sorted(self._whole):
                self.matched += 1
                if matches(task, self._whole[name]):
                    ranked.append((-rank(task, self._whole[name]), name))
            if len(self._found) >= _MOST_CLUSTERS:
                self._found.clear()
            found = self._found[key] = tuple(name for _, name in sorted(ranked))
        return found

    def explain(self, task: classad2.ClassAd) -> Explained:
        """Say which part of the requirements rejects which node."""
        clauses = []
        rejected_by_task: set[str] = set()
        for text in clauses_of(task.lookup("Requirements")) if "Requirements" in task else ():
            expression = classad2.ExprTree(text)
            rejected = [name for name, node in sorted(self._whole.items()) if not holds(expression, task, node)]
            undefined = [
                name for name in rejected if expression.eval(task, self._whole[name]) is classad2.Value.Undefined
            ]
            rejected_by_task.update(rejected)
            clauses.append(Clause(text, tuple(rejected), tuple(undefined)))
        able = self.candidates(task)
        refused = sorted(set(self._whole) - set(able) - rejected_by_task)
        return Explained(able, tuple(clauses), tuple(refused))

    def where(self, expression: classad2.ExprTree) -> tuple[str, ...]:
        """The nodes for which an expression about one ad holds, by name."""
        return tuple(name for name, node in sorted(self._whole.items()) if holds(expression, node))

    def _refresh(self) -> None:
        self._whole = {name: with_storage(node, self._stores) for name, node in self._nodes.items()}
        self._found.clear()
        names: set[str] = set()
        for node in self._nodes.values():
            names.update(_targets(node))
        self._significant = tuple(sorted(names))

    @staticmethod
    def _referred(task: classad2.ClassAd) -> tuple[str, ...]:
        """The task's own attributes that its expressions may refer to, also through one another."""
        left = [name for name in _OWN if name in task]
        own = {name.lower(): name for name in task}
        found: set[str] = set()
        while left:
            for word in _names_in(task.lookup(left.pop())):
                if word in own and own[word] not in found and own[word] not in _OWN:
                    found.add(own[word])
                    left.append(own[word])
        return tuple(sorted(found))


def _targets(ad: classad2.ClassAd) -> Iterable[str]:
    """The attributes of the other ad that an ad's expressions may refer to, in small letters."""
    for name in _OWN:
        if name in ad:
            yield from _names_in(ad.lookup(name))


def _names_in(value: object) -> set[str]:
    """The names in an expression. The library's own list of references depends on what it was asked before."""
    return {word.lower() for word in words(str(value)) if word.isidentifier()}
