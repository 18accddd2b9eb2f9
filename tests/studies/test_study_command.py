"""`serai study`: what it prints, draws and refuses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from serai.cli.main import serai
from serai.cli.study import figures, tables
from serai.errors import UsageError
from serai.sim.studies.published import DIFFUSION, MIXED, simulate

if TYPE_CHECKING:
    from pathlib import Path

TRACE = {
    "name": "one",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {"tasks": [{"name": "a", "id": "a", "parents": [], "children": []}], "files": []},
        "execution": {"makespanInSeconds": 3, "tasks": [{"id": "a", "runtimeInSeconds": 2}]},
    },
}


def invoke(*words: str) -> str:
    done = CliRunner().invoke(serai, ["study", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_communities_prints_all_policies_and_draws_the_two_figures(tmp_path: Path) -> None:
    text = invoke("communities", "--figures", str(tmp_path))
    for name in ("INFN local, UW stage", "UW remote", "auto, nothing staged", "auto, UW has the data"):
        assert name in text
    assert re.search(r"gains 2\.\d\d times", text)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(drawn) == {"communities-completion.svg", "communities-efficiency.svg", "communities-mixed.svg"}
    assert all("<svg" in one and "INFN" in one for one in drawn.values())
    invoke("communities", "--figures", str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == drawn


def test_communities_as_json() -> None:
    told = json.loads(invoke("communities", "--quick", "--json"))
    assert told["gain"] >= 2.5
    assert len(told["runs"]) == 9
    assert all(one["completion_s"] > 0 for one in told["mixed"])


def test_the_tables_and_figures_of_diffusion(tmp_path: Path) -> None:
    chosen = [setting for setting in DIFFUSION if setting.cache_bytes == 4 * 10**9]
    runs = [(setting, simulate(setting, 1, 1 / 32)) for setting in chosen]
    mixed = [(setting, simulate(setting, 1, 1 / 32)) for setting in MIXED[-2:]]
    report = tables.DiffusionReport(runs, mixed, quick=True, took_s=1.0)
    text = "\n".join(report.lines())
    assert re.search(r"max-cache-hit +4 GB +2,888 s +[12],\d\d\d s", text)
    figures.diffusion(str(tmp_path), report)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"diffusion-summary.svg", "diffusion-timelines.svg", "diffusion-mixed.svg"}
    assert "max-compute-util" in (tmp_path / "diffusion-timelines.svg").read_text()
    assert json.loads(json.dumps(report.as_json()))["runs"][0]["published_s"] == 5011.0


def test_replay_prints_a_row_for_each_policy(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(TRACE))
    text = invoke("replay", str(path), "--policy", "all", "--nodes", "1")
    assert "1 tasks; it took 3 s where it was recorded" in text
    assert len(re.findall(r"2\.0 s", text)) == 6
    told = json.loads(invoke("replay", str(path), "--json"))
    assert told["runs"][0]["completion_s"] == 2.0


def test_replay_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(TRACE))
    runner = CliRunner()
    with pytest.raises(UsageError, match="'best' is no policy"):
        runner.invoke(serai, ["study", "replay", str(path), "--policy", "best"], catch_exceptions=False)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        runner.invoke(serai, ["study", "replay", str(tmp_path / "none.json")], catch_exceptions=False)


def test_figures_without_matplotlib_are_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        figures.check()
    assert "serai[study]" in str(caught.value)
