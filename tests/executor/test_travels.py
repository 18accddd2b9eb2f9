"""The executor travels: source text, the standard library only, every Python from 3.8 on."""

from __future__ import annotations

import json
import operator
import pickle
import subprocess
from typing import TYPE_CHECKING

from serai.travel.boot import EXECUTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.executor.conftest import AgentHarness

LONGEST_ARGUMENT = 128 * 1024  # bytes, on Linux


def test_the_program_fits_into_one_argument() -> None:
    assert len(EXECUTOR.pipe_source()) < LONGEST_ARGUMENT - 8192


def test_it_compiles(python: str) -> None:
    program = (
        "import sys, json\n"
        "for name, text in json.load(sys.stdin).items():\n"
        "    compile(text, name, 'exec', dont_inherit=True)\n"
    )
    words = [python, "-W", "error", "-c", program]
    subprocess.run(words, input=json.dumps(EXECUTOR.sources()), text=True, timeout=60, check=True)


def test_it_runs_commands_and_functions(python: str, start: Callable[..., AgentHarness]) -> None:
    agent = start(python)
    ad = agent.hello(software=["sh", "no-such-program"])
    assert ad["python"][0] == 3
    assert ad["cores"] >= 1
    assert ad["memory_bytes"] > ad["memory_free_bytes"] > 0
    assert ad["system"] == "Linux"
    assert ad["software"] == {"sh": True, "no-such-program": False}

    ended = agent.shell("echo out; echo err >&2; exit 3")
    assert (ended.cause, ended.code, ended.out, ended.err) == (1, 3, b"out\n", b"err\n")

    work = agent.function(pickle.dumps(operator.mul, protocol=4))
    bundle, tasks = agent.calls(work, [pickle.dumps(((n, 2), {}), protocol=4) for n in range(5)], lane=1)
    results = agent.outcome(bundle).ended
    assert [pickle.loads(results[task].result) for task in tasks] == [0, 2, 4, 6, 8]

    agent.close()
    assert agent.process.returncode == 0
    assert not agent.said()
