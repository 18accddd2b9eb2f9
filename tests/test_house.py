"""The rules of the house, as tests: they may become stricter, never looser."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import serai

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PATTERNS = ("*.md", "docs/**/*.md", "src/**/*", "tests/**/*.py", "tools/*", "examples/*", "benchmarks/**/*.py")
NOT_OURS = {"__pycache__", ".envs", "out"}
TEXTS = [
    path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file() and not NOT_OURS & set(path.parts)
]

MOST_LINES = 600
MOST_LINES_OF_FUNCTION = 70
MOST_MODULES = 12
NO_SUCH_NAMES = {"utils", "util", "helpers", "common", "manager", "core", "misc"}
PUBLIC = [
    "Context",
    "Description",
    "Future",
    "Item",
    "JobService",
    "MapReduceResult",
    "Needs",
    "Options",
    "Outcome",
    "Pool",
    "Session",
    "__version__",
    "files",
]
AGENT = ROOT / "src/serai/travel/executor"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_FUNCTION
    ]
    assert not long


def test_folders_are_small_and_modules_have_names_that_say_something() -> None:
    for folder in {path.parent for path in SOURCES}:
        modules = [path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", "__main__"}]
        assert len(modules) <= MOST_MODULES, folder
        assert not NO_SUCH_NAMES & set(modules), folder


def test_no_two_tests_have_one_name() -> None:
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)


def test_what_is_public_is_listed() -> None:
    assert sorted(serai.__all__) == sorted(PUBLIC)
    for one in PUBLIC:
        assert getattr(serai, one) is not None


def test_asking_for_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonesuch"):
        serai.nonesuch  # noqa: B018 - the access is the test


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_words_that_only_this_machine_or_today_would_know(path: Path) -> None:
    if path.suffix in {".png", ".svg", ".pyc"} or path == Path(__file__):
        return
    text = path.read_text(errors="replace")
    found = re.findall(r"/root/\.pyenv|/work/|\bTO" r"DO\b|\bFIX" r"ME\b|\bXX" r"X\b", text)
    assert not found


def test_nothing_below_the_rim_asks_the_system_for_the_time() -> None:
    """The pure rooms take time and randomness as parameters."""
    pure = [ROOT / "src/serai/match", ROOT / "src/serai/describe", ROOT / "src/serai/sim"]
    modules = [path for folder in pure for path in folder.rglob("*.py")]
    modules += [path for path in (ROOT / "src/serai/dispatch").rglob("*.py") if path.stem in
                {"machine", "placing", "judging", "records", "bundles", "sites", "events"}]  # fmt: skip
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in {"time.time", "time.monotonic", "random.random", "os.getpid"}, f"{path}: {called}"


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it: these are what tests submit."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def test_tests_do_not_sleep_and_hope() -> None:
    """Sleeping is for loops that look for a condition, each with a deadline."""
    for path in TESTS:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                nodes = list(own_nodes(function))
                calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
                loops = [node for node in nodes if isinstance(node, ast.While | ast.For)]
                assert "time.sleep" not in calls or loops, f"{path}: {function.name} sleeps outside of a loop"


def test_the_agent_imports_the_standard_library_only() -> None:
    for path in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for one in names:
                assert one.partition(".")[0] in sys.stdlib_module_names or one == "cloudpickle", f"{path}: {one}"
