from __future__ import annotations

import classad2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.describe.ads.expressions import (
    parse_expression,
    period_of,
    software_in,
    targets_in,
    with_target,
    without_target,
)
from serai.describe.ads.software import evidence, software_names
from serai.describe.task import Needs
from serai.errors import UsageError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Memory > 4 and Cpus > 2", "at character 12: 'and Cpus > 2'"),
        ("1 +* 2", "at character 4: '* 2'"),
        ("Memory > 4 && (", "at its end"),
        ("Memory = 4", "at character 8: '= 4'"),
        ("(a))", "at character 4: ')'"),
        ('HasSoftware("a" b)', "at character 17: 'b)'"),
        ('Name == "lab1', "at character 9"),
        ("  ", "there is nothing"),
        ("a" * 70_000, "longer than"),
    ],
)
def test_a_mistake_has_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_expression(text, what="--where")
    assert caught.value.what.startswith("--where: ")
    assert said in caught.value.what


def test_a_mistake_has_a_hint() -> None:
    for text, hint in {"a and b": "&&", "Memory = 4": "==", 'Name == "x': "double quotes"}.items():
        with pytest.raises(UsageError) as caught:
            parse_expression(text)
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Memory > 4", "TARGET.Memory > 4"),
        ("TARGET.Memory > MY.Least", "TARGET.Memory > MY.Least"),
        ("Least < Memory", "Least < TARGET.Memory"),
        ('NearestStorage.Name == "Memory" ? 10 : 0', 'TARGET.NearestStorage.Name == "Memory" ? 10 : 0'),
        ("member(x, Software) && true isnt undefined", "member(TARGET.x, TARGET.Software) && true isnt undefined"),
        ("[a = b].a + Names[n]", "[a = b].a + TARGET.Names[TARGET.n]"),
        ("strcat (x)", "strcat (TARGET.x)"),
    ],
)
def test_names_that_are_not_an_ads_own_are_the_others(text: str, made: str) -> None:
    assert with_target(text, {"least"}) == made


def test_target_goes_as_it_came() -> None:
    assert (
        without_target('TARGET.a + target . b + "TARGET.c" + MY.TARGETS') == 'a + target . b + "TARGET.c" + MY.TARGETS'
    )
    assert targets_in('TARGET.a.b > target.c && "TARGET.d" != MY.e.TARGET') == ("a.b", "c")


def test_software_and_hours_are_seen() -> None:
    assert software_in('HasSoftware("a") && !hassoftware( "b" ) || "HasSoftware(c)" == x') == ("a", "b")
    assert period_of("Memory > 3", "") == 0
    assert period_of("ClockHour > 3") == 3600
    assert period_of("ClockHour > 3", "time() > 5") == 60


def test_software_goes_by_names_of_its_own_too() -> None:
    assert evidence("openmpi") == ("openmpi", "ompi_info")
    assert software_names({"ompi_info": True, "gcc": False, "R": True}) == ["R", "ompi_info", "openmpi"]


def test_needs_say_which_of_their_expressions_is_none() -> None:
    Needs(requirements="a && b", rank="c").check()
    with pytest.raises(UsageError, match=r"^rank: not a ClassAd expression"):
        Needs(rank="a b").check()


NAMES = st.sampled_from(["Mine", "Theirs", "Both", "Sub.Deep"])
OWN = {"mine", "both"}


def scoped(name: str) -> str:
    return name if name.partition(".")[0].lower() in OWN else f"TARGET.{name}"


PAIRS = st.recursive(
    st.one_of(
        NAMES.map(lambda name: (name, scoped(name))),
        st.sampled_from(["1", "true", "undefined", '"Theirs"', "TARGET.Both", "MY.Mine"]).map(lambda one: (one, one)),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||", "==", "=?=", "<", "+", "is"]), inner).map(
            lambda three: tuple(f"({three[0][n]} {three[1]} {three[2][n]})" for n in (0, 1))
        ),
        st.tuples(inner, inner, inner).map(lambda three: tuple(f"({a} ? {b} : {c})" for a, b, c in zip(*three))),  # noqa: B905 - each has two
        inner.map(lambda one: (f"isUndefined({one[0]})", f"isUndefined({one[1]})")),
        inner.map(lambda one: (f"{{{one[0]}, Theirs}}[0]", f"{{{one[1]}, TARGET.Theirs}}[0]")),
    ),
    max_leaves=8,
)


@given(PAIRS)
@settings(max_examples=300, deadline=None)
def test_names_without_a_scope_mean_to_the_library_what_they_mean_to_people(pair: tuple[str, str]) -> None:
    mine = classad2.ClassAd({"Mine": 1, "Both": 2})
    theirs = classad2.ClassAd({"Theirs": 3, "Both": 4, "Sub": classad2.ClassAd({"Deep": 5})})
    plain, explicit = pair
    made = parse_expression(plain, own=OWN)
    assert made.eval(mine, theirs) == classad2.ExprTree(explicit).eval(mine, theirs)
