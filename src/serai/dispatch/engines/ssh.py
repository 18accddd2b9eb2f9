"""``ssh://[user@]host[:port][/scratch]`` — a host through the user's own OpenSSH, one connection each."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
from serai.dispatch.engines.gateway import GatewayLink
from serai.dispatch.ports import NodeSpec
from serai.errors import NodeLost
from serai.session.home import control_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Link

PYTHON = "python3"


class SshLink:
    """A link over a gateway over a connection; ends both."""

    def __init__(self, link: GatewayLink, connection: Connection) -> None:
        self._link = link
        self._connection = connection

    def send(self, frame: bytes) -> None:
        """See `Link.send`."""
        self._link.send(frame)

    def close(self) -> None:
        """See `Link.close`."""
        self._link.close()
        self._connection.close()


class SshEngine:
    """Starts agents on hosts over ssh."""

    def nodes(self, site: SiteSpec) -> list[NodeSpec]:
        """See `Engine.nodes`."""
        url = site.url
        name = url.host or ""
        if url.user:
            name = f"{url.user}@{name}"
        if url.port:
            name = f"{name}:{url.port}"
        return [
            NodeSpec(
                name=name,
                site=name,
                url=str(url),
                slots=site.slots,
                memory_bytes=site.memory_bytes,
                python=site.python,
                scratch=site.scratch,
                ssh_config=site.ssh_config,
                linger_s=site.linger_s or 0.0,
            )
        ]

    def connect(self, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> Link:
        """See `Engine.connect`."""
        from serai.session.url import Url  # noqa: PLC0415 - beside its use

        url = Url.parse(spec.url)
        config = None if spec.ssh_config is None else os.path.expanduser(spec.ssh_config)
        target = Target(url.host or "", url.user, url.port, config)
        connection = Connection(target, control_dir=control_directory(os.environ), clock=SystemClock())
        connection.open()
        try:
            return SshLink(self._gateway(connection, spec, deliver), connection)
        except BaseException:
            connection.close()
            raise

    @staticmethod
    def _gateway(connection: Connection, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> GatewayLink:
        import execnet  # noqa: PLC0415 - slow to import, and `serai --help` does without

        group = execnet.Group()
        python = spec.python or PYTHON
        try:
            gateway = group.makegateway(connection.execnet_spec(python))
            return GatewayLink(gateway, deliver, group, lingers=spec.linger_s > 0)
        except (OSError, EOFError, execnet.HostNotFound) as error:
            code = None
            with contextlib.suppress(Exception):
                code = gateway._io.wait()  # noqa: SLF001 - execnet keeps the exit status there only
            said = connection.gateway_error(python, code)
            with contextlib.suppress(OSError, EOFError):
                group.terminate(timeout=1.0)
            raise said if said is not None else NodeLost(str(error), host=connection.target.host) from error

    def close(self) -> None:
        """See `Engine.close`."""
