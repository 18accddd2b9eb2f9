from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serai.match.communities import Closeness, Community, Grouping, Rules, communities, group

RULES = Rules(stay_s=60.0, busy_s=60.0, idle_s=10.0)
NEAR, FAR = Closeness(0.001), Closeness(0.02)
TWO = {
    **{(f"uw{n}", "wisc"): NEAR for n in range(4)}, **{(f"uw{n}", "bologna"): FAR for n in range(4)},
    **{(f"infn{n}", "bologna"): NEAR for n in range(4)}, **{(f"infn{n}", "wisc"): FAR for n in range(4)},
}  # fmt: skip


def test_nodes_join_the_store_that_is_nearest() -> None:
    found = communities(group(Grouping(), TWO, {}, 0.0, RULES), ["empty"])
    assert found == [
        Community("bologna", ("infn0", "infn1", "infn2", "infn3")),
        Community("empty", ()),
        Community("wisc", ("uw0", "uw1", "uw2", "uw3")),
    ]


def test_a_rate_that_is_known_counts_more_than_a_short_way() -> None:
    measured = {("n", "thin"): Closeness(0.001, 1e5), ("n", "fat"): Closeness(0.02, 1e9)}
    assert group(Grouping(), measured, {}, 0.0).home == {"n": "fat"}


def test_rates_count_only_where_all_are_known() -> None:
    measured = {("n", "read"): Closeness(0.001, 1e5), ("n", "never"): Closeness(0.02)}
    assert group(Grouping(), measured, {}, 0.0).home == {"n": "read"}, "what was measured is not held against it"


def test_a_node_stays_until_another_store_is_clearly_nearer_and_for_a_while() -> None:
    first = group(Grouping(), {("n", "a"): Closeness(0.010), ("n", "b"): Closeness(0.011)}, {}, 0.0, RULES)
    assert first.home == {"n": "a"}
    little = {("n", "a"): Closeness(0.010), ("n", "b"): Closeness(0.008)}
    much = {("n", "a"): Closeness(0.010), ("n", "b"): Closeness(0.001)}
    assert group(first, little, {}, 100.0, RULES).home == {"n": "a"}
    assert group(first, much, {}, 59.0, RULES).home == {"n": "a"}
    assert group(first, much, {}, 60.0, RULES).home == {"n": "b"}
    gone = {("n", "b"): Closeness(0.5)}
    assert group(first, gone, {}, 1.0, RULES).at == {"n": "b"}, "its store is not there any more"


def test_a_busy_store_lends_half_of_its_nodes_and_has_them_back_when_it_is_idle() -> None:
    it = group(Grouping(), TWO, {}, 0.0, RULES)
    assert group(it, TWO, {"wisc": 500.0}, 30.0, RULES).at == it.at, "not so soon"
    it = group(it, TWO, {"wisc": 500.0}, 61.0, RULES)
    assert communities(it)[1] == Community("wisc", ("uw0", "uw1", "uw2", "uw3"), ("uw0", "uw1"))
    assert communities(it)[0].guests == ("uw0", "uw1")
    assert group(it, TWO, {"wisc": 500.0}, 200.0, RULES).at == it.at, "no more than half"
    assert group(it, TWO, {"wisc": 30.0}, 200.0, RULES).at == it.at, "neither busy nor idle: as it was"
    assert group(it, TWO, {"wisc": 5.0}, 100.0, RULES).at == it.at, "not so soon"
    back = group(it, TWO, {"wisc": 5.0}, 121.0, RULES)
    assert communities(back)[1] == Community("wisc", ("uw0", "uw1", "uw2", "uw3"))
    both = group(it, TWO, {"wisc": 500.0, "bologna": 500.0}, 121.0, RULES)
    assert both.at == both.home, "who has too much to do itself keeps no guests"


PAIRS = st.dictionaries(
    st.tuples(st.sampled_from(["n1", "n2", "n3", "n4"]), st.sampled_from(["a", "b", "c"])),
    st.builds(Closeness, st.floats(0.0, 1.0), st.floats(0.0, 1e9)),
    max_size=12,
)
LOADS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0.0, 200.0))


@given(st.lists(st.tuples(PAIRS, LOADS, st.floats(0.0, 100.0)), max_size=8))
@settings(max_examples=200, deadline=None)
def test_whatever_is_measured_every_node_has_one_store_that_it_reaches(
    steps: list[tuple[dict[tuple[str, str], Closeness], dict[str, float], float]],
) -> None:
    it, now = Grouping(), 0.0
    for measured, loads, passed in steps:
        now += passed
        it = group(it, measured, loads, now, RULES)
        assert it.home.keys() == it.at.keys() == it.since.keys() == {node for node, _ in measured}
        assert all((node, store) in measured for node, store in it.at.items())
        lent = [node for node in it.at if it.at[node] != it.home[node]]
        assert all(now - it.since[node] >= 0 for node in lent)
        assert group(it, measured, loads, now, RULES) == it, "nothing changes by looking twice"
