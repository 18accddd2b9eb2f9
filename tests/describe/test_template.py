"""Commands with placeholders: what is read, what is refused, what comes out."""

from __future__ import annotations

import pytest

from serai.describe.template import Template, Values
from serai.errors import TemplateError, UsageError

VALUES = Values(
    inputs=("data/a b.tar.gz", "-c"),
    outputs={"out": "res/o u", "out:.png": "p.png"},
    line="it's $x",
    columns={"alpha": "1.5", "my col": "c", "file": "f.txt", "dir": "column dir"},
    column_inputs={"file": "inputs/1/f.txt"},
    number=7,
)
COLUMNS = ("alpha", "my col", "file", "dir")


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("wc -w {in}", ("wc", "-w", "data/a b.tar.gz", "./-c")),
        ("wc {in:2} {in:1}", ("wc", "./-c", "data/a b.tar.gz")),
        ("cat {in:file}", ("cat", "inputs/1/f.txt")),
        ("cp {file} {out}", ("cp", "f.txt", "res/o u")),
        ("plot --to={out:.png}", ("plot", "--to=p.png")),
        ("f {line}{n} 'x{line}' \"{line}y\"", ("f", "it's $x7", "xit's $x", "it's $xy")),
        ("f {name} {stem} {dir}", ("f", "a b.tar.gz", "a b.tar", "column dir")),
        ("f {alpha} {my col}", ("f", "1.5", "c")),
        ("awk '{print $1}' {in:1}", ("awk", "{print $1}", "data/a b.tar.gz")),
        (
            "f {{in}} {{{n}}} {{{{n}}}} {} {print} { in } {{print}}",
            ("f", "{in}", "{7}", "{{n}}", "{}", "{print}", "{", "in", "}", "{{print}}"),
        ),
        ("f '{ {n} }' '{x {n}}' {{n}", ("f", "{ 7 }", "{x 7}", "{7")),
        ("f {{input}}", ("f", "{input}")),
        ("f '' \"\" a''b 'a b'\\ c \"\\$\\q\\\\\"", ("f", "", "", "ab", "a b c", "$\\q\\")),
        ("f a#b {n}#c x~ {a,b} --x=~/y", ("f", "a#b", "7#c", "x~", "{a,b}", "--x=~/y")),
        ("f '*' \"?\" \\[ '$x' \\;", ("f", "*", "?", "[", "$x", ";")),
        ("'A=1' x", ("A=1", "x")),
        ("  f   x\t{n}\n", ("f", "x", "7")),
        ("bash -c 'echo {n}; wc \"$1\"' bash {in:2}", ("bash", "-c", 'echo 7; wc "$1"', "bash", "./-c")),
        ("sed '{N;p}' x", ("sed", "{N;p}", "x")),
        ("f {line:3} {size} {json:1} {i}", ("f", "{line:3}", "{size}", "{json:1}", "{i}")),
    ],
)
def test_without_a_shell(text: str, argv: tuple[str, ...]) -> None:
    template = Template.parse(text, COLUMNS)
    assert not template.needs_shell
    assert template.render(VALUES) == argv


@pytest.mark.parametrize(
    "text",
    [
        "a | b", "a; b", "a && b", "a &", "a > b", "a < b", "a $x", 'a "$x"', "a `b`", "a $(b)", "a *.txt", "a x?",
        "a [ab]", "A=1 b", "A+=1 b", "~/x", "a ~/x", "a # b", "a\nb", "(a)", "cd x", "'cd' x", "exit 3", ". ./env",
        "ulimit -t 3", "export X", "! a", "if a", "{ a; }", "a \\\n b", 'a "`b`"', "a $", "A={n} b", ": x",
    ],
)  # fmt: skip
def test_what_needs_a_shell(text: str) -> None:
    template = Template.parse(text)
    assert template.needs_shell
    assert template.render(VALUES)[:2] == ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("cat {in} > {out}", "cat 'data/a b.tar.gz' './-c' > 'res/o u'"),
        ("x=1; f \"$x{n}\" '{n}' {n}", "x=1; f \"$x\"'7'\"\" '''7''' '7'"),
        ("echo $(({n}*2)) $$", "echo $((7*2)) $$"),
        ('echo "$(cat {in})"', "echo \"$(cat 'data/a b.tar.gz' './-c')\""),
        ("cat {n} <<E\n'\"(\nE", "cat '7' <<E\n'\"(\nE"),
        ("f {n}; case x in *) g {n};; esac", "f '7'; case x in *) g '7';; esac"),
        ('f {n} "${x%"}"}"', 'f \'7\' "${x%"}"}"'),
        ("f ${x} ${y:-z} ${#y} {n}", "f ${x} ${y:-z} ${#y} '7'"),
        ("f ${{n}}", "f ${n}"),
        ("f \\${n} | g", "f \\$'7' | g"),
        ("f {n} # it's fine", "f '7' # it's fine"),
    ],
)
def test_with_a_shell(text: str, script: str) -> None:
    assert Template.parse(text).render(VALUES) == ("/bin/sh", "-c", script)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("f {input}", "{in}"),
        ("f {inputs}", "{in}"),
        ("f {input:2}", "{in:2}"),
        ("f {ouput}", "{out}"),
        ("f {output}", "{out}"),
        ("f {Line}", "{line}"),
        ("f {lines}", "{line}"),
        ("f {out1}", "{out}"),
        ("f {alhpa}", "{alpha}"),
        ("f {in:aplha}", "{in:alpha}"),
        ("f {in:0}", "{in:1}"),
        ("f {in:}", "the columns are alpha"),
        ("f {out:x.y}", "{out:.EXT}"),
        ("f {out:./x}", "{out:.EXT}"),
        ("f {out:.}", "{out:.EXT}"),
    ],
)
def test_a_misspelt_placeholder_names_the_right_one(text: str, hint: str) -> None:
    with pytest.raises(TemplateError, match="unknown placeholder") as caught:
        Template.parse(text, ("alpha",))
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a\0b", "NUL"),
        ("f 'x", "' is never closed"),
        ('f "x', '" is never closed'),
        ("f `x", "` is never closed"),
        ("f $(x", r"\( is never closed"),
        ("f ${x", "is never closed"),
        ("f $((1", "is never closed"),
        ("f x\\", "backslash"),
        ("f \\{n}", "backslash before"),
        ('f "\\{n}"', "backslash before"),
        ("f ${n}", r"\$ before"),
        ('f "${n}"', r"\$ before"),
        ("f $((${n}))", r"\$ before"),
        ("f `g {n}`", "inside `"),
        ('f "`g {n}`"', "inside `"),
        ("f ${x:-{n}}", r"inside \$\{"),
        ("f $(({line}+1))", r"inside \$\(\("),
        ("f # {n}", "comment"),
        ("f <<E\n{n}\nE", "here-document"),
        ("f <<-'E'\nE\ng {n}", "here-document"),
        ('f "$(cat <<E\nE\n)" {n}', "here-document"),
        ('f "$(case x in x) echo;; esac) {n}"', "case"),
        ('f ${x%"}"} {n}', "quotes"),
        ("f $'{n}'", "shells read differently"),
        ("f $(( $(x) )) {n}", "quotes or a command"),
        ("f $((a) ; b) {n}", r"single \)"),
        ("bash -c 'wc {in}'", "script of another shell"),
        ('A=1 /bin/sh -ec "wc {line}" | f', "script of another shell"),
    ],
)
def test_what_cannot_be_placed_is_refused(text: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        Template.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("f x{in}", "2 files"),
        ("f '{in}'", "2 files"),
        ('f "{in}"; g', "2 files"),
        ("f < {in}", "2 files"),
        ("f={in}; g", "2 files"),
        ("f {in}`g`", "2 files"),
        ("f {in:3}", "no value for {in:3}"),
        ("f {out:.pdf}", "no value"),
        ("f {gone}", "no value"),
    ],
)
def test_what_the_task_does_not_have(text: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        Template.parse(text, ("gone",)).render(VALUES)


@pytest.mark.parametrize("text", ["f {in}", "f {name}", "f {line}", "f {in:1}", "f {dir}"])
def test_a_bare_task_has_no_value(text: str) -> None:
    with pytest.raises(TemplateError, match="no value") as caught:
        Template.parse(text).render(Values())
    assert "no input files, no line" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
@pytest.mark.parametrize("text", ["f {line}", "f {line}; g"])
def test_what_no_command_can_hold(text: str, value: str) -> None:
    with pytest.raises(UsageError, match="no command can hold"):
        Template.parse(text).render(Values(line=value))


@pytest.mark.parametrize("text", ["f {in}", "f '{in}' x{in}", "f {in};"])
def test_a_path_with_a_dash_is_no_option(text: str) -> None:
    assert "./-" in " ".join(Template.parse(text).render(Values(inputs=("-",))))


def test_parts_of_a_name_are_guarded_only_at_the_front_of_a_word() -> None:
    template = Template.parse('f {stem}.png x{stem} "{name}" {line}')
    assert template.render(Values(inputs=("d/-x.y",), line="-l")) == ("f", "./-x.png", "x-x", "./-x.y", "-l")


def test_what_a_template_tells_about_itself() -> None:
    template = Template.parse("f {in:file} {out:.png} {out} {out:.png} {n}", ("file",))
    assert template.outputs == ("out:.png", "out")
    assert template.uses_inputs
    assert not template.uses_line
    assert template.input_columns == ("file",)
    assert [one.text for one in template.placeholders] == ["in:file", "out:.png", "out", "n"]
    assert Template.parse("f {line}").uses_line
    assert not Template.parse("f {line}").uses_inputs
    assert Template.parse("f {stem}").uses_inputs
    assert hash(template) == hash(Template.parse(template.text, ("file",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python3 count.py {in}", ("count.py",)),
        ("./sim --seed {line} --config=lib/sim.toml", ("./sim", "lib/sim.toml")),
        ("f ../x /abs x/../y -v . ./ d/", ("d/",)),
        ("cd d && python3 'my prog.py' < in.txt > out.txt", ("d", "python3", "my prog.py", "in.txt")),
        ('f "$(python3 g.py)" $x *.txt "$y".txt x{n} z', ("python3", "g.py", "z")),
        ("A=conf.ini f x x", ("conf.ini", "f", "x")),
    ],
)
def test_words_that_may_be_files(text: str, words: tuple[str, ...]) -> None:
    assert Template.parse(text).words_that_may_be_files() == words
