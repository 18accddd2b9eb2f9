"""What workers are told that they run: commands, executables or functions; and the secret they share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.access.stores.certificates import pinned_certificate
from serai.describe.mapreduce import Binaries
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.apps.workers.stewards import Place
    from serai.describe.mapreduce import Commands

SORT_BYTES = 256 << 20  # that a worker may hold before it writes a run to disk


PARTS = ("mapper", "combiner", "reducer")
BUILT_IN = ("sum", "count")


@dataclass(frozen=True, slots=True)
class Job:
    """What is run.

    Attributes:
        program: commands or executables.
        functions: which of `PARTS` are functions instead.
        body: these by name, as cloudpickle packed them.
        modules: the text of modules that loading them needs, by name.
        records: what a mapper that is a function gets: lines as text, or as bytes.
        pickled: outputs are pickled pairs, rather than lines of text.
        sort_bytes: that a worker may hold before it writes a run to disk.
    """

    program: Commands | Binaries
    functions: tuple[str, ...] = ()
    body: bytes = b""
    modules: Mapping[str, str] = field(default_factory=dict, hash=False)
    records: str = "lines"
    pickled: bool = False
    sort_bytes: int = SORT_BYTES

    def why_not(self, ad: Mapping[str, Any]) -> str:
        """Why a worker cannot run it; "" when it can."""
        if not self.functions:
            return ""
        python = ad.get("python")
        words = python if isinstance(python, list) else str(python).split(".")
        version = ".".join(str(part) for part in words[:2])
        mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if version == mine:
            return ""
        return f"its Python is {version}, and functions were pickled by {mine}; ?python= names a fitting interpreter"

    def head_for(self, place: Place | None) -> dict[str, Any]:
        """What a worker is told: the kinds of mapper, combiner and reducer, and how it is to sort.

        Args:
            place: where it was started; None when somebody else started it.

        Raises:
            UsageError: it runs commands, which somebody else's worker does not have.
        """
        parts = dict(zip(PARTS, self._parts(place), strict=True))
        form = "pickle" if self.pickled else "text"
        how = {"records": self.records, "form": form, "memory_bytes": self.sort_bytes}
        return {**parts, **how, "modules": dict(self.modules)}

    def _parts(self, place: Place | None) -> list[dict[str, Any] | None]:
        if isinstance(self.program, Binaries):
            image = "" if place is None else place.image
            combine = f"{image} combine" if self.program.combine else None
            texts = (f"{image} map", combine, f"{image} reduce")
        else:
            texts = (self.program.mapper, self.program.combiner, self.program.reducer)
        return [self._part(name, text, place) for name, text in zip(PARTS, texts, strict=True)]

    def _part(self, name: str, text: str | None, place: Place | None) -> dict[str, Any] | None:
        if name in self.functions:
            return {"kind": "function"}
        if not text:
            return None
        if text in BUILT_IN:
            return {"kind": text}
        if place is None:
            raise UsageError("commands run where their files were sent: on the hosts of the session")
        return {"kind": "command", "command": text, "directory": f"{place.facts['room']}/files"}


class Shuffle:
    """What the workers of one run share, so that they can talk to each other and to nobody else.

    A certificate that is pinned on both sides, and its key. They reach workers through the gateway only.

    Args:
        wall: seconds since the epoch, for the certificate's dates.

    Attributes:
        facts: ``cert`` and ``key`` in PEM.
    """

    def __init__(self, wall: float) -> None:
        self.facts = pinned_certificate("serai mapreduce", wall)
