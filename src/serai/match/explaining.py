"""Which nodes can run a task, which cannot and why not, and what would fit. Pure: needs and ads in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.describe.task import Needs
from serai.match.feasible import unknown_software, why_not
from serai.match.matching import Matching
from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.match.clauses import Refusal


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
        refused: (node, clauses of expressions that keep it and the task apart) pairs.
    """

    able: tuple[str, ...]
    unable: tuple[tuple[str, str], ...]
    unsure: tuple[tuple[str, tuple[str, ...]], ...]
    refused: tuple[tuple[str, tuple[Refusal, ...]], ...] = ()


def who_can(needs: Needs, candidates: Iterable[Candidate], matching: Matching | None = None, now: float = 0.0) -> Fit:
    """Say of each node whether it can ever run a task.

    Args:
        needs: of the task.
        candidates: the nodes.
        matching: answers for expressions; it is told of the nodes.
        now: for policies by the hour, as `matching` knows it.
    """
    matching = matching or Matching()
    able, unable, unsure, refused = [], [], [], []
    for node in candidates:
        matching.put_node(node.name, node.ad)
        slots = node.slots or needs.cores
        reason = why_not(needs, node.ad, slots=slots, memory_bytes=node.memory_bytes)
        known = node.ad.get("software", {})
        unknown = (*unknown_software(needs, node.ad), *(one for one in matching.software(needs) if one not in known))
        apart = () if reason or unknown else tuple(matching.refusals(needs, node.name, now))
        if reason:
            unable.append((node.name, reason))
        elif unknown:
            unsure.append((node.name, unknown))
        elif apart:
            refused.append((node.name, apart))
        else:
            able.append(node.name)
    return Fit(tuple(able), tuple(unable), tuple(unsure), tuple(refused))


@dataclass(frozen=True, slots=True)
class Wish:
    """A clause that keeps a task and nodes apart.

    Attributes:
        clause: as people write it.
        of: ``task``: of the task's requirements; ``node``: of the nodes' own.
        false: nodes for which it does not hold.
        lacking: nodes that do not say what it refers to.
        instead: what there is instead: ``the largest Memory here is 2048``.
        by_clock: it may hold later.
    """

    clause: str
    of: str
    false: tuple[str, ...]
    lacking: tuple[str, ...]
    instead: str
    by_clock: bool


def wishes(fit: Fit, ads: Sequence[Any]) -> list[Wish]:
    """The clauses that keep a task and nodes apart, each once.

    Args:
        fit: see `who_can`.
        ads: of all nodes that are there.
    """
    from serai.match.clauses import as_written, nearest_value  # noqa: PLC0415 - most tasks have no expressions

    by_clause: dict[tuple[str, str], list[tuple[str, Refusal]]] = {}
    for node, refused in fit.refused:
        for one in refused:
            by_clause.setdefault((one.of, one.clause), []).append((node, one))
    return [
        Wish(
            as_written(clause),
            of,
            tuple(node for node, one in found if not one.undefined),
            tuple(node for node, one in found if one.undefined),
            nearest_value(clause, ads) if of == "task" else ", ".join(f"{n} is {v}" for n, v in found[0][1].found if v),
            any(one.period_s for _, one in found),
        )
        for (of, clause), found in by_clause.items()
    ]


def would_fit(fit: Fit) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(clauses that would have to be dropped, nodes that would fit then), for the fewest clauses."""
    from serai.match.clauses import relaxations  # noqa: PLC0415 - most tasks have no expressions

    return relaxations(dict(fit.refused))


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
