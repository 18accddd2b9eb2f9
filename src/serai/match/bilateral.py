"""Two-way and three-way matching: task and node, and the store that the node refers to.

A node's ``NearestStorage`` names a store's ad, or says by an expression which store is meant. Before a match the
reference is replaced by that ad, so that ``TARGET.NearestStorage.HasCMSData`` reaches it: the three-way matching of
Thain, Bent, Arpaci-Dusseau, Arpaci-Dusseau and Livny, "Gathering at the Well: Creating Communities for Grid I/O"
(2001).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import classad2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["holds", "matches", "rank", "with_storage"]

REFERENCE = "NearestStorage"


def with_storage(node: classad2.ClassAd, stores: Mapping[str, classad2.ClassAd]) -> classad2.ClassAd:
    """The node's ad with the ad of its store in it; without one that is there, ``NearestStorage`` is undefined.

    Args:
        node: its ``NearestStorage`` is a store's name, or an expression that holds for the store that is meant: ``MY.``
            is the node, ``TARGET.`` the store. Of several the one whose name comes first is taken.
        stores: by name.
    """
    reference = node.lookup(REFERENCE) if REFERENCE in node else None
    if reference is None:
        return node
    name = node.eval(REFERENCE)
    store: classad2.ClassAd | None = None
    if isinstance(name, classad2.ClassAd):
        store = name
    elif isinstance(name, str):
        store = stores.get(name)
    elif isinstance(reference, classad2.ExprTree):
        store = next((stores[one] for one in sorted(stores) if reference.eval(node, stores[one]) is True), None)
    copy = classad2.ClassAd()
    copy.update(node)
    copy[REFERENCE] = classad2.Value.Undefined if store is None else store
    return copy


def holds(expression: classad2.ExprTree, scope: classad2.ClassAd, target: classad2.ClassAd | None = None) -> bool:
    """Whether an expression is true; undefined and erroneous ones are not, nor are numbers other than 0 false."""
    value = expression.eval(scope, target)
    if isinstance(value, classad2.Value):
        return False
    return bool(value) if isinstance(value, int | float) else False


def matches(task: classad2.ClassAd, node: classad2.ClassAd) -> bool:
    """Whether each meets the other's ``Requirements``; an ad without them takes everything."""
    return all(
        "Requirements" not in one or holds(_expression(one, "Requirements"), one, other)
        for one, other in ((task, node), (node, task))
    )


def rank(task: classad2.ClassAd, node: classad2.ClassAd) -> float:
    """How much the task wants the node; 0 where its ``Rank`` is no number there."""
    if "Rank" not in task:
        return 0.0
    value = _expression(task, "Rank").eval(task, node)
    if isinstance(value, classad2.Value) or not isinstance(value, int | float):
        return 0.0
    return float(value)


def best(task: classad2.ClassAd, nodes: Sequence[classad2.ClassAd]) -> list[int]:
    """The positions of the nodes that match, the best first; those of equal rank in their order."""
    able = [n for n, node in enumerate(nodes) if matches(task, node)]
    return sorted(able, key=lambda n: -rank(task, nodes[n]))


def _expression(ad: classad2.ClassAd, name: str) -> classad2.ExprTree:
    found = ad.lookup(name)
    return found if isinstance(found, classad2.ExprTree) else classad2.ExprTree(str(found))
