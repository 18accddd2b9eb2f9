"""Stays at home: packs a program that travels as source text."""

from __future__ import annotations

import base64
import functools
import json
import re
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MARK = b"\0serai\0"  # what a program says first: whatever a login shell prints before it is passed over
OLDEST = (3, 8)
_IMPORT = re.compile(r"^ *from (\.+)([\w.]*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)
_FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:    .*\n|\n)*", re.MULTILINE)

# An importer in the sense of PEP 302: modules that travel import each other as they do at home, at the top or later on.
LOADER = """
def load(sources, name):
    import sys
    from importlib.machinery import ModuleSpec
    root = "serai_travel"
    class Carried:
        @staticmethod
        def find_spec(full, path=None, target=None):
            above, _, short = full.partition(".")
            if above != root:
                return None
            if short in sources:
                return ModuleSpec(full, Carried, origin="<serai_travel>/" + short.replace(".", "/") + ".py")
            if not short or any(one.startswith(short + ".") for one in sources):
                return ModuleSpec(full, Carried, is_package=True)
            return None
        @staticmethod
        def create_module(spec):
            return None
        @staticmethod
        def exec_module(module):
            if module.__spec__.origin:
                module.__file__ = module.__spec__.origin
                exec(compile(Carried.get_source(module.__name__), module.__file__, "exec"), module.__dict__)
        @staticmethod
        def get_source(full):
            return sources.get(full.partition(".")[2])
    sys.meta_path.insert(0, Carried)
    __import__(root + "." + name)
    return sys.modules[root + "." + name]
"""

# One line, and no quote within it but one kind: login shells differ. It reads exactly what is its own.
_FIRST = (
    r"import os,sys\nb=bytes()\nwhile len(b)<{size}:\n c=os.read(0,{size}-len(b))\n if not c:sys.exit(1)\n b+=c\n"
    r"if sys.version_info<{oldest}:sys.exit(sys.version.split()[0])\nimport zlib\nexec(zlib.decompress(b))"
)


@functools.cache
def sources(*programs: str) -> dict[str, str]:
    """The text of modules by name (``executor.agent``), of all that they import here, and of their ``loader``."""
    here = resources.files(__package__)
    found: dict[str, str] = {}
    wanted = list(programs)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = here.joinpath(*_path(name)).read_text(encoding="utf-8")
            wanted += _imported(name, found[name], lambda other: here.joinpath(*_path(other)).is_file())
    return {**{name: found[name] for name in sorted(found)}, "loader": LOADER}


def _path(name: str) -> list[str]:
    return f"{name}.py".replace(".", "/", name.count(".")).split("/")


def _imported(name: str, text: str, is_module: Callable[[str], bool]) -> Iterator[str]:
    """What a module imports here, also later on. By its text: to parse all of them takes longer than to start them."""
    for dots, base, names in _IMPORT.findall(_FOR_TYPES.sub("", text)):
        above = [*name.split(".")[: -len(dots)], *filter(None, [base])]
        if base and is_module(".".join(above)):
            yield ".".join(above)
        else:  # from a package: they are modules
            parts = (one.partition(" as ")[0].strip() for one in names.strip("()").split(","))
            yield from (".".join([*above, one]) for one in parts if one)  # the last of several lines ends in a comma


@dataclass(frozen=True)
class Traveller:
    """A program that travels, with all that it imports here.

    Attributes:
        name: of the module that begins: it has ``serve_pipes(fd_in, fd_out, sources)``.
        more: modules that other processes of it begin with.
    """

    name: str
    more: tuple[str, ...] = ()

    def sources(self) -> dict[str, str]:
        """The text of every module by name, and of what loads them."""
        return sources(self.name, *self.more)

    def pipe_source(self, sources: Mapping[str, str] | None = None) -> str:
        """The program behind its standard input and output, for ``python -c``; it fits into one argument.

        Args:
            sources: the text of its modules, where that is not to be the usual one.
        """
        parcel = base64.b85encode(zlib.compress(json.dumps(sources or self.sources()).encode())).decode()
        return (
            f"import base64, json, os, zlib\nparcel = json.loads(zlib.decompress(base64.b85decode({parcel!r})))\n"
            "exec(parcel['loader'])\nfd_in, fd_out = os.dup(0), os.dup(1)\nos.dup2(2, 1)\n"
            f"load(parcel, {self.name!r}).serve_pipes(fd_in, fd_out, parcel)\n"
        )

    def packed(self, *, lingers: bool = False) -> bytes:
        """The program and what starts it; the node's interpreter reads it from its standard input.

        Args:
            lingers: it may outlive the connection, so nothing that it says may go there.
        """
        return _packed(self, lingers)

    def program(self, *, lingers: bool = False) -> str:
        """What the interpreter is given with ``-c``; it reads the rest from its standard input."""
        first = _FIRST.format(size=len(self.packed(lingers=lingers)), oldest=OLDEST)
        return f'exec("{first}")'

    def command(self, python: str, *, lingers: bool = False) -> str:
        """What the node's shell is given.

        Args:
            python: the interpreter, with arguments if there are some, as text for that shell.
            lingers: see `packed`.
        """
        return f"{python} -u -c '{self.program(lingers=lingers)}'"


def script(name: str) -> str:
    """A program that travels as a file, ``python3 -IS FILE ARGUMENT``: the module's ``main(ARGUMENT)``."""
    parcel = json.dumps(sources(name))
    return (
        f"import json, sys\nparcel = json.loads({parcel!r})\nexec(parcel['loader'])\n"
        f"load(parcel, {name!r}).main(sys.argv[1])\n"
    )


@functools.cache
def _packed(traveller: Traveller, lingers: bool) -> bytes:
    quiet = "none = os.open(os.devnull, os.O_WRONLY)\nos.dup2(none, 1)\nos.dup2(none, 2)\n" if lingers else ""
    text = (
        f"import json, os\nparcel = json.loads({json.dumps(traveller.sources())!r})\nexec(parcel['loader'])\n"
        "fd_in, fd_out, none = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)\n"
        "os.dup2(none, 0)\nos.dup2(2, 1)\nos.close(none)\n"
        f"program = load(parcel, {traveller.name!r})\nos.write(fd_out, {MARK!r})\n{quiet}"
        "program.serve_pipes(fd_in, fd_out, parcel)\nos._exit(0)\n"
    )
    return zlib.compress(text.encode())


EXECUTOR = Traveller("executor.agent", more=("executor.lane",))
PORTER = Traveller("porter.serve")
SHUTTLE = Traveller("copying.shuttle")
STEWARD = Traveller("steward")
WORKER = Traveller("mapreduce.worker")
