"""What nodes say, looked at before anybody goes by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.dispatch.heard import check_ad, check_report, lanes_of
from serai.travel.executor.bundle import Report

ENDED = st.tuples(st.integers(1, 99), st.integers(0, 11), st.none() | st.integers(-9, 255), st.binary(max_size=3))
NONSENSE = (ValueError, LookupError, TypeError, AttributeError)  # for which a carrier gives its node up


@given(st.lists(ENDED, max_size=5))
def test_what_a_lane_reports_makes_sense(ended: list[tuple[int, int, int | None, bytes]]) -> None:
    report = Report(0, -1, lambda: None)
    for task, cause, code, out in ended:
        why, outputs = ("why" if cause else None), ([1] if out else None)
        report.add(task, cause, code, 1e9, 0.5, 100 * cause, (out, b"", out), why, outputs)
    check_report(json.loads(json.dumps(report.head())), len(b"".join(report.parts)))


@pytest.mark.parametrize(
    "change",
    [
        {"ids": ["1", 2]}, {"ids": 7}, {"at": [1]}, {"took": [1, None]}, {"took": None}, {"cause": [0, 99]},
        {"cause": [3]}, {"exit": [0]}, {"exit": ["x", 0]}, {"rss": [1.5, 2]}, {"sizes": [[1, 1, 1], [0, 0, 0]]},
        {"sizes": [[-1, 1, 4], [0, 0, 0]]}, {"sizes": [[4, 0]]}, {"detail": {"2": "x"}},
        {"files": {"-1": []}}, {"returned": [None]},
    ],
)  # fmt: skip
def test_a_report_that_makes_none_is_refused(change: dict[str, Any]) -> None:
    head: dict[str, Any] = {"ids": [1, 2], "at": [5, 6], "took": [7, 8], "sizes": [[2, 1, 0], [1, 0, 0]]}
    check_report(head, 4)
    with pytest.raises(NONSENSE):
        check_report(head | change, 4)


def test_a_heartbeat_says_what_lanes_run() -> None:
    assert lanes_of({"lanes": {"0": [17, 1.5], "3": [18, 0]}}) == {0: (17, 1.5), 3: (18, 0.0)}
    assert lanes_of({}) == {}


@pytest.mark.parametrize(
    "head", [{"lanes": []}, {"lanes": {"x": [1, 2]}}, {"lanes": {"0": [1]}}, {"lanes": {"0": [1, float("nan")]}},
             {"lanes": {"0": ["1", 0.5]}}, {"reach": [1]}],
)  # fmt: skip
def test_a_heartbeat_that_makes_no_sense_is_refused(head: dict[str, Any]) -> None:
    with pytest.raises(NONSENSE):
        lanes_of(head)


@pytest.mark.parametrize("ad", [{}, {"cores": 0}, {"cores": "2"}, {"cores": 1, "memory_bytes": -1}, {"cores": 1 << 40}])
def test_a_node_without_cores_does_not_check_in(ad: dict[str, Any]) -> None:
    check_ad({"cores": 2, "memory_bytes": 5, "software": {"R": True}})
    with pytest.raises(NONSENSE):
        check_ad(ad)
