"""Serai: one queue over everything you have credentials for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serai.access.jobs import JobService
    from serai.apps.bag import Outcome
    from serai.apps.frontends.commands import matching as files
    from serai.apps.frontends.functions import Future
    from serai.apps.frontends.mapreduce import MapReduceResult
    from serai.apps.frontends.pool import Options, Pool
    from serai.describe.job import Description
    from serai.describe.task import Item, Needs
    from serai.session.context import Context, Session

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Description",
    "Future",
    "Item",
    "JobService",
    "MapReduceResult",
    "Needs",
    "Options",
    "Outcome",
    "Pool",
    "Session",
    "__version__",
    "files",
]

# Loaded when first asked for: the command starts faster than a pool.
_WHERE = {
    "Context": ("serai.session.context", "Context"),
    "Description": ("serai.describe.job", "Description"),
    "Future": ("serai.apps.frontends.functions", "Future"),
    "Item": ("serai.describe.task", "Item"),
    "JobService": ("serai.access.jobs", "JobService"),
    "MapReduceResult": ("serai.apps.frontends.mapreduce", "MapReduceResult"),
    "Needs": ("serai.describe.task", "Needs"),
    "Options": ("serai.apps.frontends.pool", "Options"),
    "Outcome": ("serai.apps.bag", "Outcome"),
    "Pool": ("serai.apps.frontends.pool", "Pool"),
    "Session": ("serai.session.context", "Session"),
    "files": ("serai.apps.frontends.commands", "matching"),
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        module, attribute = _WHERE[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'serai' has no attribute {name!r}")
