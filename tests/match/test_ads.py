from __future__ import annotations

from datetime import UTC, datetime

import classad2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.describe.task import Needs
from serai.errors import UsageError
from serai.match.ads import at, clauses_of, node_ad, parse_ad, parse_expression, task_ad
from serai.match.bilateral import best, holds, matches, rank, with_storage

FACTS = {"cores": 4, "memory_bytes": 8 << 30, "python": [3, 11, 2], "software": {"openmpi": True, "R": False}}

# Values and operators of the language, as text
LEAVES = st.sampled_from(
    ["TARGET.A", "TARGET.B", "MY.A", "B", "TARGET.Nope", "1", "0", "2.5", '"x"', "true", "false", "undefined", "error"]
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||", "<", "==", "=?=", "=!=", "+", "*"]), inner).map(
            lambda three: f"({three[0]} {three[1]} {three[2]})"
        ),
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner, inner).map(lambda three: f"(({three[0]}) ? ({three[1]}) : ({three[2]}))"),
    ),
    max_leaves=8,
)
VALUES = st.sampled_from(["1", "0", "3", '"x"', "true", "false", "undefined"])


@st.composite
def ads(draw: st.DrawFn) -> classad2.ClassAd:
    parts = {"A": draw(VALUES), "B": draw(VALUES), "Requirements": draw(EXPRESSIONS), "Rank": draw(EXPRESSIONS)}
    return classad2.parseOne("[" + "; ".join(f"{name} = {value}" for name, value in parts.items()) + "]")


@given(ads(), ads())
@settings(max_examples=400, deadline=None)
def test_two_ads_match_when_the_library_says_so(one: classad2.ClassAd, other: classad2.ClassAd) -> None:
    assert matches(one, other) == one.symmetricMatch(other)


@given(EXPRESSIONS, ads(), ads())
@settings(max_examples=400, deadline=None)
def test_an_expression_holds_when_all_its_clauses_do(text: str, one: classad2.ClassAd, other: classad2.ClassAd) -> None:
    expression = classad2.ExprTree(text)
    parts = [classad2.ExprTree(part) for part in clauses_of(expression)]
    if all(holds(part, one, other) for part in parts):
        assert holds(expression, one, other)
    if holds(expression, one, other):
        assert all(holds(part, one, other) for part in parts)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("a && b && (c || d)", ["a", "b", "c || d"]),
        ("(a && (b && c))", ["a", "b", "c"]),
        ("a || b && c", ["a || b && c"]),
        ('x == "p && q" && y', ['x == "p && q"', "y"]),
        ("a ? b && c : d", ["a ? b && c : d"]),
        ("f(a && b) && g", ["f(a && b)", "g"]),
        ("(a) && (b)", ["a", "b"]),
        ("(a) == (b)", ["(a) == (b)"]),
    ],
)
def test_clauses_stand_between_the_outermost_ands(text: str, clauses: list[str]) -> None:
    assert clauses_of(text) == clauses


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ('HasSoftware("openmpi")', True),
        ('hassoftware(strcat("open", "mpi")) && Memory > 4000', True),
        ('HasSoftware("R")', False),
        ('"HasSoftware(1)" == strcat("HasSoftware", "(1)")', True),
        ('!HasSoftware("openmpi")', False),
        ('HasSoftware(HasSoftware("openmpi") ? "openmpi" : "R")', True),
    ],
)
def test_software_can_be_asked_for(text: str, there: bool) -> None:
    assert holds(parse_expression(text, scope=""), node_ad("n", FACTS)) is there


def test_what_a_task_needs_is_in_its_requirements() -> None:
    node = node_ad("n", FACTS)
    assert matches(task_ad(Needs(4, 8 << 30, ("openmpi",), (3, 11))), node)
    for needs in (Needs(5), Needs(1, (8 << 30) + 1), Needs(software=("R",)), Needs(python=(3, 12))):
        assert not matches(task_ad(needs), node)


def test_the_policies_of_the_source_run_as_written() -> None:
    stores = {
        "nestore.bologna": parse_ad('[Name = "nestore.bologna"; HasCMSData = true]'),
        "nest.wisc": parse_ad('[Name = "nest.wisc"; HasCMSData = true]'),
        "empty": parse_ad('[Name = "empty"; HasCMSData = false]'),
    }
    names = ["nest.wisc", "nestore.bologna", "empty", "gone"]
    nodes = [with_storage(node_ad(f"on {name}", FACTS, {"NearestStorage": name}), stores) for name in names]
    task = task_ad(
        Needs(),
        requirements="TARGET.NearestStorage.HasCMSData",
        rank='TARGET.NearestStorage.Name == "nestore.bologna" ? 10 : 0',
    )
    assert [names[n] for n in best(task, nodes)] == ["nestore.bologna", "nest.wisc"]
    assert [rank(task, node) for node in nodes] == [0.0, 10.0, 0.0, 0.0]


def test_a_node_may_say_by_an_expression_which_store_is_its_own() -> None:
    stores = {"b": parse_ad('[Name = "b"; Site = "UW"]'), "a": parse_ad('[Name = "a"; Site = "INFN"]')}
    node = node_ad("n", FACTS, {"Site": "UW", "NearestStorage": "=TARGET.Site == MY.Site"})
    assert with_storage(node, stores).eval("NearestStorage")["Name"] == "b"


def test_policies_may_go_by_the_hour() -> None:
    node = node_ad("n", FACTS, {"Requirements": "=MY.ClockHour < 8 || MY.ClockHour >= 18"})
    task = task_ad(Needs())
    assert matches(task, at(node, datetime(2026, 11, 22, 19, 30, tzinfo=UTC)))
    assert not matches(task, at(node, datetime(2026, 11, 22, 12, 0, tzinfo=UTC)))
    assert "ClockHour" not in node


@pytest.mark.parametrize("text", ["Memory >", "a b", "((1)", "x" * 70000])
def test_what_is_no_expression_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_expression(text)


def test_what_is_no_ad_is_said_to_be_none() -> None:
    with pytest.raises(UsageError, match="not a ClassAd"):
        parse_ad("[a = ")
