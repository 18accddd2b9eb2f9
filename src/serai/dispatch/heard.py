"""What nodes say, looked at before anybody goes by it: a node that says nonsense is lost, and nothing else. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CORES = 1_000_000
_CAUSES = frozenset(int(cause) for cause in Cause)
_INTEGERS = frozenset({int})  # and not bool
_PARALLEL = ("at", "took")  # numbers, one for each task
_ODD = ("exit", "rss")  # the same, left out where they are as usual, and null where there is none


def check_ad(ad: Mapping[str, Any]) -> None:
    """What a node says when it checks in.

    Raises:
        ValueError: it makes no sense.
        KeyError: something is missing.
    """
    if not 0 < _whole(ad["cores"]) <= MOST_CORES or _whole(ad.get("memory_bytes", 0)) < 0:
        raise ValueError("a node has cores and memory")
    if not isinstance(ad.get("software", {}), dict):
        raise ValueError("software is told by name")  # noqa: TRY004 - as all of this


def lanes_of(head: Mapping[str, Any]) -> dict[int, tuple[int, float]]:
    """What a heartbeat says of lanes: the task that each runs, and for how many seconds.

    Raises:
        ValueError: it makes no sense.
    """
    lanes = head.get("lanes", {})
    if not isinstance(lanes, dict) or not isinstance(head.get("reach") or {}, dict):
        raise ValueError("lanes and places are told by name")  # noqa: TRY004 - as all of this
    found = {}
    for lane, (task, took_s) in lanes.items():
        if not math.isfinite(took_s):
            raise ValueError("a task has run for a time")
        found[int(lane)] = (_whole(task), float(took_s))
    return found


def check_report(head: Mapping[str, Any], body_bytes: int) -> None:
    """How tasks of a bundle ended: parallel lists.

    Args:
        head: of the frame.
        body_bytes: how much came with it.

    Raises:
        ValueError: it makes no sense.
    """
    ids = head.get("ids", [])
    count = len(ids)
    for numbers in (ids, head.get("returned", [])):
        if not _INTEGERS.issuperset(map(type, numbers)):
            raise ValueError("tasks have numbers")
    for name in _PARALLEL:
        _check_list(head.get(name, [] if not count else None), count, name)
    for name in _ODD:
        if head.get(name):
            _check_list([one or 0 for one in head[name]], count, name)
    causes = head.get("cause")
    if causes and (len(causes) != count or not _CAUSES.issuperset(causes)):
        raise ValueError("there is no such cause")
    _check_sizes(head.get("sizes"), count, body_bytes)
    for name in ("detail", "files"):
        if not all(0 <= int(index) < count for index in head.get(name, {})):
            raise ValueError(f"{name} of no task")


def _check_list(values: Any, count: int, name: str) -> None:
    if not isinstance(values, list) or len(values) != count or not _INTEGERS.issuperset(map(type, values)):
        raise ValueError(f"{name} is not a number for each task")


def _check_sizes(sizes: Any, count: int, body_bytes: int) -> None:
    if not sizes:
        return
    total = 0
    for out, err, result in sizes:
        if min(out, err, result) < 0:
            raise ValueError("a size is below nothing")
        total += out + err + result
    if len(sizes) != count or total != body_bytes:
        raise ValueError(f"{body_bytes} bytes came with a report of {total}")


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{str(value)[:50]!r} is no number")
    return value


__all__ = ["check_ad", "check_report", "lanes_of"]
