"""What is said of inputs: how they came, and what the other ways would have cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.match.movement import Way
from serai.quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.match.movement import Candidate, Move, Price

MOST_TOLD = 5  # inputs of one task, of which a note says how they came
AT_FIRST, PER_S = 500, 10.0  # tasks whose prices are noted
SHARE = 0.05  # of the time, at most, for that
LEAST_S = 0.0005  # a wait that is shorter is none
MOST_NODES = 5  # that a task might have been sent to, of which a note tells


class Allowance:
    """How often something may be done that is only told: often at first, then seldom, and for little of the time."""

    def __init__(self) -> None:
        self._left = float(AT_FIRST)
        self._seen = 0.0
        self._at = float("-inf")

    def may(self, now: float) -> bool:
        """Whether it may be done now."""
        self._left = min(float(AT_FIRST), self._left + max(0.0, now - self._seen) * PER_S)
        self._seen = now
        return self._left >= 1 and now >= self._at

    def did(self, began: float, ended: float) -> None:
        """It was done."""
        self._left -= 1
        self._at = ended + (ended - began) / SHARE - (ended - began)


def joined(ways: Sequence[str]) -> str:
    """How inputs came, of which there may be many."""
    more = f" and {len(ways) - MOST_TOLD} more" if len(ways) > MOST_TOLD else ""
    return "; ".join(ways[:MOST_TOLD]) + more


def read_words(read_bytes: int, size: int, took_s: float, source: str = "") -> str:
    """How much of a file was read from afar, and from where if that was not this machine."""
    where = f" from {source}" if source else ""
    return f"read from afar{where}: {format_bytes(read_bytes)} of {format_bytes(size)} in {took_s:.1f} s"


def prices(node: str, task_files: Iterable[int], moves: Sequence[Move], candidates: Sequence[Candidate]) -> list[str]:
    """What a task's inputs were thought to cost, a line for each node; the first is the one that it was sent to.

    Args:
        node: that one.
        task_files: that the task reads.
        moves: how those of its bundle come there.
        candidates: the nodes that fit it, the cheapest first.
    """
    files = set(task_files)
    ways: dict[tuple[Way, str], list[float]] = {}
    for move in moves:
        if move.file in files:
            ways.setdefault((move.way, move.source), []).append(move.price_s)
    others = [one for one in candidates if one.node != node]
    lines = [f"{node}, where it was sent: {_ways(0.0, ways)}"]
    lines += [f"{one.node}: {_ways(one.wait_s, _by_way(one.prices))}" for one in others[: MOST_NODES - 1]]
    more = len(others) - (MOST_NODES - 1)
    return lines + ([f"and {more} more, none of them cheaper"] if more > 0 else [])


def _by_way(found: Mapping[int, Price]) -> dict[tuple[Way, str], list[float]]:
    ways: dict[tuple[Way, str], list[float]] = {}
    for price in found.values():
        ways.setdefault((price.way, price.source), []).append(price.total_s)
    return ways


def _ways(wait_s: float, ways: Mapping[tuple[Way, str], Sequence[float]]) -> str:
    """A price and its parts."""
    parts = [f"a lane is free in {format_seconds(wait_s)}"] if wait_s >= LEAST_S else []
    for (way, source), each_s in sorted(ways.items()):
        what = "it is" if len(each_s) == 1 else f"{len(each_s)} files are"
        if way == Way.HERE:
            parts.append(f"{what} there")
        else:
            how = "copied" if way == Way.STAGE else "read from afar"
            parts.append(f"{what} {how} from {source or 'this machine'} in {format_seconds(sum(each_s))}")
    return f"{format_seconds(wait_s + sum(map(sum, ways.values())))} ({'; '.join(parts)})"
