"""``dask://scheduler:8786`` and ``dask+tls://…?ca=…&cert=…&key=…`` — an executor inside every worker of a Dask cluster.

Dask carries and nothing more: what runs where is decided by the schedule that decides for every other node. A front end
opens a connection to each worker, as Dask's own clients do for large data, and goes through the scheduler where it does
not reach a worker. Why a connection and not an actor: measured on two noisy cores, a round trip takes 0.2 ms; by the
methods of an actor 0.9 ms, and 1.4 ms through the scheduler, where each of them opens another connection. An actor is
also a task, which waits until the worker's threads have nothing else to do.
"""

from __future__ import annotations

import inspect
import pickle
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.comm import connect
from distributed.core import send_recv
from distributed.security import Security

from serai.dispatch.engines import dask_far
from serai.dispatch.engines.dask_link import DaskLink, LoopThread
from serai.dispatch.ports import NodeSpec
from serai.errors import AccessError, HostKeyRefused, HostUnreachable, LoginRefused, NoPython, UsageError
from serai.travel.boot import EXECUTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Link
    from serai.session.url import Url

PORT = 8786
SCHEDULER_S = 10.0  # for a scheduler to answer
DIRECT_S = 3.0  # for a worker to answer; after that the scheduler is asked to relay
CONNECT_S = 25.0  # for the whole way to a started agent
TLS = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Dask cluster.

    Attributes:
        name: what people call it: its scheduler's host and port.
        address: of its scheduler, as Dask writes it.
        options: that Dask's connections are opened with.
    """

    name: str
    address: str
    options: dict[str, Any] = field(hash=False)

    @classmethod
    def at(cls, url: Url) -> Cluster:
        """The cluster that a URL names.

        Raises:
            UsageError: the URL says what a cluster does not have, or a file for TLS cannot be used.
        """
        if url.user or url.path.strip("/"):
            raise UsageError(f"{url}: a Dask cluster has no user and no path", hint="write dask://HOST:PORT")
        secure = url.scheme.endswith("+tls")
        files = {name: str(Path(url.query[key]).expanduser()) for key, name in TLS.items() if key in url.query}
        if files and not secure:
            raise UsageError(f"{url}: ca, cert and key belong to dask+tls://")
        for name in files.values():
            if not Path(name).is_file():
                raise UsageError(f"{url}: there is no file {name}")
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host
        place = f"{host}:{url.port or PORT}"
        try:
            security = Security(require_encryption=True, **files) if files else Security()
            options = security.get_connection_args("client")
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{url}: its certificates cannot be used: {error}") from error
        if secure and options["ssl_context"] is None:
            raise UsageError(
                f"{url}: Dask's TLS needs an authority, a certificate and its key",
                hint="add ?ca=…&cert=…&key=…, or set distributed.comm.tls in Dask's configuration",
            )
        return cls(place, f"{'tls' if secure else 'tcp'}://{place}", options)

    async def workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler says of its workers, by their address."""
        comm = await self._open(self.address, SCHEDULER_S)
        try:
            answer = await send_recv(comm, op="identity")
        finally:
            comm.abort()
        found: dict[str, dict[str, Any]] = answer["workers"]
        return found

    async def start_agent(self, address: str, python: str | None) -> Any:
        """Start an agent in a worker; returns the connection to it.

        Raises:
            AccessError: the worker, or the scheduler in its place, refuses.
            OSError: neither answers.
        """
        try:
            comm = await self._open(address, DIRECT_S)
        except OSError:
            comm = await self._by_relay(address)
        try:
            await _install(comm, "run", address)
            program = EXECUTOR.pipe_source().encode()
            await comm.write({"op": dask_far.EXECUTOR, "reply": False, "program": program, "python": python})
            answer = await comm.read()
        except BaseException:
            comm.abort()
            raise
        if "refused" in answer:
            raise NoPython(answer["refused"], host=_place(address), hint="name an interpreter with ?python=")
        return comm

    async def _by_relay(self, address: str) -> Any:
        comm = await self._open(self.address, SCHEDULER_S)
        try:
            await _install(comm, "run_function", self.name)
            await comm.write({"op": dask_far.RELAY, "reply": False, "address": address})
            answer = await comm.read()
        except BaseException:
            comm.abort()
            raise
        if "refused" in answer:
            raise HostUnreachable(answer["refused"], host=_place(address), tried=("directly", "through the scheduler"))
        return comm

    async def _open(self, address: str, timeout_s: float) -> Any:
        # Nothing is unpickled that comes from there: deserialize=False.
        return await connect(address, timeout=timeout_s, deserialize=False, **self.options)


class DaskEngine:
    """Starts agents inside the workers of Dask clusters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._workers: dict[str, tuple[Cluster, str]] = {}  # by the node's name: its cluster and its address

    def nodes(self, site: SiteSpec) -> list[NodeSpec]:
        """See `Engine.nodes`. Workers that join the cluster later are not used."""
        site.url.options(frozenset({*TLS, "slots", "python", "scratch", "memory", "linger", "ssh_config"}))
        cluster = Cluster.at(site.url)
        try:
            found = self._loop().run(cluster.workers(), SCHEDULER_S + 2.0)
        except Exception as error:  # whatever a server makes of it that is none of Dask's
            raise _refusal(error, cluster.name, cluster.address) from error
        if not found:
            raise AccessError("the Dask cluster has no workers", host=cluster.name, hint="start some, then this")
        specs = []
        for address, facts in sorted(found.items()):
            name = _place(address)
            self._workers[name] = (cluster, address)
            memory = facts.get("memory_limit") or None
            specs.append(
                NodeSpec(
                    name=name,
                    site=cluster.name,
                    url=str(site.url),
                    slots=site.slots or facts["nthreads"],
                    memory_bytes=site.memory_bytes or memory,
                    python=site.python,
                    scratch=site.scratch,
                )
            )
        return specs

    def connect(self, spec: NodeSpec, deliver: Callable[[bytes | None], None]) -> Link:
        """See `Engine.connect`."""
        cluster, address = self._workers[spec.name]
        thread = self._loop()
        try:
            comm = thread.run(cluster.start_agent(address, spec.python), CONNECT_S)
        except AccessError:
            raise
        except Exception as error:  # as above
            raise _refusal(error, spec.name, address) from error
        return DaskLink(comm, thread.loop, deliver, spec.name).start()

    def _loop(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread().start()
            return self._thread

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()


def _place(address: str) -> str:
    return address.partition("://")[2] or address


async def _install(comm: Any, operation: str, host: str) -> None:
    """Have a server of Dask execute `dask_far`."""
    text = inspect.getsource(dask_far) + "\ninstall()\n"
    # `exec` is pickled by its name, so that the text may be run by any version of Python.
    arguments = pickle.dumps((text, {"__name__": "serai_dask_far"}), 4)
    answer = await send_recv(comm, op=operation, function=pickle.dumps(exec, 4), args=arguments)
    if answer.get("status") != "OK":
        raise AccessError(
            "it refused to run what an executor is started by",
            host=_place(host),
            hint=f"it said: {answer.get('exception_text', 'nothing')}; its distributed should be 2025.1 or later",
        )


def _refusal(error: Exception, host: str, address: str) -> AccessError:
    """What a failed connection means, for people."""
    chain: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and len(chain) < 10:
        chain.append(now)
        now = now.__cause__ or now.__context__
    text = "; ".join(str(one) for one in chain)
    # Dask's own errors wrap the one that says it best.
    why = next((one.strerror for one in reversed(chain) if isinstance(one, OSError) and one.strerror), str(error))
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return HostKeyRefused(
            "its certificate is not signed by the authority that is known", host=host, hint=f"is ?ca= its own? ({why})"
        )
    if "SSLError" in text or any(isinstance(one, ssl.SSLError) for one in chain):
        said = next((str(one) for one in chain if "SSL" in str(one)), why)
        return LoginRefused(f"TLS was refused: {said}", host=host, hint="did its authority sign ?cert= and ?key=?")
    if "encryption required" in text:
        return LoginRefused("Dask's configuration wants TLS", host=host, hint="write dask+tls://")
    if not isinstance(error, OSError):
        return AccessError(f"it does not speak as Dask does: {text}", host=host, hint=f"what listens at {address}?")
    return HostUnreachable(
        f"nothing of Dask answers: {why or 'no answer in time'}",
        host=host,
        tried=(f"connecting to {address}",),
        hint="is it running, is this its port, and does it want dask+tls://?",
    )
