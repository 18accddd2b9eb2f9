"""``local:`` — this machine, as this user. Files are where they are: nothing is copied."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from serai.dispatch.engines.gateway import GatewayLink
from serai.dispatch.ports import NodeSpec
from serai.errors import NoPython

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Link

SETSID_S = 30.0


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
        import execnet  # noqa: PLC0415 - slow to import, and `serai --help` does without

        python = spec.python or sys.executable
        group = execnet.Group()
        try:
            gateway = group.makegateway(f"popen//python={python}")
            # Out of the terminal's group: Ctrl-C is for the front end, which decides what becomes of the tasks.
            gateway.remote_exec("import os\nos.setsid()").waitclose(SETSID_S)
            return GatewayLink(gateway, deliver, group, lingers=spec.linger_s > 0)
        except (OSError, EOFError) as error:
            with contextlib.suppress(OSError, EOFError):
                group.terminate(timeout=1.0)
            why = getattr(error, "strerror", None) or error
            raise NoPython(
                f"cannot start an executor with {python}: {why}",
                host=spec.name,
                hint="name an interpreter with ?python=, at least Python 3.8",
            ) from error

    def close(self) -> None:
        """See `Engine.close`."""
