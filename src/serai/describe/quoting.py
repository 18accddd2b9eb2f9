"""Where in a command a placeholder stands, as a POSIX shell would see it, and whether a shell is needed at all.

The scanner reads a command once, when a run starts. It knows the part of the shell's grammar in which a value can be
put safely; a placeholder in any other part is refused with a `TemplateError`, never guessed at. The command is its
user's own and is trusted; the values are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serai.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

Context = Literal["plain", "double", "single", "arithmetic"]

_BLANKS = " \t"
_DELIMITERS = _BLANKS + "\n;&|<>()"  # what may follow a placeholder that is a word of its own
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_NAME_START = re.compile(r"[A-Za-z_]", re.ASCII)
_FRONT_HINT = 'give the value to a variable first: v={line}; … "$v" …'

# What only the shell itself can do, in the place of a program.
_BUILTINS = frozenset(
    {
        ".", ":", "alias", "bg", "bind", "break", "builtin", "caller", "cd", "command", "continue",
        "declare", "dirs", "disown", "enable", "eval", "exec", "exit", "export", "fc", "fg",
        "getopts", "hash", "history", "jobs", "let", "local", "logout", "mapfile", "popd", "pushd",
        "read", "readarray", "readonly", "return", "set", "shift", "shopt", "source", "suspend",
        "times", "trap", "type", "typeset", "ulimit", "umask", "unalias", "unset", "wait",
    }
)  # fmt: skip
_RESERVED = frozenset(
    {
        "!", "{", "}", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
        "function", "if", "in", "select", "then", "until", "while",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A place in a command for a value.

    Attributes:
        kind: ``in``, ``nth``, ``file``, ``out``, ``line``, ``n``, ``name``, ``stem``, ``dir`` or ``column``.
        text: as it was written, without its braces.
        argument: the N of ``in:N``; the column of ``in:column``, ``out:column`` and ``column``; the ``.ext`` of
            ``out:.ext``.
    """

    kind: str
    text: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """A placeholder and how the shell would treat what stands there.

    Attributes:
        placeholder: what goes there.
        context: the quoting around it.
        alone: it is a word of its own, so that several values can be several words.
        leading: nothing stands before it in its word, so that a leading dash would look like an option.
    """

    placeholder: Placeholder
    context: Context
    alone: bool
    leading: bool


Symbol = str | Placeholder  # one character, or one placeholder
Part = str | Hole


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the command.

    Attributes:
        parts: its text, with the quotes taken off, and its holes; texts are never neighbours.
        literal: the shell would change nothing in it: no variable, no pattern, no substitution.
    """

    parts: tuple[Part, ...]
    literal: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """A command that was read.

    Attributes:
        script: the command as written, with its holes; texts are never neighbours.
        words: all words that were seen, also those of nested commands.
        needs_shell: only a shell can run it; otherwise ``words`` are what is to be run.
    """

    script: tuple[Part, ...]
    words: tuple[Word, ...]
    needs_shell: bool


def scan(symbols: Sequence[Symbol]) -> Scan:
    """Reads a command.

    Args:
        symbols: its characters and placeholders, in order.

    Raises:
        TemplateError: a placeholder stands where no value can be put safely, or a quote is never closed.
    """
    return _Scanner(symbols).run()


def quoted(value: str) -> str:
    """Quotes a value for a POSIX shell, whatever it holds but NUL."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


class _Parts:
    """Collects text and holes."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._text: list[str] = []

    def add(self, part: Part) -> None:
        if isinstance(part, str):
            self._text += [part] if part else []
        else:
            self._flush()
            self.parts.append(part)

    def _flush(self) -> None:
        if self._text:
            self.parts.append("".join(self._text))
            self._text.clear()

    def done(self) -> tuple[Part, ...]:
        self._flush()
        return tuple(self.parts)


class _OpenWord:
    """A word that is being read."""

    def __init__(self) -> None:
        self.parts = _Parts()
        self.literal = True
        self.empty = True  # nothing but opening quotes so far
        self.front: list[str] = []  # its characters up to the first quote, hole or expansion
        self.plain = True  # no quote, hole or expansion so far


class _Scanner:
    """One pass over a command. Each `_in_…` method reads one construct, from just after its opening to its end."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self.symbols = symbols
        self.at = 0
        self.script = _Parts()
        self.words: list[Word] = []
        self.word: _OpenWord | None = None
        self.shell = False
        self.first = True  # the next word is the first of the command
        self.redirect = ""  # the last operator was a redirection: < or >
        self.here_document = False  # one begins at the next newline
        self.lost = ""  # why no later placeholder can be placed

    def run(self) -> Scan:
        self._in_commands(closing="", nested=False)
        return Scan(self.script.done(), tuple(self.words), self.shell)

    # Reading

    def _peek(self, ahead: int = 0) -> Symbol:
        index = self.at + ahead
        return self.symbols[index] if index < len(self.symbols) else ""

    def _take(self, count: int = 1) -> str:
        """Copies the next characters to the script; a placeholder among them is refused."""
        taken = []
        for symbol in self.symbols[self.at : self.at + count]:
            if isinstance(symbol, Placeholder):
                raise _refusal(symbol, "stands where no value can be put safely", _FRONT_HINT)
            taken.append(symbol)
            self.script.add(symbol)
        self.at += len(taken)
        return "".join(taken)

    def _follows(self, text: str) -> bool:
        return all(self._peek(ahead) == character for ahead, character in enumerate(text))

    # Words

    def _open(self) -> _OpenWord:
        if self.word is None:
            self.word = _OpenWord()
        return self.word

    def _content(self, text: str, *, plain: bool = False) -> None:
        """Adds text that stands for itself to the word."""
        word = self._open()
        word.parts.add(text)
        word.empty = word.empty and not text
        if not plain:
            word.plain = False
        elif word.plain:
            word.front.append(text)

    def _expansion(self) -> None:
        """Notes that the shell will put something else there."""
        word = self._open()
        word.literal = word.plain = word.empty = False
        self.shell = True

    def _end_word(self) -> None:
        word, self.word = self.word, None
        if word is None:
            return
        parts = word.parts.done()
        if self.first:
            front, text = "".join(word.front), parts[0] if len(parts) == 1 else ""
            builtin = word.literal and text in _BUILTINS
            if _ASSIGNMENT.match(front) or builtin or (word.plain and front in _RESERVED):
                self.shell = True
        if self.redirect != ">":
            self.words.append(Word(parts, word.literal))
        self.first, self.redirect = False, ""

    def _hole(self, placeholder: Placeholder, context: Context) -> None:
        if self.lost:
            raise _refusal(placeholder, self.lost, _FRONT_HINT)
        word = self._open()
        following = self._peek(1)
        ends = following == "" or (isinstance(following, str) and following in _DELIMITERS)
        alone = context == "plain" and word.empty and word.plain and ends and not self.redirect
        hole = Hole(placeholder, context, alone, word.empty)
        word.parts.add(hole)
        word.empty = word.plain = False
        self.script.add(hole)
        self.at += 1

    def _unclosed(self, opening: str, hint: str) -> None:
        """Refuses an end in the middle, unless the scanner is lost and the shell may well see it otherwise."""
        if not self.lost:
            raise TemplateError(f"a {opening} is never closed", hint=hint)

    def _inside(self, quote: str) -> Symbol:
        """Gives the next symbol between quotes; the end of all counts as the closing quote once it was accepted."""
        symbol = self._peek()
        if symbol != "":
            return symbol
        self._unclosed(quote, f"close it, or write \\{quote} for the character itself")
        return quote

    # Constructs

    def _in_commands(self, closing: str, *, nested: bool) -> None:
        """Reads commands up to ``closing``, which is ``)`` or the end of all.

        Args:
            closing: the character that ends them.
            nested: they are inside ``$(…)``, where a ``)`` of a case would be taken for its end.
        """
        while (symbol := self._peek()) != "":
            if isinstance(symbol, Placeholder):
                self._hole(symbol, "plain")
            elif symbol in _BLANKS:
                self._end_word()
                self._take()
            elif symbol == ")" and closing:
                self._end_word()
                self._take()
                return
            elif symbol in "\n;&|<>()":
                self._operator(symbol, nested=nested)
            elif symbol == "#" and self.word is None:
                self._in_comment()
            else:
                self._in_word(symbol, nested=nested)
        if closing:
            self._unclosed("(", "quote it as '(' if it is meant literally")
        self._end_word()

    def _in_word(self, symbol: str, *, nested: bool) -> None:
        if symbol == "'":
            self._in_single()
        elif symbol == '"':
            self._in_double()
        elif symbol == "\\":
            self._backslash()
        elif symbol == "$":
            self._dollar()
        elif symbol == "`":
            self._in_backticks()
        else:
            if nested and self.word is None and self._is_case():
                self.lost = "stands after a 'case' inside $(…)"
            if symbol in "*?[" or (symbol == "~" and self.word is None):
                self._open().literal = False
                self.shell = True
            self._content(self._take(), plain=True)

    def _is_case(self) -> bool:
        after = self._peek(4)
        return self._follows("case") and isinstance(after, str) and (after == "" or after in _BLANKS + "\n")

    def _operator(self, symbol: str, *, nested: bool) -> None:
        self._end_word()
        self.shell = True
        if self._follows("<<<"):
            self._take(3)
            self.redirect = "<"
            return
        if self._follows("<<"):
            self.here_document = True
            self._take(2)
            self.redirect = "<"
            return
        self._take()
        if symbol == "(":
            self._in_commands(closing=")", nested=nested)
        elif symbol in "<>":
            self.redirect = symbol
            if self._peek() in {"&", "|", ">"}:
                self._take()
        elif symbol == "\n" and self.here_document:
            self.lost = "stands in or after a here-document"
            while (symbol_inside := self._peek()) != "":
                if isinstance(symbol_inside, Placeholder):
                    raise _refusal(symbol_inside, self.lost, _FRONT_HINT)
                self._take()

    def _in_comment(self) -> None:
        self.shell = True
        while (symbol := self._peek()) not in {"", "\n"}:
            if isinstance(symbol, Placeholder):
                raise _refusal(symbol, "stands in a comment", "take the comment out, or quote its #")
            self._take()

    def _in_single(self) -> None:
        self._take()
        self._content("")
        while (symbol := self._inside("'")) != "'":
            if isinstance(symbol, Placeholder):
                self._hole(symbol, "single")
            else:
                self._content(self._take())
        self._take()

    def _in_double(self) -> None:
        self._take()
        self._content("")
        while (symbol := self._inside('"')) != '"':
            if isinstance(symbol, Placeholder):
                self._hole(symbol, "double")
            elif symbol == "\\":
                self._backslash(escapable='$`"\\\n')
            elif symbol == "$":
                self._dollar(in_double=True)
            elif symbol == "`":
                self._in_backticks()
            else:
                self._content(self._take())
        self._take()

    def _backslash(self, escapable: str = "") -> None:
        """Reads a backslash and what it escapes; inside double quotes it escapes only a few characters."""
        following = self._peek(1)
        if isinstance(following, Placeholder):
            doubled = "{{" + following.text + "}}"
            raise _refusal(following, "has a backslash before it", f"for literal braces write {doubled}")
        if following == "":
            raise TemplateError("the command ends in a backslash", hint="write \\\\ for the character itself")
        self._take()
        if following == "\n":
            self.shell = True  # the two vanish, which only the shell does
            self._take()
        elif escapable and following not in escapable:
            self._content("\\")
        else:
            self._content(self._take())

    def _dollar(self, *, in_double: bool = False) -> None:
        following = self._peek(1)
        if isinstance(following, Placeholder):
            raise _dollar_refusal(following)
        if following in {"'", '"'} and not in_double:
            self.lost = "stands after a $ with a quote, which shells read differently"
        # A $ that begins nothing stays as it is, which only the shell's own rules say.
        self._expansion()
        if self._follows("$(("):
            self._take(3)
            self._in_arithmetic()
        elif following == "(":
            self._take(2)
            self._in_substitution()
        elif following == "{":
            self._take(2)
            self._in_parameter()
        elif following != "" and (following in "$?!#@*-" or following.isdigit() or _NAME_START.match(following)):
            self._take(2)
        else:
            self._take()

    def _in_substitution(self) -> None:
        outer, self.word = self.word, None
        state = self.first, self.redirect
        self.redirect = ""
        self._in_commands(closing=")", nested=True)
        self.word = outer
        self.first, self.redirect = state

    def _in_arithmetic(self) -> None:
        depth = 0
        while (symbol := self._peek()) != "":
            if isinstance(symbol, Placeholder):
                if symbol.kind != "n":
                    raise _refusal(symbol, "stands inside $((…))", "v={line}; echo $((v + 1))")
                self._hole(symbol, "arithmetic")
                continue
            if symbol == "$" and isinstance(following := self._peek(1), Placeholder):
                raise _dollar_refusal(following)
            if symbol in "'\"\\`" or self._follows("$("):
                self.lost = "stands after a $((…)) that holds quotes or a command"
            if symbol == ")" and depth == 0:
                if self._peek(1) != ")":
                    self.lost = "stands after a $(( that ends in a single )"
                self._take(2 if self._peek(1) == ")" else 1)
                return
            depth += (symbol == "(") - (symbol == ")")
            self._take()
        self._unclosed("$((", "end it with ))")

    def _in_parameter(self) -> None:
        depth = 1
        while (symbol := self._peek()) != "":
            if isinstance(symbol, Placeholder):
                raise _refusal(symbol, "stands inside ${…}", _FRONT_HINT)
            if symbol in "'\"\\`" or self._follows("$("):
                # Shells differ in where such an expansion ends.
                self.lost = "stands after a ${…} that holds quotes or a command"
            if self._follows("${"):
                depth += 1
                self._take()
            depth -= symbol == "}"
            self._take()
            if depth == 0:
                return
        self._unclosed("${", "end it with }")

    def _in_backticks(self) -> None:
        self._expansion()
        self._take()
        while (symbol := self._inside("`")) != "`":
            if isinstance(symbol, Placeholder):
                raise _refusal(symbol, "stands inside `…`", "write $(…) for `…`")
            self._take(2 if symbol == "\\" else 1)
        self._take()


def _refusal(placeholder: Placeholder, why: str, hint: str) -> TemplateError:
    return TemplateError(f"{{{placeholder.text}}} {why}", hint=hint)


def _dollar_refusal(placeholder: Placeholder) -> TemplateError:
    hint = f"write ${{{{{placeholder.text}}}}} for the shell's variable, \\$ for the character $"
    return _refusal(placeholder, "has a $ before it", hint)
