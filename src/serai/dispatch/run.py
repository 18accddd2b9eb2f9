"""A run: everything that one pool is made of, put together."""

from __future__ import annotations

import itertools
import os
import random as randomness
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from serai.adverts.service import open_adverts
from serai.clock import SystemClock
from serai.data.digests import Digests
from serai.data.grants import Grants, origin_of
from serai.data.landing import Landing
from serai.describe.ads.software import well_known
from serai.describe.ads.stores import declared, stores_of
from serai.dispatch.carrier import Timing
from serai.dispatch.control.channel import Channel
from serai.dispatch.control.orders import Orders
from serai.dispatch.discovery import Discovery
from serai.dispatch.dispatcher import Dispatcher
from serai.dispatch.engines.registry import engine_for
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.front_end import ARGV, BEGAN, COMMAND, ENDED, KIND
from serai.dispatch.journal import Batch, Journal
from serai.dispatch.reading.gate import Gate
from serai.dispatch.roster import Roster
from serai.dispatch.schedule.events import Limits
from serai.dispatch.schedule.machine import Schedule
from serai.errors import UsageError
from serai.match.communities import Rules
from serai.match.movement import Access, Policy
from serai.pool.members import Patience
from serai.pool.replicas import Replicas
from serai.pool.tasks import matching_of
from serai.quantity import bytes_of
from serai.session.home import state_directory
from serai.travel.caching.replacement import LRU

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from serai.access.home_calling import Front, HomeCalling
    from serai.clock import Clock
    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Engine, NodeSpec
    from serai.dispatch.schedule.events import Event

KEEP = 64 * 1024  # bytes of a standard stream in a result and in the journal; longer ones become files
JOURNAL = "journal.db"
LIVES = "lives"  # how often the run was begun; bundles of different lives have different numbers


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats its nodes."""

    timing: Timing = field(default_factory=Timing)
    patience: Patience = field(default_factory=Patience)
    limits: Limits = field(default_factory=Limits)
    keep_bytes: int = KEEP
    cache_bytes: int | None = None  # of each node's cache, where its site says nothing; None: half of what is free
    replacement: str = LRU
    direct: bool = True  # whether nodes may read inputs at their origins, with what lets them; see `serai.data.grants`
    front: Front | None = None  # how nodes whose tasks may call home reach this machine
    adverts: str | None = None  # where nodes are advertised, and stores found; see `open_adverts`; "" for nowhere
    communities: Rules = field(default_factory=Rules)  # when nodes change the store that they are near to


def moving(
    settings: Settings, policy: str | None, access: str | None, cache: str | None, direct: bool | None = None
) -> Settings:
    """The settings, with what a user says of how tasks and their files come together. None leaves what is there.

    Args:
        settings: all others.
        policy: a name of `Policy`.
        access: a name of `Access`.
        cache: what each node's cache may hold: ``20GB``.
        direct: whether nodes may read inputs at their origins.

    Raises:
        UsageError: there is no such policy or access, or that is no size.
    """
    limits = settings.limits
    try:
        if policy is not None:
            limits = replace(limits, policy=Policy(policy))
        if access is not None:
            limits = replace(limits, access=Access(access))
    except ValueError as error:
        known = ", ".join([*Policy, *Access])
        raise UsageError(str(error), hint=f"there are {known}") from error
    cache_bytes = settings.cache_bytes if cache is None else bytes_of(cache)
    direct = settings.direct if direct is None else direct
    return replace(settings, limits=limits, cache_bytes=cache_bytes, direct=direct)


def new_name(wall: float, token: str) -> str:
    """A name for a run: when it began, and a few letters that no other has."""
    return time.strftime("%m%d-%H%M%S", time.localtime(wall)) + "-" + token


class Run:
    """A run over some sites. Threads start with `start`.

    Args:
        sites: where to run.
        directory: the run's own, made if it is not there; its last part is the run's name.
        settings: how nodes are treated.
        clock: tells the time.
        seed: of the schedule's random numbers.
        fresh: False for a run that begins again.

    Raises:
        UsageError: a site has an unknown scheme or option, or two nodes have one name.
        AccessError: an engine's service does not answer.
    """

    def __init__(
        self,
        sites: Sequence[SiteSpec],
        directory: Path,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        settings = settings or Settings()
        self.clock = clock or SystemClock()
        self.directory = directory
        self.name = directory.name
        nodes = expand(sites)
        self._home = _home_of(self.name, nodes, settings.front, self.clock)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal = Journal(directory / JOURNAL, fresh=fresh)
        self.landing = Landing(self.name, directory / "streams")
        hello = {
            "run": self.name,
            "beat": settings.timing.beat_s,
            "silence": settings.timing.silence_s,
            "keep": settings.keep_bytes,
            "cache": {"limit": settings.cache_bytes, "rule": settings.replacement},
            "software": well_known(),
            "mount": int(settings.limits.access is not Access.STAGE),
        }
        self._digests = Digests(state_directory(os.environ), self.clock.wall)
        self.catalogue = Catalogue(self._tell, self._digests.get, self._digests.put, self._digests.is_settled)
        self.catalogue.say = self._say
        self._grants = Grants(self.clock, self._say) if settings.direct else None
        if self._grants is not None:
            self.catalogue.grants, self.catalogue.origin_of = self._grants, origin_of
        self.catalogue.gate = Gate(self.catalogue, directory, settings.cache_bytes)
        self._replicas: Replicas | None = None
        if settings.adverts != "":
            self._replicas = Replicas(self.name, partial(open_adverts, settings.adverts, os.environ))
            self.catalogue.on_replica = self._replicas.tell
        self.roster = Roster(nodes, hello, self.landing, self.clock, settings.timing, settings.patience, self.catalogue)
        if sum(not spec.in_place for spec, _ in nodes) > 1:
            self.catalogue.peers_with(self._secrets)
        life = 1 if fresh else int(self.journal.run().get(LIVES, 1)) + 1
        self.journal.set_run({LIVES: life})
        random = randomness.Random(seed)  # noqa: S311 - jitter, not a secret
        matching = matching_of(self.name, stores_of(sites), self.clock)
        schedule = Schedule(settings.limits, random, first_bundle=(life << 32) + 1, matching=matching)
        self.dispatcher = Dispatcher(schedule, self.journal, self.roster, self.landing, self.clock)
        self.discovery = Discovery(
            self.dispatcher,
            self.journal,
            self.name,
            settings.adverts,
            stores_of(sites),
            self.clock,
            settings.communities,
        )
        self.on_cancel: Callable[[], object] = (
            self.dispatcher.cancel_all
        )  # what an application does is said before `start`
        self._control: Channel | None = None
        self._works = itertools.count(1)
        self._numbers = threading.Lock()
        self._next_task = 1
        self.in_place = all(spec.in_place for spec, _ in nodes)
        self.by_reference = all(spec.by_reference for spec, _ in nodes)
        for spec, _ in nodes:
            member = self.roster.members[spec.name]
            self.journal.set_node(spec.name, spec.url, member.standing, self.clock.wall(), None)

    def start(self) -> None:
        """Connect to the nodes and begin.

        Raises:
            AccessError: tasks are to call home, and this machine has no sshd, or no ssh-keygen.
        """
        if self._home is not None:
            self._home.open()
        self.dispatcher.start()
        self.discovery.start()
        orders = Orders(self._about, self.dispatcher, self.on_cancel, self.discovery.warn)
        try:
            self._control = Channel(self.directory, orders.table())
        except OSError as error:  # a run does without
            self.discovery.note(f"serai release and serai cancel do not reach this run: {error}")

    def _about(self) -> dict[str, Any]:
        """What the run says of itself to other processes."""
        facts = self.journal.run()
        return {key: facts.get(key) for key in (KIND, BEGAN, ARGV, COMMAND)}

    def _tell(self, event: Event) -> None:
        self.dispatcher.tell(None, event)

    def _say(self, words: str) -> None:
        self.journal.write(Batch(notes=[(self.clock.wall(), "", 0, words)]))

    def _secrets(self) -> dict[str, str]:
        """What nodes prove to each other that they are of this run with."""
        from serai.access.stores.certificates import pinned_certificate  # noqa: PLC0415 - slow to import

        return pinned_certificate(f"serai {self.name}", self.clock.wall()) | {"token": secrets.token_urlsafe(32)}

    def reserve(self, count: int) -> int:
        """Reserve numbers for tasks; returns the first of them."""
        with self._numbers:
            first = self._next_task
            self._next_task = first + count
        return first

    def number_from(self, first: int) -> None:
        """Numbers below are taken: a run begins again."""
        with self._numbers:
            self._next_task = max(self._next_task, first)

    def next_work(self) -> int:
        """A number for a work."""
        return next(self._works)

    def skip_works(self, last: int) -> None:
        """Works up to ``last`` are taken: a run begins again."""
        self._works = itertools.count(last + 1)

    def close(self, deadline_s: float = 15.0, *, finished: bool = False) -> None:
        """End everything the run has anywhere; says in the journal whether the run is finished."""
        if self._control is not None:
            self._control.close()
        self.discovery.close()
        try:
            self.dispatcher.close(deadline_s)
        finally:
            self._digests.close()
            if self._grants is not None:
                self._grants.close()
            if self.catalogue.gate is not None:
                self.catalogue.gate.close()
            if self._replicas is not None:
                self._replicas.close()
            if self._home is not None:
                self._home.close()
        if finished:
            self.journal.set_run({ENDED: self.clock.wall()})
        self.journal.close()


def expand(sites: Sequence[SiteSpec], engines: Callable[[str], Engine] = engine_for) -> list[tuple[NodeSpec, Engine]]:
    """The nodes that sites stand for, each with its engine; one engine per scheme."""
    known: dict[str, Engine] = {}
    nodes: list[tuple[NodeSpec, Engine]] = []
    names: set[str] = set()
    for site in sites:
        engine = known.setdefault(site.url.scheme, engines(site.url.scheme)) if site.url.scheme not in known else (
            known[site.url.scheme]
        )  # fmt: skip
        for spec in engine.nodes(site):
            if site.cache_bytes is not None:
                spec = replace(spec, cache_bytes=site.cache_bytes)  # noqa: PLW2901 - engines know nothing of caches
            if spec.name in names:
                raise UsageError(f"two nodes are called {spec.name}", hint="name each host once, with slots=N for more")
            names.add(spec.name)
            nodes.append((replace(spec, declared=declared(site)), engine))
    if not nodes:
        raise UsageError("the pool has no nodes", hint="--on local: is this machine, --on ssh://HOST another one")
    return nodes


def _home_of(
    run: str, nodes: Sequence[tuple[NodeSpec, Engine]], front: Front | None, clock: Clock
) -> HomeCalling | None:
    """What lets tasks call home, where some are to."""
    modes = {spec.home_calling for spec, _ in nodes if spec.home_calling}
    if not modes:
        return None
    if len(modes) > 1:
        raise UsageError("some sites say home_calling = files and some shell", hint="a run has one credential: say one")
    # Most runs do without.
    from serai.access.home_calling import HomeCalling  # noqa: PLC0415 - see above
    from serai.dispatch.engines.ssh import SshEngine  # noqa: PLC0415 - see above

    home = HomeCalling(run, modes.pop() or "", state=state_directory(os.environ), clock=clock, front=front)
    for _, engine in nodes:
        if isinstance(engine, SshEngine):
            engine.home = home
    return home


def token() -> str:
    """A few letters that no other run has."""
    return secrets.token_hex(2)
