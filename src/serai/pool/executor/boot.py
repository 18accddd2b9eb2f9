"""Stays at home: the text that starts an executor on a node."""

from __future__ import annotations

import functools
import json
from importlib import resources

MODULES = (
    "wire",
    "processes",
    "facts",
    "bundle",
    "capture",
    "stage",
    "store",
    "functions",
    "lane",
    "lanes",
    "agent",
)

LOADER = """
def load(sources, names):
    import sys, types
    package = types.ModuleType("serai_executor")
    package.__path__ = []
    sys.modules["serai_executor"] = package
    for name in names:
        full = "serai_executor." + name
        if full in sys.modules:
            module = sys.modules[full]
            continue
        module = types.ModuleType(full)
        module.__package__ = "serai_executor"
        module.__file__ = "<serai_executor>/" + name + ".py"
        sys.modules[full] = module
        exec(compile(sources[name], module.__file__, "exec"), module.__dict__)
        setattr(package, name, module)
    return module
"""

AGENT_MODULES = ("wire", "processes", "facts", "stage", "store", "lanes", "agent")


@functools.cache
def sources() -> dict[str, str]:
    """The text of every module that travels, by name."""
    here = resources.files(__package__)
    texts = {name: here.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return {**texts, "loader": LOADER}


@functools.cache
def pipe_source() -> str:
    """A program that is an executor behind its standard input and output; for `python -c`."""
    parcel = json.dumps(sources())
    return (
        "import os, json\n"
        f"parcel = json.loads({parcel!r})\n"
        "exec(parcel['loader'])\n"
        "fd_in, fd_out = os.dup(0), os.dup(1)\n"
        "os.dup2(2, 1)\n"
        f"load(parcel, {AGENT_MODULES!r}).serve_pipes(fd_in, fd_out, parcel)\n"
    )
