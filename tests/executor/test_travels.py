"""The executor travels: source text, the standard library only, every Python from 3.8 on."""

from __future__ import annotations

import ast
import json
import operator
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.travel import frames
from serai.travel.boot import EXECUTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.executor.conftest import AgentHarness

LONGEST_ARGUMENT = 128 * 1024  # bytes, on Linux


def test_every_module_of_the_agent_travels() -> None:
    folder = Path(frames.__file__).parent / "executor"
    assert {f"executor.{one.stem}" for one in folder.glob("*.py")} - {"executor.__init__"} == {
        one for one in EXECUTOR.modules if one.startswith("executor.")
    }


def siblings(name: str, node: ast.ImportFrom) -> set[str]:
    """The modules that a relative import names."""
    above = name.split(".")[: -node.level]
    below = [node.module] if node.module else [one.name for one in node.names]
    found = {".".join([*above, one]) for one in below}
    if {one.partition(".")[0] for one in EXECUTOR.modules} >= found and not found & set(EXECUTOR.modules):  # a folder
        return {f"{folder}.{one.name}" for folder in found for one in node.names}
    return found


@pytest.mark.parametrize("name", EXECUTOR.modules)
def test_it_imports_the_standard_library_and_its_siblings_only(name: str) -> None:
    wanted = {"cloudpickle"} if name == "executor.functions" else set()  # where it is missing, it is sent
    for node in ast.walk(ast.parse(EXECUTOR.sources()[name])):
        if isinstance(node, ast.Import):
            tops = {one.name.partition(".")[0] for one in node.names}
            assert tops <= sys.stdlib_module_names | wanted
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert siblings(name, node) <= set(EXECUTOR.modules)


def test_modules_are_loaded_after_what_they_import() -> None:
    """The loader runs them in order; nothing finds a sibling that was not run."""
    for n, name in enumerate(EXECUTOR.modules):
        for node in ast.parse(EXECUTOR.sources()[name]).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert siblings(name, node) <= set(EXECUTOR.modules[:n])


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
