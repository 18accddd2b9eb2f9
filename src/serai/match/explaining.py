"""Which nodes can run a task, which cannot and why not, and what would fit. Pure: needs and ads in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.describe.task import Needs
from serai.match.feasible import unknown_software, why_not
from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that might run a task.

    Attributes:
        ad: what it said at check-in.
        slots: tasks of one core that it may run at a time; 0 when nobody knows.
        memory_bytes: what tasks may use of it; 0 when nobody knows.
    """

    name: str
    ad: Mapping[str, Any]
    slots: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Who can run a task.

    Attributes:
        able: nodes that can.
        unable: (node, why not) pairs.
        unsure: (node, programs that nobody noted whether it has) pairs.
    """

    able: tuple[str, ...]
    unable: tuple[tuple[str, str], ...]
    unsure: tuple[tuple[str, tuple[str, ...]], ...]


def who_can(needs: Needs, candidates: Iterable[Candidate]) -> Fit:
    """Say of each node whether it can ever run a task."""
    able, unable, unsure = [], [], []
    for node in candidates:
        slots = node.slots or needs.cores
        reason = why_not(needs, node.ad, slots=slots, memory_bytes=node.memory_bytes)
        unknown = unknown_software(needs, node.ad)
        if reason:
            unable.append((node.name, reason))
        elif unknown:
            unsure.append((node.name, unknown))
        else:
            able.append(node.name)
    return Fit(tuple(able), tuple(unable), tuple(unsure))


def what_fits(needs: Needs) -> str:
    """Describe the least node that can run a task: ``at least 4 cores, samtools on its PATH``; "" when any can."""
    clauses = []
    if needs.cores > 1:
        clauses.append(f"at least {needs.cores} cores")
    if needs.memory_bytes:
        clauses.append(f"at least {format_bytes(needs.memory_bytes)} of memory")
    if needs.software:
        clauses.append(f"{', '.join(needs.software)} on its PATH")
    if needs.python:
        clauses.append(f"Python {'.'.join(map(str, needs.python))}")
    return ", ".join(clauses)


def needs_in(description: Mapping[str, Any]) -> Needs:
    """The needs that a work's description in a journal states; those of any task when it states none."""
    stated = description.get("needs") or {}
    return Needs(
        cores=int(stated.get("cores") or 1),
        memory_bytes=int(stated.get("memory_bytes") or 0),
        software=tuple(stated.get("software") or ()),
        python=tuple(stated.get("python") or ()),
        requirements=str(stated.get("requirements") or ""),
        rank=str(stated.get("rank") or ""),
    )
