"""Expressions of tasks and nodes as the schedule asks for them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import inf
from typing import Any

import classad2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.describe.task import Needs
from serai.match.ads import node_ad, request_ad
from serai.match.matching import Matching

BOLOGNA = {"MyType": "Storage", "Name": "nestore.bologna", "HasCMSData": True}
DATA = Needs(
    requirements="TARGET.NearestStorage.HasCMSData",
    rank='TARGET.NearestStorage.Name == "nestore.bologna" ? 10 : 0',
)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC).timestamp()


def facts(gib: int = 4, **more: Any) -> dict[str, Any]:
    return {"cores": 4, "memory_bytes": gib << 30, "python": [3, 11, 2], "software": {"ompi_info": True}, **more}


def test_where_nobody_says_anything_all_may_come_together() -> None:
    matching = Matching()
    matching.put_node("a", facts())
    assert matching.judge(Needs(cores=64), "a", 0.0).why == ""
    assert matching.matched == 0
    assert matching.look_at == inf


@pytest.mark.parametrize("needs", [DATA, Needs(requirements="NearestStorage.HasCMSData", rank=DATA.rank[7:])])
def test_the_policies_of_the_source_run_as_written_through_the_store_a_node_names(needs: Needs) -> None:
    matching = Matching(stores={"nestore.bologna": BOLOGNA, "wisc": {"Name": "wisc", "HasCMSData": True}})
    for name, store in {"infn": "nestore.bologna", "uw": "wisc"}.items():
        matching.put_node(name, facts(nearest_storage=store))
    matching.put_node("none", facts())
    assert [matching.judge(needs, name, 0.0).rank for name in ("infn", "uw")] == [10.0, 0.0]
    assert matching.judge(needs, "uw", 0.0).why == ""
    answer = matching.judge(needs, "none", 0.0)
    assert answer.why.endswith("and this node says no NearestStorage")
    assert answer.for_now, "the one nearest to it may be found"
    assert matching.tick(15.0)
    assert not matching.judge(needs, "none", 15.0).for_now
    assert matching.put_stores({}, {"none": "wisc"})
    assert matching.judge(needs, "none", 16.0).why == ""


def test_a_store_whose_ad_is_not_there_is_waited_for_and_not_for_ever() -> None:
    matching = Matching(patience_s=100.0)
    matching.put_node("a", facts(nearest_storage="late"))
    matching.put_node("b", facts(nearest_storage="never"))
    assert matching.judge(DATA, "a", 5.0).for_now
    assert matching.judge(DATA, "b", 6.0).for_now
    assert matching.look_at == 105.0
    assert matching.put_stores({"late": {"Name": "late", "HasCMSData": True}})
    assert not matching.put_stores({"late": {"Name": "late", "HasCMSData": True}}), "nothing new"
    assert matching.judge(DATA, "a", 7.0).why == ""
    assert not matching.tick(105.0)
    assert matching.tick(106.0)
    assert matching.judge(DATA, "b", 106.0).why
    assert not matching.judge(DATA, "b", 106.0).for_now
    assert matching.look_at == inf
    assert matching.put_stores({"late": None})
    assert matching.judge(DATA, "a", 107.0).for_now


def test_policies_by_the_hour_are_looked_at_again_when_the_hour_changes() -> None:
    matching = Matching()
    night = Needs(requirements="TARGET.ClockHour >= 22 || TARGET.ClockHour < 6")
    matching.put_node("a", facts())
    now = MIDNIGHT + 21.5 * 3600
    assert matching.judge(night, "a", now).for_now
    assert matching.look_at == now + 1800
    assert not matching.tick(now + 1799)
    assert matching.tick(now + 1800)
    assert matching.judge(night, "a", now + 1800).why == ""
    assert matching.look_at == now + 5400
    matching.put_node("b", facts(requirements="MY.ClockMin < 23 * 60 + 1"))
    assert matching.judge(Needs(), "b", now + 1801).why == ""
    assert matching.look_at == now + 1860, "by the minute, from now on"


def test_what_a_node_says_of_itself_may_go_by_the_hour() -> None:
    matching = Matching()
    matching.put_node("a", facts(attributes={"Open": "=ClockHour > 20"}))
    at_nine, later = MIDNIGHT + 9 * 3600, MIDNIGHT + 21 * 3600
    needs = Needs(requirements="TARGET.Open")
    assert matching.judge(needs, "a", at_nine).for_now
    assert matching.tick(later)
    assert matching.judge(needs, "a", later).why == ""


def test_a_node_may_take_the_tasks_of_some_only() -> None:
    for owner, taken in {"ann": True, "bob": False}.items():
        matching = Matching({"Owner": owner})
        matching.put_node("hers", facts(requirements='TARGET.Owner == "ann"'))
        answer = matching.judge(Needs(), "hers", 0.0)
        assert (answer.why == "") is taken
        assert taken or "the node requires" in answer.why
        assert taken or 'Owner is "bob"' in answer.why


def test_software_is_known_by_its_programs() -> None:
    matching = Matching()
    needs = Needs(requirements='HasSoftware("openmpi") && Memory > 1000')
    assert matching.software(needs) == ("openmpi", "ompi_info")
    matching.put_node("a", facts())
    assert matching.judge(needs, "a", 0.0).why == ""
    matching.put_node("a", facts(software={"ompi_info": False, "openmpi": False}))
    assert 'HasSoftware("openmpi")' in matching.judge(needs, "a", 0.0).why


TEXTS = st.sampled_from(
    ["TARGET.Memory > 3000", "Memory > 5000", "TARGET.Mips", "TARGET.NearestStorage.Free > 5", "undefined", "true",
     'TARGET.NearestStorage.Name == "s"', "TARGET.Mips == 3 || TARGET.Nope", "error", "TARGET.RequestCpus == MY.Mips"]
)  # fmt: skip
NEEDS = st.builds(Needs, cores=st.integers(1, 3), requirements=st.one_of(st.just(""), TEXTS), rank=TEXTS)
NODES = st.fixed_dictionaries({
    "memory_bytes": st.integers(1, 8).map(lambda gib: gib << 30), "cores": st.just(2), "software": st.just({}),
    "attributes": st.fixed_dictionaries({"Mips": st.integers(0, 4)}),
    "nearest_storage": st.sampled_from(["", "s", "t", "gone"]), "requirements": st.one_of(st.just(""), TEXTS),
})  # fmt: skip
STORES = st.dictionaries(st.sampled_from(["s", "t"]), st.fixed_dictionaries({"Free": st.integers(0, 10)}))


@given(st.lists(NEEDS, min_size=1, max_size=6), st.lists(NODES, min_size=1, max_size=5), STORES, STORES)
@settings(max_examples=150, deadline=None)
def test_what_is_remembered_is_what_the_library_says_of_each_pair(
    works: list[Needs], nodes: list[dict[str, Any]], stores: dict[str, Any], later: dict[str, Any]
) -> None:
    matching = Matching(stores={name: {"Name": name, **ad} for name, ad in stores.items()})
    for n, node in enumerate(nodes):
        matching.put_node(str(n), node)
    for known in (stores, {**stores, **later}):
        matching.put_stores({name: {"Name": name, **ad} for name, ad in known.items()})
        for needs in works:
            for n, node in enumerate(nodes):
                offer, near = node_ad(str(n), {**node, "nearest_storage": ""}), node["nearest_storage"]
                if near:
                    ad = {"Name": near, **known[near]} if near in known else None
                    offer["NearestStorage"] = classad2.Value.Undefined if ad is None else classad2.ClassAd(ad)
                task = request_ad(needs, {})
                answer = matching.judge(needs, str(n), 0.0)
                for one in (task, offer):  # the library wants both to have them
                    if "Requirements" not in one:
                        one["Requirements"] = True
                assert (answer.why == "") == task.symmetricMatch(offer)
                if not answer.why:
                    value = task.lookup("Rank").eval(task, offer)
                    expected = 0.0 if isinstance(value, classad2.Value | str) else float(value)
                    assert answer.rank == (expected if needs.requirements or needs.rank else 0.0)


def test_a_hundred_thousand_tasks_of_twenty_kinds_match_a_thousand_nodes_in_seconds() -> None:
    matching = Matching()
    nodes = [f"n{n}" for n in range(1000)]
    for n, name in enumerate(nodes):
        matching.put_node(name, facts(n % 16 + 1, attributes={"Mips": n}))
    kinds = [Needs(requirements=f"TARGET.Memory > {kind * 500}", rank="TARGET.Mips") for kind in range(20)]
    began = time.thread_time()  # of a processor: what else this machine does is not counted
    for number in range(100_000):
        kind = kinds[number % 20]
        if number < 20:
            for name in nodes:
                matching.judge(kind, name, 0.0)
        else:
            matching.judge(kind, nodes[number % 1000], 0.0)
    assert time.thread_time() - began < 10.0
    assert matching.matched == 20_000


def test_a_text_without_quotes_is_told_from_an_attribute_that_is_missing() -> None:
    matching = Matching()
    matching.put_node("lab1", {"cores": 1})
    for text in ("Name == lab1", "Name == 'lab1'", "lab1 != Name"):
        answer = matching.judge(Needs(requirements=text), "lab1", 0.0)
        assert "says no lab1" in answer.why
        assert answer.why.endswith('(a text stands in double quotes: "lab1")') == (text[:4] == "Name"), answer.why
    plain = matching.judge(Needs(requirements="Mips > 4"), "lab1", 0.0)
    assert plain.why.endswith("says no Mips")
