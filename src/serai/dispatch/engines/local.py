"""``local:`` — this machine, as this user. Files are where they are: nothing is copied."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from serai.dispatch.ports import NodeSpec
from serai.errors import NoPython
from serai.travel.boot import EXECUTOR
from serai.travel.executor import wire
from serai.travel.stream import PipeLink, StartFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Link

START_S = 30.0


class LocalLink(PipeLink):
    """A link to an agent of this machine."""

    def lead_back(self, there: str, here: str) -> str:
        """See `Leading`: it is there already."""
        return here


class LocalEngine:
    """Starts agents on this machine."""

    def nodes(self, site: SiteSpec) -> list[NodeSpec]:
        """See `Engine.nodes`."""
        return [
            NodeSpec(
                name=site.url.host or "local",
                site=str(site.url),
                url=str(site.url),
                slots=site.slots,
                memory_bytes=site.memory_bytes,
                python=site.python,
                scratch=site.scratch,
                linger_s=site.linger_s or 0.0,
                in_place=True,
                by_reference=site.python is None,
            )
        ]

    def connect(self, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> Link:
        """See `Engine.connect`."""
        python = [sys.executable] if spec.python is None else shlex.split(spec.python)
        lingers = spec.linger_s > 0
        hint = "name an interpreter with ?python=, at least Python 3.8"
        with tempfile.TemporaryFile() as said:

            def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    [*python, "-u", "-c", EXECUTOR.program(lingers=lingers)],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=said,
                    start_new_session=True,  # Ctrl-C is for the front end, which decides what becomes of the tasks
                )

            try:
                farewell = wire.pack(wire.BYE) if lingers else None
                return LocalLink(start, EXECUTOR.packed(lingers=lingers), deliver, START_S, farewell=farewell)
            except (OSError, StartFailed) as error:
                said.seek(0)
                words = said.read(2000).decode("utf-8", "replace").strip().splitlines()
                why = words[-1] if words else getattr(error, "strerror", None) or error
                raise NoPython(
                    f"cannot start an executor with {shlex.join(python)}: {why}", host=spec.name, hint=hint
                ) from error

    def close(self) -> None:
        """See `Engine.close`."""
