"""Serai: one queue over everything you have credentials for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serai.apps.frontends.functions import Future
    from serai.apps.frontends.pool import Options, Pool

__version__ = "0.1.0"

__all__ = ["Future", "Options", "Pool", "__version__"]

# Loaded when first asked for: the command starts faster than a pool.
_WHERE = {
    "Future": "serai.apps.frontends.functions",
    "Options": "serai.apps.frontends.pool",
    "Pool": "serai.apps.frontends.pool",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'serai' has no attribute {name!r}")
