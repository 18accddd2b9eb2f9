"""May a task run on a node at all? Pure: needs and an ad in, a reason out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.describe.task import Needs


MOST_NAMED = 8  # nodes in a sentence


def unknown_software(needs: Needs, ad: Mapping[str, Any]) -> tuple[str, ...]:
    """Programs the node was never asked about."""
    known = ad.get("software", {})
    return tuple(name for name in needs.software if name not in known)


def why_not(needs: Needs, ad: Mapping[str, Any], *, slots: int, memory_bytes: int) -> str | None:
    """Say why a task can never run on a node, or None where it can.

    Args:
        needs: what the task needs.
        ad: what the node said at check-in; "software" maps names of programs to whether they are there.
        slots: tasks of one core that the node may run at a time.
        memory_bytes: what tasks may use of the node; 0 when nobody knows.
    """
    if needs.cores > slots:
        return f"it needs {needs.cores} cores and this node has {slots}"
    if memory_bytes and needs.memory_bytes > memory_bytes:
        return f"it needs {format_bytes(needs.memory_bytes)} of memory and this node has {format_bytes(memory_bytes)}"
    missing = [name for name in needs.software if ad.get("software", {}).get(name) is False]
    if missing:
        return f"it needs {', '.join(missing)}, which this node does not have"
    if needs.python:
        version = tuple(ad.get("python", ()))[:2]
        if version != needs.python:
            wanted, there = (".".join(map(str, one)) for one in (needs.python, version))
            return f"it is a function of Python {wanted} and this node has Python {there or 'of an unknown version'}"
    return None


def why_nowhere(reasons: Sequence[str]) -> str:
    """One sentence of why no node at all can run a task, from "node: why" of each."""
    words = "; ".join(reasons[:MOST_NAMED])
    more = f"; and {len(reasons) - MOST_NAMED} nodes more" if len(reasons) > MOST_NAMED else ""
    return f"no node of the pool can run it: {words}{more}"
