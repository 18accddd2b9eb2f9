"""Commands with placeholders: ``wc -w {in} > {out:.count}``.

A command that needs no shell is split into words once, when it is read, and values are put inside words, so that
nothing in a value can be taken for syntax. A command that does need one becomes a script for ``/bin/sh`` in which each
value is quoted as its place demands; where no quoting is right, the placeholder is refused when the command is read.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from serai.describe.quoting import Hole, Placeholder, Scan, Word, quoted, scan
from serai.errors import TemplateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_OWN = ("in", "out", "line", "n")  # a column cannot take these names
_OF_INPUT = ("name", "stem", "dir")  # a column can
_MEANT = {"input": "in", "inputs": "in", "infile": "in", "output": "out", "outputs": "out", "outfile": "out"}
_BRACES = re.compile(r"(\{+)([^{}\n]+)(\}+)")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?::[\w.-]+)?")
_EXTENSION = re.compile(r"\.[^/\x00]+")
_NEAR = 0.8
_SHORTEST_NEAR_CHARS = 2  # a single letter in braces is near to too much: sed '{N;p}'
_PATH_KINDS = frozenset({"in", "nth", "file", "out"})
_SHELL = ("/bin/sh", "-c")
_SHELL_NAMES = frozenset({"ash", "bash", "dash", "ksh", "mksh", "sh", "zsh"})
_RUNS_SCRIPT = re.compile(r"-[a-zA-Z]*c")


@dataclass(frozen=True, slots=True)
class Values:
    """What one task puts into a template. Paths are those that the command is to see on its node.

    Attributes:
        inputs: the input files, in order.
        outputs: where outputs are to be written, by the text of their placeholder: ``out``, ``out:.png``.
        line: the line, number or first column that the task stands for.
        columns: the named columns.
        column_inputs: the paths of the input files that columns name, for ``{in:column}``; a column that is missing
            here is taken from ``columns`` as it is.
        number: the task's number.
    """

    inputs: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    line: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    column_inputs: Mapping[str, str] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """A command that was read.

    Attributes:
        text: as the user wrote it.
        columns: the names that may stand in it as ``{column}``.
        placeholders: those in it, in order of first appearance, each once.
    """

    text: str
    columns: tuple[str, ...]
    placeholders: tuple[Placeholder, ...]
    _scan: Scan = field(repr=False)

    @classmethod
    def parse(cls, text: str, columns: Sequence[str] = ()) -> Self:
        """Reads a command.

        Args:
            text: the command.
            columns: the names of the columns that its tasks have.

        Raises:
            TemplateError: a placeholder is misspelt, or stands where no value can be put safely.
        """
        if "\0" in text or not text.strip():
            raise TemplateError("the command is empty" if not text.strip() else "the command holds a NUL character")
        text = text.strip("\n")
        names = tuple(columns)
        symbols = [symbol for part in _pieces(text, names) for symbol in (part if isinstance(part, str) else (part,))]
        found = tuple(dict.fromkeys(symbol for symbol in symbols if isinstance(symbol, Placeholder)))
        read = scan(symbols)
        _refuse_inner_scripts(read.words)
        return cls(text, names, found, read)

    @property
    def needs_shell(self) -> bool:
        """Whether only a shell can run it."""
        return self._scan.needs_shell

    @property
    def uses_inputs(self) -> bool:
        """Whether any placeholder stands for an input file or a part of its name."""
        return any(one.kind in {"in", "nth", "file", *_OF_INPUT} for one in self.placeholders)

    @property
    def uses_line(self) -> bool:
        """Whether ``{line}`` stands in it."""
        return any(one.kind == "line" for one in self.placeholders)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The texts of its output placeholders (``out``, ``out:.png``), in order of first appearance, each once."""
        return tuple(one.text for one in self.placeholders if one.kind == "out")

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that name input files (``{in:column}``), in order of first appearance, each once."""
        return tuple(one.argument for one in self.placeholders if one.kind == "file")

    def render(self, values: Values) -> tuple[str, ...]:
        """Gives the words to run.

        Raises:
            TemplateError: the task has no value for a placeholder, or several where there is room for one.
            UsageError: a value cannot be part of a command.
        """
        if self._scan.needs_shell:
            parts = [part if isinstance(part, str) else _in_script(part, values) for part in self._scan.script]
            return (*_SHELL, "".join(parts))
        return tuple(text for word in self._scan.words for text in _in_words(word, values))

    def words_that_may_be_files(self) -> tuple[str, ...]:
        """Gives the relative paths that stand plainly in the command, each once, for the caller to look for.

        Among them are values of options (``--config=sim.toml``). Not among them are placeholders, what a shell would
        change, targets of ``>``, absolute paths, paths with ``..``, and a program without a slash, which is looked for
        on the node's PATH.
        """
        found: dict[str, None] = {}
        for index, word in enumerate(self._scan.words):
            if word.literal and len(word.parts) == 1 and isinstance(text := word.parts[0], str):
                program = index == 0 and "/" not in text
                for one in ("" if program else text, text.partition("=")[2]):
                    if _may_be_file(one):
                        found[one] = None
        return tuple(found)


def _pieces(text: str, columns: tuple[str, ...]) -> Iterator[str | Placeholder]:
    """Splits a command into texts and placeholders; doubled braces around a placeholder become single ones."""
    position = 0
    for match in _BRACES.finditer(text):
        opening, body, closing = match.groups()
        depth = min(len(opening), len(closing))
        doubled = depth > 1
        known = _placeholder(body, columns)
        near = None if known else _nearest(body, columns)
        if near and not (doubled and depth % 2 == 0):
            raise TemplateError(
                f"unknown placeholder {{{body}}}",
                hint=f"did you mean {{{near}}}? For the braces themselves write {{{{{body}}}}}",
            )
        if not known and not near:
            continue
        yield text[position : match.start()] + "{" * (len(opening) - depth + depth // 2)
        yield known if known and depth % 2 else body
        yield "}" * (len(closing) - depth + depth // 2)
        position = match.end()
    yield text[position:]


def _refuse_inner_scripts(words: tuple[Word, ...]) -> None:
    """Refuses values in ``bash -c '… {in} …'``: the inner shell would read them as its own syntax."""
    for program, option, script in zip(words, words[1:], words[2:], strict=False):
        names, options = program.parts, option.parts
        if not (names and isinstance(names[-1], str) and len(options) == 1 and isinstance(options[0], str)):
            continue
        shell = names[-1].rpartition("/")[2]
        if shell in _SHELL_NAMES and _RUNS_SCRIPT.fullmatch(options[0]):
            for part in script.parts:
                if isinstance(part, Hole) and part.placeholder.kind != "n":
                    hole = f"{{{part.placeholder.text}}}"
                    raise TemplateError(
                        f"{hole} stands inside the script of another shell",
                        hint=f"hand it over as a word: {shell} -c 'f \"$1\"' {shell} {hole}; "
                        "or write the script as the command itself",
                    )


def _placeholder(body: str, columns: tuple[str, ...]) -> Placeholder | None:
    """Reads what stands between braces; None when it is no placeholder.

    Raises:
        TemplateError: it begins as one and does not go on as one.
    """
    if body in _OWN or (body in _OF_INPUT and body not in columns):
        return Placeholder(body, body)
    if body in columns:
        return Placeholder("column", body, body)
    head, colon, argument = body.partition(":")
    if not colon or head not in {"in", "out"}:
        return None
    if head == "in" and argument.isascii() and argument.isdecimal() and int(argument) > 0:
        return Placeholder("nth", body, argument)
    if argument in columns:
        return Placeholder("file" if head == "in" else "out", body, argument)
    if head == "out" and _EXTENSION.fullmatch(argument):
        return Placeholder("out", body, argument)
    near = difflib.get_close_matches(argument, columns, n=1)
    forms = "{in:1} or {in:COLUMN}" if head == "in" else "{out:.EXT} or {out:COLUMN}"
    known = f"the columns are {', '.join(columns)}" if columns else "there are no columns"
    raise TemplateError(
        f"unknown placeholder {{{body}}}",
        hint=f"did you mean {{{head}:{near[0]}}}?" if near else f"write {forms}; {known}",
    )


def _nearest(body: str, columns: tuple[str, ...]) -> str | None:
    """Gives the placeholder that a word in braces was probably meant to be."""
    if not _IDENTIFIER.fullmatch(body):
        return None
    head, colon, argument = body.partition(":")
    if len(head) < _SHORTEST_NEAR_CHARS:
        return None
    names = (*_OWN, *_OF_INPUT, *columns, *_MEANT)
    lowered = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(head.lower(), lowered, n=1, cutoff=_NEAR)
    if not close:
        return None
    name = _MEANT.get(lowered[close[0]], lowered[close[0]])
    if colon:
        return f"{name}:{argument}" if name in {"in", "out"} else None
    return name


def _in_words(word: Word, values: Values) -> list[str]:
    """Fills a word of a command without a shell: one word, or as many as there are inputs."""
    if len(word.parts) == 1 and isinstance(hole := word.parts[0], Hole) and hole.alone:
        return _texts(hole, values)
    return ["".join(part if isinstance(part, str) else _one(part, values) for part in word.parts)]


def _in_script(hole: Hole, values: Values) -> str:
    """Fills a hole of a script, quoted as its place demands."""
    if hole.alone:
        return " ".join(quoted(text) for text in _texts(hole, values))
    text = _one(hole, values)
    match hole.context:
        case "arithmetic":
            return text  # the task's number: digits
        case "plain":
            return quoted(text)
        case "double":
            # The quotes are closed and opened again, so that in "$x{n}" the value is no part of the variable's name.
            return f'"{quoted(text)}"'
        case "single":
            return f"'{quoted(text)}'"


def _one(hole: Hole, values: Values) -> str:
    texts = _texts(hole, values)
    if len(texts) != 1:
        raise TemplateError(
            f"{{{hole.placeholder.text}}} stands for {len(texts)} files where there is room for one",
            hint="let it be a word of its own, or name one file: {in:1}",
        )
    return texts[0]


def _texts(hole: Hole, values: Values) -> list[str]:
    """Gives the values of a hole, fit to be part of a command."""
    placeholder = hole.placeholder
    texts = _values_of(placeholder, values)
    is_path = placeholder.kind in _PATH_KINDS or (placeholder.kind in _OF_INPUT and hole.leading)
    return [_fit(text, placeholder, is_path=is_path) for text in texts]


def _fit(text: str, placeholder: Placeholder, *, is_path: bool) -> str:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        text = "\0"  # no command can hold this either
    if "\0" in text:
        raise UsageError(
            f"the value of {{{placeholder.text}}} holds a character that no command can hold (NUL or half a surrogate)",
            hint="look at the file or list it comes from",
        )
    # A path that begins with a dash would be taken for an option, and "-" for the standard input.
    return f"./{text}" if is_path and text.startswith("-") else text


def _values_of(placeholder: Placeholder, values: Values) -> tuple[str, ...]:
    argument = placeholder.argument
    found: str | None = None
    match placeholder.kind:
        case "in":
            if values.inputs:
                return values.inputs
        case "n":
            found = str(values.number)
        case "file":
            found = values.column_inputs.get(argument, values.columns.get(argument))
        case "out":
            found = values.outputs.get(placeholder.text)
        case "line":
            found = values.line
        case "column":
            found = values.columns.get(argument)
        case _:
            found = _of_inputs(placeholder, values.inputs)
    if found is not None:
        return (found,)
    raise TemplateError(
        f"the task has no value for {{{placeholder.text}}}",
        hint="it has "
        + (f"{len(values.inputs)} input files" if values.inputs else "no input files")
        + ("" if values.line is not None else ", no line")
        + (f", the columns {', '.join(values.columns)}" if values.columns else ""),
    )


def _of_inputs(placeholder: Placeholder, inputs: tuple[str, ...]) -> str | None:
    """Gives one input, or a part of the first one's name."""
    index = int(placeholder.argument) - 1 if placeholder.kind == "nth" else 0
    if index >= len(inputs):
        return None
    path = inputs[index]
    match placeholder.kind:
        case "name":
            return posixpath.basename(path)
        case "stem":
            return posixpath.splitext(posixpath.basename(path))[0]
        case "dir":
            return posixpath.dirname(path) or "."
        case _:
            return path


def _may_be_file(text: str) -> bool:
    parts = text.split("/")
    return bool(text) and not text.startswith(("-", "/")) and ".." not in parts and set(parts) - {"", "."} != set()
