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
from serai.describe.ads.functions import FUNCTIONS, is_function
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


CALLS = {
    "absTime()", 'allCompare("<", {1}, 2)', 'anyCompare("<", {1}, 2)', 'argsToList("a b")', "avg({1})", "bool(1)",
    "ceil(1)", "ceiling(1)", "countMatches(a, {[a = true]})", "currentTime()", "dayTime()", "debug(1)",
    'envV1ToV2("a=b")', "eval(1)", "evalInEachContext(a, {[a = 1]})", "floor(1)", "formatTime()",
    "getDayOfMonth(absTime())", "getDayOfWeek(absTime())", "getDayOfYear(absTime())", "getDays(relTime(9))",
    "getHours(absTime())", "getMinutes(absTime())", "getMonth(absTime())", "getSeconds(absTime())",
    "getYear(absTime())", "identicalMember(1, {1})", "ifThenElse(true, 1, 2)", "int(1)", "interval(1)", "isAbsTime(1)",
    "isBoolean(1)", "isClassad(1)", "isError(1)", "isInteger(1)", "isList(1)", "isReal(1)", "isRelTime(1)",
    "isString(1)", "isUndefined(x)", "join({1})", 'listToArgs({"a"})', "max({1})", "member(1, {1})",
    'mergeEnvironment("a=b")', "min({1})", "pow(1, 2)", "quantize(1, 2)", "random()", "real(1)", 'regexp("a", "a")',
    'regexpMember("a", {"a"})', 'regexps("a", "a", "b")', "relTime(1)", 'replace("a", "a", "b")',
    'replaceAll("a", "a", "b")', "round(1)", 'size("a")', 'split("a b")', 'splitSlotName("s@h")', "splitTime(1)",
    'splitUserName("u@h")', "strcat(1)", 'strcmp("a", "b")', 'stricmp("a", "b")', "string(1)", 'stringListAvg("1")',
    'stringListIMember("a", "A")', 'stringListISubsetMatch("a", "A")', 'stringListMax("1")',
    'stringListMember("a", "a")', 'stringListMin("1")', 'stringListSize("a")', 'stringListSubsetMatch("a", "a")',
    'stringListSum("1")', 'stringList_regexpMember("a", "a")', 'stringListsIntersect("a", "a")', 'substr("a", 0)',
    "sum({1})", "time()", "timeZoneOffset()", 'toLower("A")', 'toUpper("a")', "unparse(x)", "unresolved(x)",
    'userHome("root", "/")', 'userMap("a", "b")', 'versionEQ("1", "1")', 'versionGE("1", "1")', 'versionGT("1", "1")',
    'versionLE("1", "1")', 'versionLT("1", "1")', 'version_in_range("1", "1", "2")', 'versioncmp("1", "2")',
}  # fmt: skip


@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_function_that_is_listed_is_one_of_the_librarys(call: str) -> None:
    tree = parse_expression(call, own=set())
    assert tree.eval() is not classad2.Value.Error


def test_every_function_that_is_listed_is_tried() -> None:
    tried = {call.partition("(")[0] for call in CALLS}
    assert tried | {"HasSoftware"} == set(FUNCTIONS)
    assert classad2.ExprTree("NoSuchFn(3)").eval() is classad2.Value.Error, "why they are listed"
    assert is_function("STRCAT")


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("NoSuchFn(3)", "NoSuchFn", "member, regexp"),
        ('Memory > 4 && HasSoftwares("x")', "HasSoftwares", "did you mean HasSoftware?"),
        ('regex ("a", Name)', "regex", "regexp"),
        ('strcat(substring("a", 1))', "substring", "substr"),
        ("{1, nope(2)}", "nope", ""),
    ],
)
def test_a_function_that_there_is_not_is_refused(text: str, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"--rank: there is no function {name}, in") as caught:
        parse_expression(text, what="--rank")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ['"f(3)" == Name', "x is (3)", "a =?= (b)", "x isnt (3)", "MEMBER (1, {1})"])
def test_what_is_no_call_is_not_taken_for_one(text: str) -> None:
    parse_expression(text)
