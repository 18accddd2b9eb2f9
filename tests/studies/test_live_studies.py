"""The live studies, very small, on real hosts: they run to their end, and count what they should."""

from __future__ import annotations

import pytest

from serai.cli.study import live_communities, live_diffusion
from serai.match.movement import Policy
from serai.sim.studies.communities import RULES

pytestmark = pytest.mark.lab


@pytest.mark.usefixtures("lab_factory")  # where no laboratory can be had, it skips
def test_live_diffusion_moves_each_file_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_diffusion, "FILES", 6)
    monkeypatch.setattr(live_diffusion, "FILE_BYTES", 2_000_000)
    told: list[str] = []
    report = live_diffusion.live_diffusion(1, say=told.append, policies=[Policy.MAX_CACHE_HIT, Policy.AUTO])
    once, auto = report.runs
    assert (once.tasks, once.least_bytes) == (30, 12_000_000)
    assert once.least_bytes <= once.link_bytes < 1.5 * once.least_bytes
    assert auto.link_bytes < 4 * auto.least_bytes  # where tasks are slow, since others use this machine, it copies more
    assert ["auto" in line for line in told] == [False, True]
    assert "auto" in "\n".join(report.lines())


@pytest.mark.timeout(400)  # two appliances and eight mounts start on what may be a busy machine
@pytest.mark.usefixtures("lab_factory")
def test_live_communities_read_through_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_communities, "JOBS", 8)
    monkeypatch.setattr(live_communities, "COMPUTE_S", {"nestore.bologna": 0.4, "nestore.madison": 0.4})
    monkeypatch.setattr(live_communities, "READ_BYTES", 1_000_000)
    monkeypatch.setattr(live_communities, "FILE_BYTES", 4_000_000)
    rules = [rule for rule in RULES if rule.name == "UW remote"]
    (remote,) = live_communities.live_communities(1, say=lambda _line: None, rules=rules).runs
    assert remote.ran == {"lab1": 0, "lab2": 8}
    assert remote.wan_bytes > 8 * 700_000  # of what a job reads twice, one part comes from its mount's memory


@pytest.mark.timeout(180)  # as above
@pytest.mark.usefixtures("lab_factory")
def test_auto_needs_no_more_than_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_communities, "JOBS", 12)
    monkeypatch.setattr(live_communities, "COMPUTE_S", {"nestore.bologna": 0.8, "nestore.madison": 0.8})
    monkeypatch.setattr(live_communities, "READ_BYTES", 1_000_000)
    monkeypatch.setattr(live_communities, "FILE_BYTES", 4_000_000)
    (auto,) = live_communities.live_communities(1, say=lambda _line: None, rules=[live_communities.AUTO]).runs
    assert sum(auto.ran.values()) == 12
    assert auto.wan_bytes < 12_000_000  # what all jobs read there would be more with each of them
