"""Where files lie: an input in its task's directory, an output on the front end, and an output on its way there.

Everything here is text: paths are normalised without looking at a disk, so ``a/../b`` is ``b`` even where ``a`` is a
symbolic link. An input may be a URL; then its path is taken as it stands.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serai.describe.task import Item

_FOREIGN = "inputs"  # the directory, in a task's own, of inputs from outside the working directory
_DIGEST_CHARS = 12
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(local|file):", re.ASCII)
# What file systems are told at the very end of a URL; it is no part of a path.
_OPTIONS = re.compile(
    r"(?i:s3|s3a)://.*(\?(?:endpoint|region|profile)=[^?]*)"
    r"|(?i:chirp)://.*(\?auth=[a-z,]+)"
    r"|(?i:store)://.*(\?fingerprint=[0-9A-Za-z:]+)",
    re.ASCII | re.DOTALL,
)
_THIS_MACHINE = frozenset({"", "localhost", "127.0.0.1", "[::1]"})


def is_url(text: str) -> bool:
    """Whether an input is named by a URL; a file whose name looks like one is written ``./local:x``."""
    return _URL.match(text) is not None


def path_here(text: str) -> str | None:
    """The path that an input has on the front end, which may be relative; None for a URL of elsewhere.

    ``local:``, ``file:`` and an ``any://`` that names no other host are paths of the front end.
    """
    match = _URL.match(text)
    if match is None:
        return text
    scheme = (match[1] or match[2]).lower()
    if scheme not in {"local", "file", "any"}:
        return None
    rest = text[len(scheme) + 1 :].removeprefix("//")
    if scheme != "any":
        return rest
    host, _, path = rest.partition("/")
    if host not in _THIS_MACHINE:
        return None
    return posixpath.expanduser(path) if path == "~" or path.startswith("~/") else f"/{path}"


def split_options(url: str) -> tuple[str, str]:
    """A URL, and what its file system is told at its very end: ``?endpoint=https://s3.example.org``; "" for nothing."""
    match = _OPTIONS.fullmatch(url)
    options = "" if match is None else next(filter(None, match.groups()))
    return url.removesuffix(options), options


def url_parts(url: str) -> tuple[str, str, str]:
    """The host (with user and port, as written), the directory and the name in a URL of elsewhere.

    ``any://lab1/data/x`` is of ``lab1``, ``/data`` and ``x``; ``zip://x::…`` is of no host and no directory.
    """
    url = split_options(url.partition("::")[0])[0]
    authority, slash, path = url.partition("://")[2].partition("/")
    if not slash:
        return "", "", authority
    directory, _, name = (slash + path).rpartition("/")
    return authority, directory, name


@dataclass(frozen=True, slots=True)
class Places:
    """The rules by which a run's files get their places.

    Attributes:
        cwd: the working directory of the run on the front end, absolute.
        out_dir: where outputs go, absolute or relative to ``cwd``; None when the user named none.
        keep_dirs: keep the directories of inputs below ``out_dir``.
    """

    cwd: str
    out_dir: str | None = None
    keep_dirs: bool = False

    def __post_init__(self) -> None:
        if not self.cwd.startswith("/"):
            raise UsageError(f"the working directory {self.cwd!r} is not absolute")

    def absolute(self, path: str) -> str:
        """Gives a path of the front end as an absolute and normal one."""
        return "/" + posixpath.normpath(posixpath.join(self.cwd, path)).lstrip("/")

    def node_path(self, path: str) -> str:
        """Gives the place of an input in its task's directory on a remote node.

        What lies in the working directory keeps its relative path, so that programs which write beside their input or
        name other files relatively work as they do here; anything else goes to ``inputs/<k>/<name>``, where k stands
        for its directory.

        Raises:
            UsageError: the path is empty, or is the working directory itself.
        """
        here = path_here(path)
        if here is None:
            return self._place_of_url(path)
        path = here
        absolute = self.absolute(path)
        inside = _below(absolute, self.absolute("."))
        if not path or not posixpath.basename(absolute) or inside == "":
            raise UsageError(f"{path!r} cannot be an input", hint="name a file, or a directory below this one")
        if inside is not None:
            return inside
        return _foreign(*posixpath.split(absolute))

    def without_repeats(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Gives those of some inputs whose place is neither another one's nor inside of another one.

        Raises:
            UsageError: a path cannot be an input.
        """
        first: dict[str, str] = {}
        for path in paths:
            first.setdefault(self.node_path(path), path)
        return tuple(path for place, path in first.items() if not any(place.startswith(f"{other}/") for other in first))

    @staticmethod
    def _place_of_url(url: str) -> str:
        name = url_parts(url)[2]
        if name in {"", ".", ".."} or "\0" in url:
            raise UsageError(f"{url!r} cannot be an input", hint="name a file")
        where, mark, chain = url.partition("::")
        where, options = split_options(where)
        return _foreign(where.removesuffix(name) + options + mark + chain, name)

    def output_path(self, item: Item, placeholder: str, number: int) -> str:
        """Gives the final, absolute place of an output on the front end.

        Args:
            item: the task's own.
            placeholder: the text of its placeholder: ``out``, ``out:.ext`` or ``out:column``.
            number: the task's number, which names the output of a task without inputs.

        Raises:
            UsageError: there is no such place, it would leave ``out_dir``, or it is one of the task's inputs.
        """
        _, _, argument = placeholder.partition(":")
        if argument and not argument.startswith("."):
            if argument not in item.columns:
                raise UsageError(f"task {number} has no column {argument!r} for {{{placeholder}}}")
            return self.named_output(item, item.columns[argument])
        if self.out_dir is None and not (argument and item.inputs):
            raise UsageError(
                f"there is no place for {{{placeholder}}}",
                hint="say where outputs go: --out DIR"
                + ("" if argument else "; or write {out:.EXT} for a file beside the input"),
            )
        first = item.inputs[0] if item.inputs else str(number)
        here = path_here(first)
        directory, name = posixpath.split(self.absolute(here)) if here is not None else self._elsewhere(first)
        if argument:
            name = (posixpath.splitext(name)[0] if item.inputs else name) + argument
        if self.out_dir is not None:
            directory = self.absolute(self.out_dir) + (self._kept(directory) if item.inputs else "")
        elif here is None:
            raise UsageError(f"there is no place for {{{placeholder}}} beside {first}", hint="say --out DIR")
        return self._not_an_input(item, posixpath.normpath(posixpath.join(directory, name)), placeholder)

    def named_output(self, item: Item, name: str) -> str:
        """Gives the final, absolute place of an output that its task names itself: below ``out_dir``, else ``cwd``.

        Raises:
            UsageError: it would leave that directory, or it is one of the task's inputs.
        """
        base = self.absolute(self.out_dir or ".")
        if name.startswith("/") or ".." in name.split("/") or posixpath.normpath(name) == "." or name.endswith("/"):
            raise UsageError(
                f"{name!r} cannot name an output",
                hint="outputs are named relative to --out DIR (or to this directory), without '..'",
            )
        return self._not_an_input(item, posixpath.normpath(posixpath.join(base, name)), name)

    @staticmethod
    def _elsewhere(url: str) -> tuple[str, str]:
        """The directory, with its host as the first, and the name of a file elsewhere."""
        authority, directory, name = url_parts(url)
        return posixpath.normpath(f"/{authority}/{directory}"), name

    def _kept(self, directory: str) -> str:
        if not self.keep_dirs:
            return ""
        inside = _below(directory, self.absolute("."))
        # A directory elsewhere is kept whole, as `cp --parents` does.
        return directory if inside is None else f"/{inside}"

    def _not_an_input(self, item: Item, final: str, what: str) -> str:
        if any(here is not None and self.absolute(here) == final for here in map(path_here, item.inputs)):
            raise UsageError(
                f"the output {what!r} would replace the input {final}", hint="send outputs elsewhere: --out DIR"
            )
        return final


def _foreign(directory: str, name: str) -> str:
    import hashlib  # noqa: PLC0415 - slow to import, and few inputs lie elsewhere

    digest = hashlib.sha256(directory.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_FOREIGN}/{digest[:_DIGEST_CHARS]}/{name}"


def landing_path(final: str, token: str) -> tuple[str, str]:
    """Gives where an output is written before it is whole.

    Args:
        final: its final path.
        token: what tells this attempt from all others: letters, digits, ``_`` and ``-``.

    Returns:
        A directory beside the final place, thus on the same file system, and the path in it from which one rename
        makes the output visible at once.
    """
    directory, name = posixpath.split(final)
    if not name or name in {".", ".."} or not _TOKEN.fullmatch(token):
        raise ValueError(f"no landing place for {final!r} with token {token!r}")
    landing = posixpath.join(directory, f".serai-{token}")
    return landing, posixpath.join(landing, name)


def _below(path: str, directory: str) -> str | None:
    """Gives ``path`` relative to ``directory``, both absolute and normal; None when it is not in it."""
    if path == directory:
        return ""
    prefix = directory.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
