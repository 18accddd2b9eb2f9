"""The examples run, and the two commands are what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERAI = [sys.executable, "-m", "serai"]


def test_the_survey_runs_and_its_report_is_worth_looking_at(tmp_path: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    sources = [str(library / name) for name in ("argparse.py", "difflib.py", "json/decoder.py", "json/encoder.py")]
    command = f"{sys.executable} {ROOT}/examples/survey.py {{in}} {{out:.json}}"
    done = subprocess.run(
        [*SERAI, "run", command, "--out", "json", *sources], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = [sys.executable, str(ROOT / "examples/survey_report.py"), str(tmp_path / "json")]
    said = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    assert said.lstrip().startswith("4 files")
    assert "difflib.py: " in said


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    program = code[1].replace("def simulate(seed: int) -> float: ...", "def simulate(seed):\n    return seed * 0.5")
    program = program.replace('"local:", "ssh://lab1", "ssh://lab2?slots=4"', '"local:"').replace("10_000", "1_000")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("one two\n")
    (tmp_path / "it.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "it.py"], cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.split() == ["249750.0", "2", "data/a.txt"], done.stderr


def test_the_two_commands_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("demo", "test"):
        assert f"$ ./{name}" in text
        assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / ".ci/run").read_text().split() == ["#!/bin/sh", "exec", "./test"]


def test_the_words_of_the_example_are_counted(tmp_path: Path) -> None:
    """With MRDL, as a clean clone has it; and every word is where it belongs."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples/texts").glob("*.txt"))]
    words = Counter(re.findall(r"[a-z0-9']+", "\n".join(texts).lower()))
    environment = {**os.environ, "SERAI_STATE": str(tmp_path / "state")}
    command = [*SERAI, "mapreduce", "examples/wordcount.xml", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [file.name for file in files] == ["part-00000", "part-00001"]
    lines = [line.split("\t") for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert {word: int(count) for word, count in lines} == words
    for file in files:
        keys = [line.partition("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()]
        assert keys == sorted(keys)
