"""The experiment of the communities: what the policies of the source come to, and auto beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serai.match.movement import Links, Way
from serai.sim.studies.communities import AUTO, MIXED_RULES, RULES, UW, Rule, mixed, published
from serai.sim.studies.community_prices import Home, Load, decide
from serai.sim.studies.community_world import CommunityOutcome, run_rule


@pytest.fixture(scope="module")
def found() -> dict[str, CommunityOutcome]:
    scene = published()
    return {rule.name: run_rule(scene, rule) for rule in (*RULES, AUTO)}


def test_all_seven_policies_run_all_jobs(found: dict[str, CommunityOutcome]) -> None:
    assert len(found) == 8
    assert all(sum(one.ran.values()) == 300 for one in found.values())
    assert found["INFN local"].ran == {"INFN local": 300}
    assert found["UW remote"].ran == {"UW remote": 300}


def test_completion_is_what_a_hand_computes(found: dict[str, CommunityOutcome]) -> None:
    # 300 jobs of 128 s on 30 machines; of 160 s on 100; 6 GB through 10 Mb/s; 300 MB through it before the jobs
    assert found["INFN local"].completion_s == pytest.approx(10 * 128, rel=0.05)
    assert found["UW local"].completion_s == pytest.approx(3 * 160, rel=0.10)
    assert found["UW remote"].completion_s == pytest.approx(300 * 21e6 / 1.25e6, rel=0.05)
    assert found["UW stage first"].completion_s == pytest.approx(found["UW local"].completion_s + 240, rel=0.02)


def test_bytes_between_the_communities(found: dict[str, CommunityOutcome]) -> None:
    moved = {name: one.wan_bytes / 1e6 for name, one in found.items()}
    assert moved["INFN local"] == moved["UW local"] == moved["INFN local, UW local"] == 0
    assert moved["UW stage first"] == moved["INFN local, UW stage"] == moved["auto"] == 300
    assert moved["UW remote"] == 300 * 21


def test_locality_used_well_gains_at_least_what_was_published(found: dict[str, CommunityOutcome]) -> None:
    alone, both = found["INFN local"], found["INFN local, UW local"]
    assert alone.completion_s >= 2.5 * both.completion_s
    assert found["UW remote"].completion_s >= 2.5 * found["INFN local, UW stage"].completion_s
    assert found["UW remote"].cpu_efficiency < 0.2
    assert both.cpu_efficiency > 0.9


def test_auto_is_within_five_percent_of_the_best_named_policy(found: dict[str, CommunityOutcome]) -> None:
    staged = min(found[rule.name].completion_s for rule in RULES if not rule.before)
    assert found["auto"].completion_s <= 1.05 * staged
    there = run_rule(published(), AUTO, (UW.store,))
    assert there.completion_s <= 1.05 * min(found[rule.name].completion_s for rule in RULES)


def test_auto_beats_every_rule_on_a_mixed_load() -> None:
    scene = mixed()
    auto = run_rule(scene, AUTO)
    others = [run_rule(scene, rule) for rule in MIXED_RULES]
    assert all(auto.completion_s < 0.9 * one.completion_s for one in others)


@pytest.mark.parametrize("rate", [1e6, 10e6, 100e6, 1e9])
def test_auto_holds_at_other_rates_between_the_communities(rate: float) -> None:
    scene = replace(published(), wan_bytes_s=rate / 8)
    best = min(run_rule(scene, rule).completion_s for rule in RULES if not rule.before)
    assert run_rule(scene, AUTO).completion_s <= 1.05 * best


def test_the_same_again() -> None:
    assert run_rule(mixed(0.2), AUTO) == run_rule(mixed(0.2), AUTO)


def test_a_rule_that_lets_jobs_run_nowhere_says_so() -> None:
    with pytest.raises(ValueError, match="'nowhere' leaves 300 jobs waiting"):
        run_rule(published(), Rule("nowhere", "TARGET.Mips > 1000"))


def price_case(waiting: int, *, has: bool, to_come: float | None = None) -> Way | None:
    load = Load(waiting, 300_000_000, 20_000_000, 96_000.0, shared=True, origin="a", readers=0, link_share=0.0)
    homes = [
        Home("a", [100.0] * 30, 750, 12.5e6, has=True, to_come=None, store_share=0.0),
        Home("b", [0.0] * 100, 600, 12.5e6, has=has, to_come=to_come, store_share=0.0),
    ]
    return decide(load, homes, "b", Links(1.25e6, 0.1)).way


def test_the_choice_for_a_free_machine() -> None:
    assert price_case(270, has=False) is Way.STAGE  # hundreds share what is paid for once
    assert price_case(2, has=False) is Way.READ  # two read 40 MB
    assert price_case(270, has=True) is Way.HERE
    assert price_case(40, has=False, to_come=1e6) is Way.STAGE  # it is nearly there
