"""What travels: a program and all that it imports when it runs, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from serai.travel import boot

HOME = Path(boot.__file__).parent
PROGRAMS = {
    "executor": boot.EXECUTOR.sources(),
    "porter": boot.PORTER.sources(),
    "shuttle": boot.SHUTTLE.sources(),
    "steward": boot.STEWARD.sources(),
    "worker": boot.WORKER.sources(),
    "mount": boot.sources("mount.wrap"),
}
PARTS = [(program, name) for program, sources in PROGRAMS.items() for name in sources if name != "loader"]


class Imports(ast.NodeVisitor):
    """What a module imports when it runs."""

    def __init__(self, name: str) -> None:
        self.name, self.here, self.abroad = name, set[str](), set[str]()

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.abroad |= {one.name.partition(".")[0] for one in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self.abroad.add((node.module or "").partition(".")[0])
            return
        above = [*self.name.split(".")[: -node.level], *(node.module.split(".") if node.module else [])]
        of_package = HOME.joinpath(*above).is_dir()
        self.here |= {".".join([*above, one.name] if of_package else above) for one in node.names}


@pytest.mark.parametrize(("program", "name"), PARTS)
def test_all_that_it_imports_travels_with_it(program: str, name: str) -> None:
    text = PROGRAMS[program][name]
    imports = Imports(name)
    imports.visit(ast.parse(text, feature_version=boot.OLDEST))
    assert imports.here <= PROGRAMS[program].keys()
    wanted = {"cloudpickle"} if name == "executor.functions" else set()  # where it is missing, it is sent
    if name.startswith("mapreduce."):
        wanted = {"pyarrow"}  # used where it is
    assert imports.abroad <= sys.stdlib_module_names | wanted


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_else_travels(program: str) -> None:
    """Every part is there because another imports it, or begins."""
    begins = {
        "executor": {"executor.agent", "executor.lane"},
        "porter": {"porter.serve"},
        "shuttle": {"copying.shuttle"},
    }
    begins |= {"steward": {"steward"}, "worker": {"mapreduce.worker"}, "mount": {"mount.wrap"}}
    found, sources = set(begins[program]), PROGRAMS[program]
    for name, text in sources.items():
        imports = Imports(name)
        imports.visit(ast.parse(text))
        found |= imports.here
    assert found == sources.keys() - {"loader"}


def test_imports_may_take_several_lines_and_those_for_types_are_none() -> None:
    text = "from .. import (\n    frames,\n    peers as others,\n)\nfrom .wire import (\n    BYE,\n)\n"
    text += "if TYPE_CHECKING:\n    from .store import Store\n\n\ndef later() -> None:\n    from ..mount import tasks\n"
    found = set(boot._imported("executor.agent", text, lambda name: name == "executor.wire"))
    assert found == {"frames", "peers", "executor.wire", "mount.tasks"}


@pytest.mark.parametrize("folder", ["executor", "porter"])
def test_every_module_of_a_folder_travels(folder: str) -> None:
    there = {f"{folder}.{one.stem}" for one in (HOME / folder).glob("*.py")} - {f"{folder}.__init__"}
    assert there == {name for name in PROGRAMS[folder] if name.startswith(f"{folder}.")}


def test_what_is_loaded_later_is_found_and_a_traceback_shows_its_lines() -> None:
    parcel = {
        "loader": boot.LOADER,
        "one": "def begin():\n    from .room import two\n    from .room.deep import three\n    return two, three\n",
        "room.two": "from ..one import begin\n",
        "room.deep.three": "from ..two import begin\ndef fail():\n    raise ValueError('here')\n",
    }
    found: dict[str, object] = {}
    before, known = list(sys.meta_path), set(sys.modules)
    try:
        exec(boot.LOADER, found)  # noqa: S102 - as on a node
        one = found["load"](parcel, "one")  # type: ignore[operator]
        two, three = one.begin()
        assert two.begin is three.begin is one.begin
        with pytest.raises(ModuleNotFoundError, match=r"serai_travel\.four"):
            __import__("serai_travel.four")
        with pytest.raises(ValueError, match="here") as failed:
            three.fail()
        assert "raise ValueError('here')" in "".join(traceback.format_exception(failed.value))
    finally:
        sys.meta_path[:] = before
        for name in set(sys.modules) - known:
            del sys.modules[name]


def test_a_program_in_a_file_is_given_its_argument(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(boot.script("mount.wrap"))
    words = [sys.executable, "-IS", str(script), str(tmp_path / "no-such-setup.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "no-such-setup.json" in done.stderr
