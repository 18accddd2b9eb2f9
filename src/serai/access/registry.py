"""Which mediator implements what for a scheme: one line each, loaded when first asked for.

Third parties add theirs by entry points: a name like ``irods.files`` or ``pbs.jobs`` in the group ``serai.mediators``.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from serai.errors import UsageError

# scheme: ({capability: "module:name"}, what to install where it needs more than Serai itself)
MEDIATORS: dict[str, tuple[dict[str, str], str]] = {
    "any": ({"files": "serai.access.filesystems.anywhere:AnyFileSystem"}, ""),
    "chirp": ({"files": "serai.access.stores.chirp:ChirpFileSystem"}, ""),
    "local": ({"files": "serai.access.filesystems.local:LocalFiles", "jobs": "serai.access.jobs:local_jobs"}, ""),
    "s3": ({"files": "serai.access.stores.objects:S3FileSystem"}, "pip install 'serai[s3]'"),
    "ssh": ({"files": "serai.access.filesystems.ssh:SshFileSystem", "jobs": "serai.access.jobs:ssh_jobs"}, ""),
    "store": ({"files": "serai.access.filesystems.store:StoreFileSystem"}, "pip install 'serai[store]'"),
}
GROUP = "serai.mediators"


def mediator(scheme: str, capability: str) -> Any:
    """What implements a capability (``jobs``, ``files``) for a scheme.

    Raises:
        UsageError: nothing does, or what does is not installed.
    """
    where, hint = MEDIATORS.get(scheme, ({}, ""))
    if capability in where:
        module, _, name = where[capability].partition(":")
        try:
            return getattr(import_module(module), name)
        except ImportError as error:
            raise UsageError(f"{scheme}: needs a package that is not installed: {error.name}", hint=hint) from error
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and only third parties need it

    for point in entry_points(group=GROUP, name=f"{scheme}.{capability}"):
        return point.load()
    able = sorted(name for name, (found, _) in MEDIATORS.items() if capability in found)
    near = difflib.get_close_matches(scheme, able, 1)
    raise UsageError(
        f"nothing here has {capability} for {scheme}:",
        hint=f"did you mean {near[0]}:?" if near else "known: " + ", ".join(able),
    )
