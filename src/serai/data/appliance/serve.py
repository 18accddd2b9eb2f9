"""Starting, listening, limits and the end of an appliance; its ad in the advert service."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import getpass
import os
import platform
import resource
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from serai.access.stores import trust
from serai.access.stores.beside import proof_of
from serai.access.stores.certificates import ensure_certificate, fingerprint_of_file, server_context
from serai.adverts.service import open_adverts
from serai.data.appliance.book import Book
from serai.data.appliance.control import Control, store_ad
from serai.data.appliance.files import Files
from serai.data.appliance.keys import Keys, state_of, write_secret
from serai.data.appliance.paths import Parts, Root
from serai.data.appliance.transfers import Transfers
from serai.data.appliance.uploads import sweep
from serai.data.appliance.webdav import Answers
from serai.data.bodies.load import Load, is_news
from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from serai.clock import Clock

__all__ = ["Settings", "is_loopback", "serve"]

THREADS = 16  # for what a disk may keep waiting
OWNER_S = 366 * 86400.0  # the life of the owner's token, which each start renews
SSHD_PORT = 22
LOOK_S = 0.05  # between looks whether transfers have ended
LOOK_LOAD_S = 1.0  # between looks at how much there is to do
LAST_S = 2.0  # for answers that are written already


@dataclass(frozen=True)
class Settings:
    """What an appliance is started with.

    Attributes:
        directory: what is served.
        host: the address to listen at.
        port: 0 for a free one.
        name: of the store in its ad; by default the host's and the port's.
        size: bytes that all files may have; None: what the disk has.
        cert: a certificate's path (PEM, with its chain), and `key` its key's; None: one is made.
        key: see `cert`.
        tls: whether TLS is spoken on loopback too.
        datasets: names of directories at the top; empty: those that are there.
        attributes: further ones of the ad.
        adverts: the advert service; see `open_adverts`. Empty: no ad.
        ad_life_s: how long the ad lives unless it is renewed.
        at_once: transfers that are served at a time without one being held up by another; when there are more, the ad
            says how long a new one would wait, and nodes go to other stores.
        connections: how many there may be.
        head_s: how long a peer may take for the head of its first request, and to begin another one.
        idle_s: how long a peer may neither send nor take anything.
        end_s: how long transfers may go on when we are told to end.
    """

    directory: str
    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    size: int | None = None
    cert: str | None = None
    key: str | None = None
    tls: bool = False
    datasets: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    adverts: str | None = None
    ad_life_s: float = 180.0
    at_once: int = 16
    connections: int = 512
    head_s: float = 20.0
    idle_s: float = 60.0
    end_s: float = 30.0


def is_any(host: str) -> bool:
    """Whether an address to listen at stands for all that this host has."""
    return host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared only


def is_loopback(host: str) -> bool:
    """Whether only this host reaches an address."""
    return host in {"localhost", "::1"} or host.startswith("127.")


class _Connection(web.RequestHandler):
    """A connection; it ends when no request has come in time, when there are too many, or after its `last` one."""

    __slots__ = ("begun", "busy", "last", "late", "owner")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.owner = server
        self.begun = self.busy = self.last = False
        self.late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.owner.connections) > self.owner.most:
            self.force_close()
            return
        self.late = asyncio.get_running_loop().call_later(self.owner.head_s, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.late is not None:
            self.late.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if not self.begun:
            self.force_close()


class _Server(web.Server):
    """Makes our connections."""

    def __init__(self, answers: Answers, most: int, head_s: float) -> None:
        super().__init__(
            answers,
            keepalive_timeout=head_s,
            access_log=None,
            max_line_size=16 << 10,
            max_field_size=16 << 10,
            read_bufsize=512 << 10,
            lingering_time=2.0,
            auto_decompress=False,  # bytes are kept as they come
        )
        self.most, self.head_s = most, head_s

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def end(self, deadline_s: float) -> None:
        """Close connections: idle ones now, others when their request is done, all at the deadline.

        aiohttp's own `shutdown` drops what still comes, so that an upload could not finish.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while loop.time() < end:
            busy = [one for one in self.connections if isinstance(one, _Connection) and one.busy]
            for one in self.connections:
                if one not in busy:
                    one.close()
            if not busy:
                break
            await asyncio.sleep(LOOK_S)
        await self.shutdown(LAST_S)


class Appliance:
    """The parts of an appliance, put together.

    Args:
        settings: see there.
        clock: tells the time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings, self.clock = settings, clock
        if not os.path.isdir(settings.directory):
            raise UsageError(f"{settings.directory} is no directory")
        self.state = state_of(os.path.realpath(settings.directory))
        self._lock = os.open(os.path.join(self.state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(f"{settings.directory} is being served already") from error
        self.root = Root(settings.directory)
        sweep(self.root.directory)
        self.keys = Keys(os.path.join(self.state, "access.json"))
        book_path = os.path.join(self.state, "book.sqlite")
        self.book = Book(book_path, clock, settings.size, self._free, self._evict, lambda: self.keys.quotas)
        self.files = Files(self.root, self.book, self.keys)
        self.book.reconcile(self.files.everything() if settings.size is not None else self._known())
        self.fingerprint = self.proof = ""
        self.context = self._context()

    def close(self) -> None:
        """Let go of all of it."""
        self.book.close()
        self.files.close()
        self.root.close()
        os.close(self._lock)

    def _free(self) -> int:
        found = os.fstatvfs(self.root.fd)
        return found.f_bavail * found.f_frsize

    def _evict(self, parts: Parts, row: Any) -> bool:
        return self.files.evict(parts, row)

    def _known(self) -> Iterator[tuple[Parts, os.stat_result]]:
        """Files that the book knows: where the disk is the limit, others need not be counted."""
        for parts in self.book.paths():
            with contextlib.suppress(OSError), self.root.at(parts, follow=False) as place:
                yield parts, place.stat()

    def _context(self) -> ssl.SSLContext | None:
        wanted = self.settings
        if is_loopback(wanted.host) and not (wanted.tls or wanted.cert):
            return None
        cert, key = wanted.cert, wanted.key or wanted.cert
        if cert is None or key is None:
            names = [platform.node() or "localhost", "localhost", "127.0.0.1"]
            if wanted.host not in names and not is_any(wanted.host):
                names.append(wanted.host)
            cert, key = ensure_certificate(self.state, names, dt.datetime.fromtimestamp(self.clock.wall(), dt.UTC))
        try:
            self.fingerprint = fingerprint_of_file(cert)
            return server_context(cert, key)
        except (OSError, ValueError) as error:
            raise UsageError(f"{cert} and {key} cannot be used: {error}") from error

    def facts(self, port: int) -> dict[str, Any]:
        """What the status and the ad say: see `store_ad`."""
        wanted, host = self.settings, platform.node() or "localhost"
        address = host if is_any(wanted.host) else wanted.host  # nobody answers at another one
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        tls = "s" if self.context is not None else ""
        where = self.root.directory
        modes = [
            ["direct", f"file://{host}{where}"],
            [f"http{tls}", f"http{tls}://{shown}/"],
            ["webdav", f"dav{tls}://{shown}/"],
            ["store", f"store://{shown}/"],
        ]
        if _answers(SSHD_PORT):
            modes.append(["sftp", f"sftp://{getpass.getuser()}@{host}{where}"])
        return {
            "name": wanted.name or f"{host}:{port}",
            "host": host,
            "modes": modes,
            "fingerprint": f"sha256:{self.fingerprint}" if self.fingerprint else "",
            "datasets": list(wanted.datasets or self._top()),
            "attributes": dict(wanted.attributes),
            "direct": {"path": where, "proof": self.proof},
        }

    def _top(self) -> list[str]:
        names = [entry.name for entry in os.scandir(self.root.directory) if entry.is_dir(follow_symlinks=False)]
        return sorted(name for name in names if not name.startswith(".") and name.isprintable())

    def owner_token(self, port: int, environment: Mapping[str, str]) -> str:
        """Make the token of whoever started us, where this user's clients find it; returns that path."""
        user = getpass.getuser()
        path = os.path.join(self.state, "owner")
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            self.keys.revoke(file.read().strip())
        now = self.clock.wall()
        text, token = self.keys.make_token(user, "/", "a", now + OWNER_S, now)
        write_secret(path, token.name)
        self.proof = proof_of(token.name)
        asked = self.settings.host
        hosts = {platform.node(), "127.0.0.1", "localhost"} if is_any(asked) else {asked}
        if asked == "127.0.0.1":  # by the other name, too
            hosts.add("localhost")
        for host in sorted(hosts - {""}):
            trust.save_token(trust.token_path(host, port, environment), text)
            if self.fingerprint:
                trust.remember(host, port, self.fingerprint, environment)
            else:  # another one was here once, with TLS: its certificate would be looked for
                trust.forget(host, port, environment)
        return trust.token_path(min(hosts - {""}), port, environment)


def _answers(port: int) -> bool:
    """Whether something on this host listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def _may_open_all() -> None:
    """Have as many files open as we may: a bundle alone has some hundred, and some bundles come at a time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # of a system that has no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(settings: Settings, clock: Clock, say: Callable[[str], object], environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT; then transfers that are under way may finish up to a deadline.

    Args:
        settings: see there.
        clock: tells the time.
        say: is told a line at a time where we are, and what a client needs to know.
        environment: where the user's settings and the advert service are.

    Raises:
        UsageError: the directory cannot be served, or the address not be listened at.
    """
    _may_open_all()
    appliance = Appliance(settings, clock)
    disk = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
    listener: asyncio.Server | None = None
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        listening = _listen(settings)
        port: int = listening.getsockname()[1]
        load = Load(clock.now, settings.at_once)
        transfers = Transfers(appliance.files, disk, load, settings.idle_s)
        token = appliance.owner_token(port, environment)
        control = Control(transfers, clock, appliance.facts(port))
        control.answers = Answers(transfers, control, clock, host_only=is_loopback(settings.host))
        server = _Server(control.answers, settings.connections, settings.head_s)
        handshake_s = settings.head_s if appliance.context is not None else None
        listener = await loop.create_server(
            server, sock=listening, ssl=appliance.context, backlog=256, ssl_handshake_timeout=handshake_s
        )
        for line in _greeting(appliance, port, token):
            say(line)
        publishing = asyncio.create_task(_publish(appliance, port, load, say, environment))
        await ended.wait()
        listener.close()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        control.answers.ending = True
        await server.end(settings.end_s)
    finally:
        if listener is not None:
            listener.close()
        disk.shutdown(wait=True, cancel_futures=True)
        appliance.close()


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise UsageError(
            f"{settings.host} port {settings.port} cannot be listened at: {error.strerror or error}",
            hint="choose another with --listen HOST:PORT",
        ) from error


def _greeting(appliance: Appliance, port: int, token: str) -> list[str]:
    facts = appliance.facts(port)
    urls = dict(facts["modes"])
    lines = [f"serving {appliance.root.directory} as {facts['name']}"]
    lines += [f"  {mode:7} {url}" for mode, url in urls.items()]
    if facts["fingerprint"]:
        lines.append(f"  certificate {facts['fingerprint']}")
    return [*lines, f"  your token is in {token}", "ready"]


async def _publish(
    appliance: Appliance, port: int, load: Load, say: Callable[[str], object], environment: Mapping[str, str]
) -> None:
    """Put the store's ad where it is found, again and again, and soon when its load changes; it goes when we go."""
    settings, path = appliance.settings, ""
    if settings.adverts == "":
        return

    def put(waiting_s: float) -> str:
        facts, now = appliance.facts(port), appliance.clock.wall()
        live = sum(lot.live(now) for lot, _ in appliance.book.lots())
        where = f"/stores/{facts['name']}"
        with open_adverts(settings.adverts, environment) as adverts:
            adverts.put(where, store_ad(facts, appliance.book.sums(), live, waiting_s), settings.ad_life_s)
        return where

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError), open_adverts(settings.adverts, environment) as adverts:
            adverts.remove(path)

    said, told_s, due = "", 0.0, appliance.clock.now()
    try:
        while True:
            waiting_s, now = load.waiting_s(), appliance.clock.now()
            if now < due and not is_news(told_s, waiting_s):
                await asyncio.sleep(LOOK_LOAD_S)
                continue
            told_s, due = waiting_s, now + settings.ad_life_s / 3
            try:
                path = await asyncio.to_thread(put, waiting_s)
                said = ""
            except (SeraiError, OSError) as error:  # the service may come back; the files are served meanwhile
                if str(error) != said:
                    said = str(error)
                    say(f"the ad could not be published: {said}")
            await asyncio.sleep(LOOK_LOAD_S)
    finally:
        if path:
            with contextlib.suppress(SeraiError, OSError):
                await asyncio.to_thread(remove)
