"""Which engine carries which scheme: one line each, loaded when first asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, cast

from serai.errors import UsageError

if TYPE_CHECKING:
    from serai.dispatch.ports import Engine

# scheme: (module:class, what to install where it needs more than Serai itself)
ENGINES = {
    "dask": ("serai.dispatch.engines.dask:DaskEngine", "pip install 'serai[dask]'"),
    "dask+tls": ("serai.dispatch.engines.dask:DaskEngine", "pip install 'serai[dask]'"),
    "local": ("serai.dispatch.engines.local:LocalEngine", ""),
    "ssh": ("serai.dispatch.engines.ssh:SshEngine", ""),
}
GROUP = "serai.engines"  # entry points of third parties: scheme = module:class


def engine_for(scheme: str) -> Engine:
    """Make the engine of a scheme.

    Raises:
        UsageError: nothing carries this scheme, or what carries it is not installed.
    """
    if scheme in ENGINES:
        where, hint = ENGINES[scheme]
        module, _, name = where.partition(":")
        try:
            return cast("Engine", getattr(import_module(module), name)())
        except ImportError as error:
            raise UsageError(f"{scheme}:// needs a package that is not installed: {error.name}", hint=hint) from error
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and only third parties need it

    for point in entry_points(group=GROUP):
        if point.name == scheme:
            return cast("Engine", point.load()())
    near = difflib.get_close_matches(scheme, ENGINES, 1)
    hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(sorted(ENGINES))
    raise UsageError(f"nothing here carries {scheme}://", hint=hint)
