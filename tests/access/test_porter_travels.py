"""The porter travels: the standard library only, every Python from 3.8 on; and jobs run on each."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from serai.access import porter
from serai.access.jobs import Description, JobService, State
from serai.travel import frames
from serai.travel.boot import PORTER


def test_every_module_of_the_porter_travels() -> None:
    folder = Path(frames.__file__).parent / "porter"
    assert {f"porter.{one.stem}" for one in folder.glob("*.py")} - {"porter.__init__"} == {
        one for one in PORTER.modules if one.startswith("porter.")
    }


def siblings(name: str, node: ast.ImportFrom) -> set[str]:
    """The modules that a relative import names."""
    above = name.split(".")[: -node.level]
    below = [node.module] if node.module else [one.name for one in node.names]
    found = {".".join([*above, one]) for one in below}
    if node.module and not found <= set(PORTER.modules):  # a package: what is imported from it are modules
        found = {".".join([*above, node.module, one.name]) for one in node.names}
    return found


@pytest.mark.parametrize("name", PORTER.modules)
def test_it_imports_the_standard_library_and_what_was_loaded_before(name: str) -> None:
    before = set(PORTER.modules[: PORTER.modules.index(name)])
    module = ast.parse(PORTER.sources()[name])
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            assert {one.name.partition(".")[0] for one in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            loaded = before if node in module.body else set(PORTER.modules)
            wanted = {f"{one}.{part.name}" for one in siblings(name, node) - loaded for part in node.names}
            assert wanted <= loaded  # what is no module is a folder that modules are taken from


def test_it_compiles(python: str) -> None:
    program = (
        "import sys, json\n"
        "for name, text in json.load(sys.stdin).items():\n"
        "    compile(text, name, 'exec', dont_inherit=True)\n"
    )
    words = [python, "-W", "error", "-c", program]
    subprocess.run(words, input=json.dumps(PORTER.sources()), text=True, timeout=60, check=True)


def test_jobs_run_on_it(python: str) -> None:
    service = JobService("local:", python=f"{python} -W error")
    jobs = service.run_jobs(["echo $SERAI_JOB; echo wrong >&2; exit 3", "sleep 1000"])
    assert jobs[0].stdout.read().decode().strip() == jobs[0].last_id
    assert jobs[0].stderr.read() == b"wrong\n"
    assert jobs[0].wait(60) is State.FAILED
    assert jobs[0].exit_code == 3
    jobs[1].suspend()
    assert jobs[1].state is State.SUSPENDED
    jobs[1].cancel()
    assert jobs[1].status().state is State.CANCELED
    spoken = service.run_job(Description("cat", interactive=True))
    spoken.stdin.write(b"abc")
    spoken.stdin.close()
    assert spoken.stdout.read() == b"abc"
    assert [job.last_id for job in service.list()] == [job.last_id for job in [*jobs, spoken]]
    porter.close_all()
