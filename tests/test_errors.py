"""The errors carry their facts."""

from __future__ import annotations

import pickle

from serai.errors import HostUnreachable, TaskFailed


def test_an_error_says_host_command_tried_and_hint() -> None:
    error = HostUnreachable(
        "no answer within 10 s", host="lab1", command="ssh lab1", tried=("once at 10:00",), hint="look at its power"
    )
    assert str(error).splitlines() == [
        "lab1: no answer within 10 s",
        "  command: ssh lab1",
        "  tried: once at 10:00",
        "  hint: look at its power",
    ]
    assert error.transient


def test_an_error_survives_pickling_with_its_facts() -> None:
    error = TaskFailed("exit code 3", host="lab1", hint="read its log")
    error.exit_code = 3
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.exit_code, type(again)) == (str(error), 3, TaskFailed)
