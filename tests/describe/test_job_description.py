from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serai.describe.job import Description, State, Status, split_id, whole_id
from serai.errors import UsageError


def test_final_states_are_those_after_which_nothing_changes() -> None:
    assert {state for state in State if state.final} == {State.DONE, State.FAILED, State.CANCELED}


def test_arguments_become_a_tuple_of_texts() -> None:
    assert Description("x", ["a", 1]).arguments == ("a", "1")  # type: ignore[arg-type]
    assert hash(Description("x", ("a",), environment={"A": "1"})) == hash(Description("x", ("a",)))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"executable": ""}, "executable"),
        ({"executable": "x", "arguments": "one text"}, "arguments"),
        ({"executable": "x", "environment": {"A=B": "1"}}, "A=B"),
        ({"executable": "x", "environment": {"": "1"}}, "environment"),
        ({"executable": "x", "arguments": ("a\0b",)}, "zero byte"),
        ({"executable": "x", "interactive": True, "input": "in"}, "interactive"),
        ({"executable": "x", "output_limit_bytes": -1}, "output_limit_bytes"),
        ({"executable": "x", "wall_time_limit_s": 0}, "wall_time_limit_s"),
        ({"executable": "x", "wall_time_limit_s": float("nan")}, "wall_time_limit_s"),
    ],
)
def test_what_cannot_be_a_job_is_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Description(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["queue", "project", "total_cpu_count", "processes_per_host", "candidate_hosts"])
def test_attributes_that_are_not_honoured_are_named(name: str) -> None:
    value: Any = ("lab1",) if name == "candidate_hosts" else 4
    one = replace(Description("x"), **{name: value})
    with pytest.raises(UsageError, match=f"ssh: cannot honour {name}="):
        one.refuse_others({"executable"}, "ssh:")
    one.refuse_others({"executable", name}, "ssh:")


def test_identifiers_are_taken_apart() -> None:
    whole = whole_id("ssh://me@[fe80::1]:2222", "k3w0-q_9")
    assert whole == "[ssh://me@[fe80::1]:2222]-[k3w0-q_9]"
    assert split_id(whole) == ("ssh://me@[fe80::1]:2222", "k3w0-q_9")
    assert split_id("k3w0q9") == (None, "k3w0q9")


@pytest.mark.parametrize("text", ["", "../x", "a/b", "[ssh://x]-[]", "[ssh://x]-[a/b]", "x" * 65, "a b", "a\n"])
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not the identifier"):
        split_id(text)


def test_what_a_host_says_becomes_a_status() -> None:
    facts = {"id": "a", "state": "FAILED", "code": 3, "argv": ["x", "y"], "cwd": "/", "started": 1.5, "later": "news"}
    status = Status.from_host(facts)
    assert (status.state, status.exit_code, status.command, status.started) == (State.FAILED, 3, ("x", "y"), 1.5)
    assert (status.error, status.ended) == (None, None)
