"""May a task run on a node at all?"""

from __future__ import annotations

from typing import Any

import pytest

from serai.describe.task import Needs
from serai.match.feasible import unknown_software, why_not

AD: dict[str, Any] = {"python": (3, 12, 1), "software": {"gcc": True, "blast": False}}


@pytest.mark.parametrize(
    "needs",
    [Needs(), Needs(cores=4), Needs(memory_bytes=1000), Needs(software=("gcc",)), Needs(python=(3, 12))],
)
def test_it_may(needs: Needs) -> None:
    assert why_not(needs, AD, slots=4, memory_bytes=1000) is None


@pytest.mark.parametrize(
    ("needs", "word"),
    [
        (Needs(cores=5), "5 cores"),
        (Needs(memory_bytes=1001), "memory"),
        (Needs(software=("gcc", "blast")), "blast"),
        (Needs(python=(3, 11)), "3.11"),
    ],
)
def test_it_may_not_and_the_reason_is_told(needs: Needs, word: str) -> None:
    assert word in (why_not(needs, AD, slots=4, memory_bytes=1000) or "")


def test_what_nobody_knows_is_no_reason() -> None:
    assert why_not(Needs(memory_bytes=10**15), AD, slots=1, memory_bytes=0) is None
    assert why_not(Needs(software=("make",)), AD, slots=1, memory_bytes=0) is None
    assert unknown_software(Needs(software=("make", "gcc")), AD) == ("make",)
    assert why_not(Needs(python=(3, 12)), {}, slots=1, memory_bytes=0) is not None
