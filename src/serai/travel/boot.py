"""Stays at home: packs a program that travels as source text."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = b"\0serai\0"  # what a program says first: whatever a login shell prints before it is passed over
OLDEST = (3, 8)

LOADER = """
def load(sources, names):
    import sys, types
    def package(full):
        if full not in sys.modules:
            made = sys.modules[full] = types.ModuleType(full)
            made.__path__ = []
            above, _, last = full.rpartition(".")
            if above:
                setattr(package(above), last, made)
        return sys.modules[full]
    for name in names:
        full = "serai_travel." + name
        if full not in sys.modules:
            above, _, last = full.rpartition(".")
            home = package(above)
            module = sys.modules[full] = types.ModuleType(full)
            module.__package__ = above
            module.__file__ = "<serai_travel>/" + name.replace(".", "/") + ".py"
            exec(compile(sources[name], module.__file__, "exec"), module.__dict__)
            setattr(home, last, module)
    return sys.modules[full]
"""

# One line, and no quote within it but one kind: login shells differ. It reads exactly what is its own.
_FIRST = (
    r"import os,sys\nb=bytes()\nwhile len(b)<{size}:\n c=os.read(0,{size}-len(b))\n if not c:sys.exit(1)\n b+=c\n"
    r"if sys.version_info<{oldest}:sys.exit(sys.version.split()[0])\nimport zlib\nexec(zlib.decompress(b))"
)


@functools.cache
def sources(names: tuple[str, ...]) -> dict[str, str]:
    """The text of modules by name (``executor.agent``), and of what loads them (``loader``)."""
    here = resources.files(__package__)
    texts = {name: here.joinpath(*f"{name}.py".replace(".", "/", name.count(".")).split("/")) for name in names}
    return {**{name: path.read_text(encoding="utf-8") for name, path in texts.items()}, "loader": LOADER}


@dataclass(frozen=True)
class Traveller:
    """A program that travels; the last of the modules it begins with has ``serve_pipes(fd_in, fd_out, sources)``.

    Attributes:
        modules: all that are sent, each after those it imports.
        first: those that it begins with.
    """

    modules: tuple[str, ...]
    first: tuple[str, ...]

    def sources(self) -> dict[str, str]:
        """The text of every module by name, and of what loads them."""
        return sources(self.modules)

    def pipe_source(self, sources: Mapping[str, str] | None = None) -> str:
        """The program behind its standard input and output, for ``python -c``; it fits into one argument.

        Args:
            sources: the text of its modules, where that is not to be the usual one.
        """
        parcel = base64.b85encode(zlib.compress(json.dumps(sources or self.sources()).encode())).decode()
        return (
            f"import base64, json, os, zlib\nparcel = json.loads(zlib.decompress(base64.b85decode({parcel!r})))\n"
            "exec(parcel['loader'])\nfd_in, fd_out = os.dup(0), os.dup(1)\nos.dup2(2, 1)\n"
            f"load(parcel, {self.first!r}).serve_pipes(fd_in, fd_out, parcel)\n"
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


@functools.cache
def _packed(traveller: Traveller, lingers: bool) -> bytes:
    quiet = "none = os.open(os.devnull, os.O_WRONLY)\nos.dup2(none, 1)\nos.dup2(none, 2)\n" if lingers else ""
    text = (
        f"import json, os\nparcel = json.loads({json.dumps(traveller.sources())!r})\nexec(parcel['loader'])\n"
        "fd_in, fd_out, none = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)\n"
        "os.dup2(none, 0)\nos.dup2(2, 1)\nos.close(none)\n"
        f"program = load(parcel, {traveller.first!r})\nos.write(fd_out, {MARK!r})\n{quiet}"
        "program.serve_pipes(fd_in, fd_out, parcel)\nos._exit(0)\n"
    )
    return zlib.compress(text.encode())


def _of(folder: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}.{name}" for name in names)


_AGENT = ("wire", "devices", "reach", "facts", "stage", "store", "lanes", "agent")

_OBJECTS = _of("caching", ("replacement", "coming", "log", "limits", "objects"))
CACHING = (
    "reading.patience",
    "peers",
    *_of("reading", ("sources", "web", "direct")),
    *_OBJECTS,
    *_of("caching", ("recalled", "fetches", "sharing", "web", "needs")),
)

EXECUTOR = Traveller(
    modules=(
        "frames",
        "processes",
        *_of("executor", ("wire", "devices", "reach", "facts", "bundle", "capture", "stage", "store")),
        "executor.functions",
        *_of("mount", ("namespace", "tasks")),
        *_of("executor", ("lane", "lanes")),
        *CACHING,
        "executor.agent",
    ),
    first=("frames", "processes", *_of("executor", _AGENT)),
)

_COPYING = _of("copying", ("looks", "lots", "shuttle", "peers"))
_PORTER = (
    "frames",
    "processes",
    *_of("porter", ("calls", "surroundings", "drafts", "files")),
    *_COPYING,
    *_of("porter", ("lineage", "records", "keeper", "waiting", "jobs", "serve")),
)
PORTER = Traveller(modules=_PORTER, first=_PORTER)

_SHUTTLE = _of("copying", ("lots", "shuttle"))
SHUTTLE = Traveller(modules=_SHUTTLE, first=_SHUTTLE)

_STEWARD = ("frames", "processes", *_of("porter", ("surroundings",)), "steward")
STEWARD = Traveller(modules=_STEWARD, first=_STEWARD)

_MAPREDUCE = (
    "keys",
    "link",
    "splits",
    "runs",
    "gathering",
    "commands",
    "mapping",
    "fetching",
    "outputs",
    "reducing",
    "tasks",
    "worker",
)
_WORKER = (
    "frames",
    "processes",
    "gateway",
    "reading.patience",
    "peers",
    *_of("executor", ("wire", "functions")),
    *_of("mapreduce", _MAPREDUCE),
)
WORKER = Traveller(modules=(*_WORKER, *_OBJECTS, "caching.pieces"), first=_WORKER)
