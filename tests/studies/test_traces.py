"""Traces of workflows: what is read, what is refused, and what a replay of them comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serai.errors import UsageError
from serai.match.movement import Policy
from serai.sim.studies.replay import Nodes, replay
from serai.sim.studies.traces import read_trace

MB = 1_000_000
FILES = {"in": 125 * MB, "x": 250 * MB, "y": 125 * MB, "z": 125 * MB, "out": 0}
TASKS: list[tuple[str, float, list[str], list[str], list[str]]] = [
    ("a", 10, [], ["in"], ["x"]),
    ("b", 20, ["a"], ["x"], ["y"]),
    ("c", 30, ["a"], ["x"], ["z"]),
    ("d", 5, ["b", "c"], ["y", "z"], ["out"]),
]


def new(version: str = "1.5") -> dict[str, Any]:
    """A diamond, in the form of versions 1.5 and 1.6."""
    return {
        "name": "diamond",
        "schemaVersion": version,
        "workflow": {
            "specification": {
                "tasks": [
                    {"name": n, "id": n, "parents": p, "children": [], "inputFiles": i, "outputFiles": o}
                    for n, _, p, i, o in TASKS
                ],
                "files": [{"id": name, "sizeInBytes": size} for name, size in FILES.items()],
            },
            "execution": {
                "makespanInSeconds": 70,
                "executedAt": "2020-04-01T15:10:53-08:00",
                "tasks": [{"id": n, "runtimeInSeconds": r} for n, r, *_ in TASKS],
            },
        },
    }


def old() -> dict[str, Any]:
    """The same, in the form of version 1.4."""
    return {
        "name": "diamond",
        "schemaVersion": "1.4",
        "workflow": {
            "makespanInSeconds": 70,
            "executedAt": "20200401T151053-0800",
            "tasks": [
                {
                    "name": n,
                    "id": n,
                    "type": "compute",
                    "parents": p,
                    "children": [],
                    "runtimeInSeconds": r,
                    "files": [{"link": "input", "name": one, "sizeInBytes": FILES[one]} for one in i]
                    + [{"link": "output", "name": one, "sizeInBytes": FILES[one]} for one in o],
                }
                for n, r, p, i, o in TASKS
            ],
        },
    }


def test_every_version_reads_alike() -> None:
    traces = [read_trace(json.dumps(one), "t.json") for one in (old(), new(), new("1.6"))]
    assert traces[0].tasks == traces[1].tasks == traces[2].tasks
    assert dict(traces[0].sizes) == dict(traces[1].sizes) == FILES
    assert traces[0].tasks[3].parents == (1, 2)
    assert traces[0].makespan_s == 70


def broken(path: str, value: Any) -> str:
    """The diamond with one value replaced, or taken out when that is None."""
    whole = new()
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = whole
    for step in steps:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(whole)


SPEC = "workflow.specification"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schemaVersion", "1.2", "t.json: schemaVersion: '1.2' is not one of 1.4, 1.5, 1.6"),
        ("schemaVersion", None, "t.json: schemaVersion: it is missing"),
        ("workflow", [], "t.json: workflow is no object"),
        ("workflow.execution", None, "t.json: workflow.execution: it is missing"),
        (f"{SPEC}.tasks", {}, "t.json: workflow.specification.tasks: it is no list"),
        (f"{SPEC}.tasks", [], "t.json: workflow.tasks: there is none"),
        (f"{SPEC}.tasks.1.parents", "a", r"t.json: workflow.specification.tasks\[1\].parents: it is no list of texts"),
        (f"{SPEC}.tasks.1.parents", ["q"], "t.json: workflow.tasks: 'b' has the parent 'q', which is no task"),
        (f"{SPEC}.tasks.0.parents", ["d"], "t.json: workflow.tasks: 'a' waits for itself"),
        (f"{SPEC}.tasks.1.id", "a", "t.json: workflow.tasks: two tasks have one id"),
        (f"{SPEC}.tasks.1.inputFiles", ["q"], r"tasks\[1\].inputFiles: 'q' is not among"),
        (f"{SPEC}.files.2.sizeInBytes", -1, r"t.json: workflow.specification.files\[2\].sizeInBytes: -1 is no number"),
        (f"{SPEC}.files.2.sizeInBytes", 1.5, r"files\[2\].sizeInBytes: 1.5 is no whole number"),
        ("workflow.execution.tasks.0.id", "q", r"tasks\[0\].id: 'a' is not among workflow.execution.tasks"),
        ("workflow.execution.tasks.0.runtimeInSeconds", True, r"tasks\[0\].runtimeInSeconds: True is no number"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_trace(broken(path, value), "t.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", '{"schemaVersion": "1.5", "name": "x"}'])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"t\.json"):
        read_trace(text, "t.json")


LINK = Nodes(count=1, cores=2, link_bytes_s=125e6, latency_s=0.0)


def test_a_diamond_by_hand() -> None:
    trace = read_trace(json.dumps(new()), "t.json")
    # in comes (1 s), a runs (10), x goes home (2); b and c find x here: c runs (30), z goes home (1); d runs (5)
    kept = replay(trace, Policy.AUTO, LINK)
    assert kept.completion_s == pytest.approx(1 + 10 + 2 + 30 + 1 + 5)
    assert kept.from_front_end_bytes == 125 * MB
    assert kept.here_bytes == (2 * 250 + 2 * 125) * MB
    assert kept.moved_bytes == (125 + 250 + 125 + 125) * MB
    # Without caches x comes twice over one link: b begins at 15, c at 17 and ends at 47; then z, y and z again, d
    blind = replay(trace, Policy.FIRST_AVAILABLE, LINK)
    assert blind.completion_s == pytest.approx(1 + 10 + 2 + 4 + 30 + 1 + 2 + 5)
    assert blind.here_bytes == 0
    assert blind.from_front_end_bytes == (125 + 2 * 250 + 2 * 125) * MB


def test_one_core_runs_one_task_after_the_other() -> None:
    trace = read_trace(json.dumps(new()), "t.json")
    nodes = Nodes(count=1, cores=1, link_bytes_s=1e15, latency_s=0.0)
    assert replay(trace, Policy.AUTO, nodes).completion_s == pytest.approx(65)
    assert replay(trace, Policy.AUTO, nodes).run_core_s == 65


def test_a_cache_that_holds_nothing_moves_everything() -> None:
    trace = read_trace(json.dumps(new()), "t.json")
    tiny = replay(trace, Policy.AUTO, Nodes(count=1, cores=2, cache_bytes=1, latency_s=0.0))
    assert tiny.completion_s == replay(trace, Policy.FIRST_AVAILABLE, LINK).completion_s


def test_a_task_that_no_node_has_the_cores_for_is_named() -> None:
    whole = new()
    whole["workflow"]["execution"]["tasks"][3]["coreCount"] = 2.5
    trace = read_trace(json.dumps(whole), "t.json")
    with pytest.raises(UsageError, match="'d' takes 3 cores, and a node has 2"):
        replay(trace, Policy.AUTO, LINK)
    assert replay(trace, Policy.AUTO, Nodes(cores=3)).completion_s > 0


@pytest.mark.parametrize("policy", list(Policy))
def test_a_wide_workflow_ends_under_every_policy_and_the_same_again(policy: Policy) -> None:
    whole = new()
    whole["workflow"]["specification"]["tasks"] = [
        {"name": "t", "id": f"t{n}", "parents": [f"t{n % 7}"] if n >= 7 else [], "inputFiles": ["in", "x"][: 1 + n % 2]}
        for n in range(200)
    ]
    whole["workflow"]["execution"]["tasks"] = [
        {"id": f"t{n}", "runtimeInSeconds": 1 + n % 5, "coreCount": 1 + n % 2} for n in range(200)
    ]
    trace = read_trace(json.dumps(whole), "t.json")
    nodes = Nodes(count=3, cores=4, cache_bytes=300 * MB)
    first, second = replay(trace, policy, nodes), replay(trace, policy, nodes)
    assert first == second
    work_s = sum((1 + n % 5) * (1 + n % 2) for n in range(200))
    assert work_s / 12 < first.completion_s < work_s
