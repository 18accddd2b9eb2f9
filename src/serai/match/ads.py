"""ClassAds: HTCondor's own, read from text and made from facts.

An ad is a `classad2.ClassAd`. Attribute names are HTCondor's where it has them: ``Memory`` and ``RequestMemory`` in
MiB, ``Cpus``, ``Disk`` in KiB, ``Arch``, ``OpSys``, ``Name``. Two things are added to the language, both by rewriting
what was written, so that the library evaluates all of it:

* ``HasSoftware("openmpi")`` asks whether the list ``Software`` of the other ad (or of this, where there is one only)
  has a member.
* ``ClockHour``, ``ClockMin`` and ``ClockDay`` of a node are of the moment of the match (`at`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import classad2

from serai.describe.ads.expressions import clauses_of, parse_expression, with_software
from serai.describe.ads.software import software_names
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "at", "clauses_of", "node_ad", "node_attributes", "parse_ad", "parse_expression", "request_ad", "stored_ad",
    "task_ad",
]  # fmt: skip

MIB = 1 << 20
_CLOCK = frozenset({"clockhour", "clockmin", "clockday"})


def parse_ad(text: str) -> classad2.ClassAd:
    """Reads an ad, in the new form (``[A = 1; B = 2]``) or the old one (a line for each attribute).

    Raises:
        UsageError: it is none.
    """
    kind = classad2.ParserType.New if text.lstrip().startswith("[") else classad2.ParserType.Old
    try:
        found = classad2.parseOne(with_software(text, "TARGET."), kind)
        if len(found) or not text.strip(" \t\r\n[]"):
            return found
        error: Exception | None = None  # the parser passes over lines that it cannot read
    except classad2.ClassAdException as caught:
        error = caught
    raise UsageError(
        f"not a ClassAd: {text.strip()[:60]!r}", hint='for example: [Name = "n1"; Memory = 4000]'
    ) from error


def node_attributes(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the ad of a node says, but for what its site adds: plain values.

    Args:
        name: its name.
        facts: what it said at check-in (`serai.travel.executor.facts`).
    """
    gpus, disks = list(facts.get("gpus") or ()), facts.get("disks") or ()
    return {
        "MyType": "Machine",
        "Name": name,
        "Machine": str(facts.get("host", name)),
        "Cpus": int(facts.get("slots") or facts.get("cores", 0)),
        "TotalCpus": int(facts.get("cores", 0)),
        "Memory": int(facts.get("memory_bytes", 0)) // MIB,
        "Disk": int(facts.get("disk_free_bytes", 0)) // 1024,
        "Arch": str(facts.get("machine", "")).upper(),
        "OpSys": str(facts.get("system", "")).upper(),
        "Python": ".".join(str(part) for part in facts.get("python", ())[:2]),
        "Software": software_names(facts.get("software", {})),
        "Gpus": len(gpus),
        "GpuNames": gpus,
        "Disks": [str(one["name"]) for one in disks],
        "TotalDisk": sum(int(one["bytes"]) for one in disks) // 1024,
        "SolidState": any(not one["turns"] for one in disks),
    }


def node_ad(name: str, facts: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> classad2.ClassAd:
    """The ad of a node.

    Args:
        name: its name.
        facts: what it said at check-in, and what its site says of it: ``requirements``, ``attributes``,
            ``nearest_storage``, ``community``.
        extra: further attributes; text that begins with ``=`` is an expression, such as ``NearestStorage``.
    """
    ad = _extended(classad2.ClassAd(node_attributes(name, facts)), facts.get("attributes") or {})
    for key, attribute in (("nearest_storage", "NearestStorage"), ("community", "Community")):
        if facts.get(key):
            _extended(ad, {attribute: facts[key]})
    if facts.get("requirements"):
        ad["Requirements"] = parse_expression(str(facts["requirements"]), own=_own(ad) | _CLOCK)
    return _extended(ad, extra or {})


def stored_ad(attributes: Mapping[str, Any]) -> classad2.ClassAd:
    """An ad as the advert service keeps it: plain values, and texts that begin with ``=`` for expressions.

    What no ClassAd can have is left out, and what only looks like an expression stays a text: others wrote it.
    """
    ad = classad2.ClassAd()
    for name, value in attributes.items():
        if value is None or not name.isidentifier():
            continue
        try:
            _extended(ad, {name: value})
        except UsageError:
            ad[name] = value
    return ad


def request_ad(needs: Any, facts: Mapping[str, Any]) -> classad2.ClassAd:
    """The ad of tasks with some needs, whose cores, memory and the like are looked at elsewhere.

    Args:
        needs: see `serai.describe.task.Needs`.
        facts: further attributes, such as ``Owner``.
    """
    ad = classad2.ClassAd({
        "MyType": "Job",
        "RequestCpus": needs.cores,
        "RequestMemory": -(-needs.memory_bytes // MIB),
        **facts,
    })  # fmt: skip
    if needs.requirements:
        ad["Requirements"] = parse_expression(needs.requirements, own=_own(ad))
    if needs.rank:
        ad["Rank"] = parse_expression(needs.rank, own=_own(ad))
    return ad


def task_ad(
    needs: Any, *, requirements: str | None = None, rank: str | None = None, extra: Mapping[str, Any] | None = None
) -> classad2.ClassAd:
    """The ad of a task.

    Args:
        needs: see `serai.describe.task.Needs`; becomes clauses of ``Requirements`` before the user's own.
        requirements: which nodes (and their stores) will do.
        rank: which of them is best: the highest number.
        extra: further attributes, as for `node_ad`.
    """
    clauses = [f"TARGET.Cpus >= {needs.cores}"]
    if needs.memory_bytes:
        clauses.append(f"TARGET.Memory >= {-(-needs.memory_bytes // MIB)}")
    clauses += [f"member({classad2.quote(name)}, TARGET.Software)" for name in needs.software]
    if needs.python:
        clauses.append(f'TARGET.Python == "{".".join(map(str, needs.python))}"')
    if requirements:
        parse_expression(requirements)
        clauses.append(f"({requirements})")
    ad = classad2.ClassAd(
        {
            "MyType": "Job",
            "RequestCpus": needs.cores,
            "RequestMemory": -(-needs.memory_bytes // MIB),
            "Requirements": parse_expression(" && ".join(clauses)),
        }
    )
    if rank:
        ad["Rank"] = parse_expression(rank)
    return _extended(ad, extra or {})


def at(ad: classad2.ClassAd, now: datetime) -> classad2.ClassAd:
    """A copy of a node's ad with the moment in it: policies by the hour refer to ``ClockHour`` and the like."""
    copy = classad2.ClassAd()
    copy.update(ad)
    copy["ClockHour"], copy["ClockMin"], copy["ClockDay"] = (
        now.hour,
        now.hour * 60 + now.minute,
        (now.weekday() + 1) % 7,
    )
    return copy


def _own(ad: classad2.ClassAd) -> set[str]:
    return {name.lower() for name in ad}


def _extended(ad: classad2.ClassAd, extra: Mapping[str, Any]) -> classad2.ClassAd:
    for key, value in extra.items():
        ad[key] = parse_expression(value[1:]) if isinstance(value, str) and value.startswith("=") else value
    return ad
