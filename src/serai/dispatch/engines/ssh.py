"""``ssh://[user@]host[:port][/scratch]`` — a host through the user's own OpenSSH, one connection each."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
from typing import TYPE_CHECKING

from serai.access.connections import target_of
from serai.access.openssh import Connection
from serai.clock import SystemClock
from serai.dispatch.ports import NodeSpec
from serai.errors import AccessError, NodeLost, SeraiError
from serai.session.home import control_directory
from serai.travel.boot import EXECUTOR
from serai.travel.executor import wire
from serai.travel.stream import PipeLink, StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serai.access.home_calling import HomeCalling
    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Link

PYTHON = "python3"
START_S = 30.0
LONGEST_SOCKET = 100  # bytes of its path: a little less than any system takes


class SshLink:
    """A link over a connection; ends both, and takes back what let tasks call home."""

    def __init__(self, link: PipeLink, connection: Connection, home: HomeCalling | None) -> None:
        self._link = link
        self._connection = connection
        self._home = home
        self._closing = threading.Lock()
        self._back: tuple[str, str] | None = None

    def send(self, frame: bytes) -> None:
        """See `Link.send`."""
        self._link.send(frame)

    def lead_back(self, there: str, here: str) -> str:
        """See `Leading`."""
        if len(os.fsencode(there)) > LONGEST_SOCKET:
            raise AccessError(f"{there} is too long for the path of a socket", hint="scratch=DIR names another place")
        self._connection.forward_back(there, here)
        self._back = (there, here)
        return there

    def close(self) -> None:
        """See `Link.close`."""
        with self._closing:  # two may ask for it, and neither may end the connection while the other still needs it
            self._link.close()
            if self._home is not None:
                self._home.release(self._connection)
            if self._back is not None:  # the connection may be the user's own, and go on
                with contextlib.suppress(SeraiError):
                    self._connection.end_forward_back(*self._back)
                self._back = None
            self._connection.close()


class SshEngine:
    """Starts agents on hosts over ssh.

    Attributes:
        home: lets the tasks of nodes that ask for it call home; the run sets it, opens it and closes it.
    """

    def __init__(self) -> None:
        self.home: HomeCalling | None = None

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
                home_calling=site.home_calling,
            )
        ]

    def connect(self, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> Link:
        """See `Engine.connect`."""
        from serai.session.url import Url  # noqa: PLC0415 - beside its use

        target = target_of(Url.parse(spec.url), os.environ, spec.ssh_config)
        connection = Connection(target, control_dir=control_directory(os.environ), clock=SystemClock())
        connection.open()
        home = self.home if spec.home_calling else None
        try:
            environment = home.prepare(connection, spec.python or PYTHON) if home is not None else {}
            return SshLink(self._start(connection, spec, deliver, environment), connection, home)
        except BaseException:
            if home is not None:
                home.release(connection)
            connection.close()
            raise

    @staticmethod
    def _start(
        connection: Connection,
        spec: NodeSpec,
        deliver: Callable[[bytes | None], None],
        environment: Mapping[str, str],
    ) -> PipeLink:
        host, python, lingers = connection.target.host, spec.python or PYTHON, spec.linger_s > 0
        if environment:  # an executor's environment is its tasks'
            python = shlex.join(["env", *(f"{name}={value}" for name, value in environment.items())]) + f" {python}"
        words, parcel = EXECUTOR.command(python, lingers=lingers), EXECUTOR.packed(lingers=lingers)
        farewell = wire.pack(wire.BYE) if lingers else None
        try:
            return PipeLink(
                lambda theirs: connection.session(words, theirs.fileno()), parcel, deliver, START_S, farewell=farewell
            )
        except TimeoutError as error:
            raise NodeLost(
                f"it took the login and did not start {python} within {START_S:g} s",
                host=host,
                hint="is the node very busy, or does its shell wait for something?",
            ) from error
        except StartFailed as error:
            raise connection.session_error(python, error.returncode) from error
        except OSError as error:
            raise NodeLost(f"the connection ended: {error}", host=host) from error

    def close(self) -> None:
        """See `Engine.close`."""
