"""Values arrive unharmed: random commands and nasty values through real shells and real programs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serai.describe.quoting import quoted, scan
from serai.describe.template import Template, Values
from serai.errors import TemplateError

_NASTY = [
    "", " ", "a b", "-n", "--", "it's", 'say "x"', "$HOME", "$(echo pwned)", "`echo pwned`", "\\", "a\\", "\\'", "'\"'",
    "*", "?", "[a]", "~", "#x", "a\nb", "\n", "\t", "${x}", "{in}", "%s%d", "!", "é", "日本 語", "\udcff\udc80\udc81",
    "\x01\x7f", "a;b", "&", "|", "<<E", "})", "case", "=", "a=b", "\r", "\u2028", "EOF",
]  # fmt: skip
values = st.one_of(
    st.sampled_from(_NASTY),
    st.lists(st.sampled_from(_NASTY), max_size=4).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.binary(max_size=8).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
)

# Each is a piece of a command: how it is written, and the words the program then gets, with L for the line's value.
_WITHOUT_SHELL = [
    ("{line}", ["L"]),
    ("x{line}", ["xL"]),
    ("{line}y{line}", ["LyL"]),
    ("'{line}'", ["L"]),
    ("'a {line} b'", ["a L b"]),
    ('"{line}"', ["L"]),
    ('"a {line}\\\\{line}"', ["a L\\L"]),
    ("'\\{line}'", ["\\L"]),
    ("--x={line}", ["--x=L"]),
    ("\\\\{line}", ["\\L"]),
    ("\"'{line}'\"", ["'L'"]),
    ("'\"{line}\"'", ['"L"']),
    ("{{line}}", ["{line}"]),
    ("{n}'{n}'\"{n}\"", ["777"]),
    ("\\${line}", ["$L"]),
    ("'${line}'", ["${L}".replace("{L}", "L")]),
    ("''{line}\"\"", ["L"]),
]
_WITH_SHELL = [
    *_WITHOUT_SHELL,
    ('"$V{line}"', ["vL"]),
    ("$V{line}", ["vL"]),
    ('"${V}{line}"', ["vL"]),
    ('"$(printf %s. {line})"', ["L."]),
    ('"$(printf %s. "x{line}")"', ["xL."]),
    ('"a$(printf %s. "$(printf %s: \'{line}\' ")")")"', ["aL:):."]),
    ('"$( (printf %s. {line}) )"', ["L."]),
    ("$(({n} * 2))", ["14"]),
    ('"$(({n} * (1 + 1)))"', ["14"]),
    ('"$(printf ")"){line}"', [")L"]),
    ('"`printf \\")\\"`{line}"', [")L"]),
    ('"${V:-x}{line}${V#w}"', ["vLv"]),
    ("\\\n{line}", ["L"]),
    ('"\\\n{line}"', ["L"]),
    ("$$ ", None),
]

shells = [path for path in ("/bin/sh", shutil.which("bash"), shutil.which("busybox")) if path]


def _expected(pieces: list[tuple[str, list[str] | None]], value: str) -> list[str]:
    return [word.replace("L", value) for _, words in pieces for word in words or ()]


def _received(argv: tuple[str, ...], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        argv, capture_output=True, check=False, timeout=20, env={"PATH": os.environ["PATH"], **environment}
    )
    assert done.stderr == b"", argv
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def _render(pieces: list[tuple[str, list[str] | None]], head: str, value: str) -> tuple[str, ...]:
    return Template.parse(head + " ".join(text for text, _ in pieces)).render(Values(line=value, number=7))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(st.sampled_from(_WITHOUT_SHELL), min_size=1, max_size=8), value=values)
def test_a_program_receives_exactly_the_value(pieces: list[tuple[str, list[str] | None]], value: str) -> None:
    argv = _render(pieces, r"printf '%s\0' ", value)
    assert argv[0] == "printf"
    assert list(argv[2:]) == _expected(pieces, value)
    assert _received(argv, {}) == _expected(pieces, value)


@pytest.mark.parametrize("shell", shells)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(st.sampled_from([one for one in _WITH_SHELL if one[1]]), min_size=1, max_size=8), value=values)
def test_a_shell_hands_over_exactly_the_value(
    shell: str, pieces: list[tuple[str, list[str] | None]], value: str
) -> None:
    argv = _render(pieces, r"V=v; printf '%s\0' ", value)
    command = (shell, "sh") if shell.endswith("busybox") else (shell,)
    assert argv[:2] == ("/bin/sh", "-c")
    assert _received((*command, *argv[1:]), {}) == _expected(pieces, value)


@pytest.mark.parametrize("shell", shells)
def test_every_piece_alone_with_every_nasty_value(shell: str) -> None:
    """All of them in one process, one line each, so that the table is covered whatever hypothesis draws."""
    command = (shell, "sh") if shell.endswith("busybox") else (shell,)
    scripts, expected = [], []
    for piece in _WITH_SHELL:
        for value in _NASTY:
            if piece[1] is not None:
                scripts.append(_render([piece], r"V=v; printf '%s\0' ", value)[2])
                expected += _expected([piece], value)
    assert _received((*command, "-c", "\n".join(scripts)), {}) == expected


@settings(max_examples=60, deadline=None)
@given(inputs=st.lists(values.filter(bool), min_size=1, max_size=4), shell=st.booleans())
def test_several_files_are_several_words(inputs: list[str], shell: bool) -> None:
    text = r"printf '%s\0' {in}" + (" | cat" if shell else "")
    argv = Template.parse(text).render(Values(inputs=tuple(inputs)))
    wanted = [f"./{path}" if path.startswith("-") else path for path in inputs]
    assert _received(argv, {}) == wanted


@given(value=values)
def test_quoted_is_one_word(value: str) -> None:
    assert [word.parts for word in scan(quoted(value)).words] == [(value,) if value else ()]


_alphabet = st.sampled_from([*"ab \t\n'\"\\$`(){}#;&|<>*?[]~=!:-.", "{n}", "{line}", "$(", "$((", "${", "<<", "case "])


@settings(max_examples=400, deadline=None)
@given(st.lists(_alphabet, max_size=24).map("".join))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = Template.parse(text)
    except TemplateError:
        return
    argv = template.render(Values(line="v", number=1))
    assert argv
    if template.needs_shell and not template.placeholders and "{{" not in text:
        assert argv[2] == text.strip("\n")


def _shell_words(text: str) -> list[str] | None:
    script = f"printf '%s\\0' {text}"
    done = subprocess.run(["/bin/sh", "-fc", script], capture_output=True, check=False, timeout=20)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]] if done.returncode == 0 else None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"ab 'xy' \"\\#=~{}!:-.$", '"', "'", " "]), min_size=1, max_size=12).map("".join))
def test_words_without_a_shell_are_those_of_the_shell(text: str) -> None:
    try:
        template = Template.parse(f"printf '%s\\0' {text}")
    except TemplateError:
        return
    if not template.needs_shell and len(template.render(Values())) > 2:
        assert list(template.render(Values())[2:]) == _shell_words(text)
