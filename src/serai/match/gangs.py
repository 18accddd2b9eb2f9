"""Gangs: several nodes (and stores) that must fit one request and one another, as an MPI cluster's must.

A request has *ports*, each with a label and requirements of its own, which may refer to what was taken for the ports
before it: ``head.Subnet == TARGET.Subnet``. The idea is that of Raman, Livny and Solomon, "Policy Driven Heterogeneous
Resource Co-Allocation with Gangmatching" (2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import classad2

from serai.errors import UsageError
from serai.match.bilateral import matches, rank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Port", "match_gang"]


@dataclass(frozen=True, slots=True)
class Port:
    """One member of a gang that is wanted.

    Attributes:
        label: by which later ports refer to what was taken.
        ad: its request: ``Requirements`` and ``Rank`` over the candidate (``TARGET``) and earlier labels.
        kind: whose ads may fill it, such as ``node`` or ``store``.
    """

    label: str
    ad: classad2.ClassAd
    kind: str = "node"


def match_gang(
    ports: Sequence[Port], offers: Mapping[str, Mapping[str, classad2.ClassAd]], *, most_steps: int = 100_000
) -> dict[str, str] | None:
    """Fill every port with another offer, or say that it cannot be done.

    The best candidate of each port is tried first, and others when a later port cannot be filled.

    Args:
        ports: in the order in which they are filled.
        offers: ads by kind and name.
        most_steps: candidates that are looked at before it is given up.

    Returns:
        The name for each label; None when no combination fits.

    Raises:
        UsageError: a label is given twice, or the search was given up.
    """
    if len({port.label for port in ports}) != len(ports):
        raise UsageError("two ports of a gang have one label")
    taken: dict[str, str] = {}
    steps = 0

    def fill(n: int) -> bool:
        nonlocal steps
        if n == len(ports):
            return True
        port = ports[n]
        request = classad2.ClassAd()
        request.update(port.ad)
        for earlier in ports[:n]:
            request[earlier.label] = offers[earlier.kind][taken[earlier.label]]
        used = {(one.kind, taken[one.label]) for one in ports[:n]}
        ranked = []
        for name, offer in sorted(offers.get(port.kind, {}).items()):
            steps += 1
            if steps > most_steps:
                raise UsageError(
                    f"no gang was found among the first {most_steps} candidates",
                    hint="give the ports that fewest offers fit first, and requirements that need no later port",
                )
            if (port.kind, name) not in used and matches(request, offer):
                ranked.append((-rank(request, offer), name))
        for _, name in sorted(ranked):
            taken[port.label] = name
            if fill(n + 1):
                return True
            del taken[port.label]
        return False

    return dict(taken) if fill(0) else None
