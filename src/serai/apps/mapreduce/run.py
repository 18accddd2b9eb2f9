"""A MapReduce run put together: inputs, the gateway, the advert service, the launch of workers, and the desk between.

A worker is known by its ad: it registers in the advert service, is used when it asks for the job, and is lost
when its ad expires or its process ends; then the crew has another one started.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from serai.access.stores.nearby import known_appliances
from serai.adverts.gateway import Gateway
from serai.adverts.handlers import advert_handlers
from serai.adverts.service import open_adverts
from serai.apps.mapreduce import events as ev
from serai.apps.mapreduce.crew import Crew, Patiences
from serai.apps.mapreduce.desk import Desk, Work, part_name
from serai.apps.mapreduce.files import Outputs, Relay
from serai.apps.mapreduce.inputs import expand, host_key, hosts_of
from serai.apps.mapreduce.job import Job, Shuffle
from serai.apps.mapreduce.plan import partitions_for, split_bytes, splits_of
from serai.apps.mapreduce.record import NAME, Record, fingerprint
from serai.apps.mapreduce.tasks import Rules
from serai.apps.workers.launch import Launch
from serai.apps.workers.locality import Locality, served
from serai.apps.workers.sending import sent_files
from serai.clock import SystemClock
from serai.dispatch.control.channel import Channel
from serai.errors import DeadlineExceeded, NoNodeLeft, SeraiError, TaskFailed, UsageError
from serai.session.home import state_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from serai.apps.mapreduce.plan import Input, Kept, Split
    from serai.apps.mapreduce.record import Former
    from serai.apps.workers.sending import Sent
    from serai.clock import Clock
    from serai.describe.host import HostFacts
    from serai.describe.mapreduce import Session

TICK_S = 0.2
LOOK_S = 1.0  # between two looks at the ads of workers


@dataclass(frozen=True, slots=True)
class Options:
    """How a run treats its workers.

    Attributes:
        rules: of the master.
        patiences: how long they are waited for, and how often they are started again.
        split_bytes: of a map's input; None to choose.
    """

    rules: Rules = field(default_factory=Rules)
    patiences: Patiences = field(default_factory=Patiences)
    split_bytes: int | None = None


def new_directory(environment: Mapping[str, str], wall: float, base: Path | None = None) -> Path:
    """Make the directory of a new run; its last part is the run's name.

    Args:
        environment: says where the state directory is.
        wall: seconds since the epoch.
        base: another place than the state directory.
    """
    name = time.strftime("%m%d-%H%M%S", time.localtime(wall)) + "-" + secrets.token_hex(2)
    directory = (base or state_directory(environment)) / "mapreduce" / name
    directory.mkdir(parents=True, mode=0o700)
    return directory


@contextlib.contextmanager
def _nothing_left_if_refused(directory: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            directory.rmdir()
        raise


class Running:
    """A run that goes on. A context: at its end no worker is left, whatever happened.

    Args:
        session: what was asked for.
        directory: the run's own, which is there; its last part is the run's name.
        job: what workers run; made of the session's commands when None.
        options: see there.
        kept: what nodes have kept of inputs in former runs, and keep of them in this one; None for nothing.
        clock: tells the time.
        former: a run that did not end well, whose outputs are used as far as they are there.

    Raises:
        UsageError: an input is not there, a file that must travel cannot be read, or the former run did something else.
        AccessError: a host cannot be asked for its inputs.

    Attributes:
        desk: what workers are told, and what became of it.
        gateway: where they call, from the start on.
        record: what happened.
        crew: the workers.
    """

    def __init__(
        self,
        session: Session,
        directory: Path,
        *,
        job: Job | None = None,
        options: Options | None = None,
        kept: Kept | None = None,
        clock: Clock | None = None,
        former: Former | None = None,
    ) -> None:
        self.session = session
        self.name = directory.name
        self._options = options or Options()
        self._clock = clock or SystemClock()
        self._job = job or Job(session.program)
        self._configs = {host_key(host.site.url): host.site.ssh_config for host in session.hosts}
        self._directory = directory
        with _nothing_left_if_refused(directory):
            seen = self._clock.wall()
            sent = self._sent()
            inputs, hosts = self._inputs()
            workers = sum(host.workers or os.cpu_count() or 1 for host in session.hosts)
            target = self._options.split_bytes or split_bytes(sum(one.size or 0 for one in inputs), workers)
            self._split_bytes = former.split_bytes if former is not None else target
            splits = splits_of(inputs, workers, self._split_bytes)
            if kept is not None:
                splits = self._where_kept(inputs, splits, kept)
            asked = session.partitions or (former.partitions if former is not None else None)
            partitions = partitions_for(asked, workers)
            output = session.output or str(directory / "out")
            self.outputs = Outputs(self.name, output, session.prefix, str(directory), self._configs)
            self._print = fingerprint(inputs, splits, partitions, self._job, sent, seen)
            parts = {} if former is None else former.parts(self._print, lambda n: self.outputs.final(part_name(n)))
        self.former = former
        self.work = Work(inputs, Locality(inputs, hosts), splits, partitions, kept, seen, parts)
        self.record = Record(directory / NAME, self._clock)
        rules = replace(self._options.rules, skip=session.skip)
        self.desk = Desk(self.work, rules, self.outputs, self.record, self._clock, self._heed)
        self.crew = Crew(self.name, self.desk, self.record, self._clock, self._options.patiences)
        self._shuffle = Shuffle(self._clock.wall())
        self._unread = ""  # why the adverts cannot be read
        self._closed = threading.Event()
        self._stack = contextlib.ExitStack()
        self._workers_at = f"/mapreduce/{self.name}/workers"

    def _sent(self) -> list[Sent]:
        """What travels; where that cannot be had, inputs that are not there are named too."""
        try:
            return sent_files(self._job.program)
        except UsageError as error:
            try:
                expand(self.session.inputs, self._configs)
            except UsageError as other:
                raise UsageError(f"{error.what}\n{other.what}", hint=other.hint or error.hint) from error
            raise

    def _inputs(self) -> tuple[list[Input], dict[str, HostFacts]]:
        """What is mapped, and whose files these are."""
        inputs = expand(self.session.inputs, self._configs)
        hosts: dict[str, HostFacts] = {}
        if any(one.url.startswith("store://") for one in inputs):
            with contextlib.suppress(SeraiError, OSError):  # then they are read over the net
                inputs, hosts = served(inputs, known_appliances(platform.node()))
        if {one.host for one in inputs} != {host_key(host.site.url) for host in self.session.hosts}:
            hosts |= hosts_of(inputs, self._configs)
        return inputs, hosts

    def _where_kept(self, inputs: Sequence[Input], splits: Sequence[Split], kept: Kept) -> list[Split]:
        """Splits, those that are on no host of the session with the one that has kept them."""
        hosts = {host_key(host.site.url) for host in self.session.hosts}
        found = []
        for split in splits:
            had = kept.find(inputs[split.input], split) if split.host not in hosts else None
            found.append(replace(split, host=had[1]) if had is not None and had[1] in hosts else split)
        return found

    # ---- its life

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._stack.callback(self.record.close)
        self._stack.callback(self.outputs.close)
        if self.former is not None:
            self.outputs.succeed(self.former.name)
        self.outputs.open(self.work.partitions)
        self._adverts = self._stack.enter_context(open_adverts(self.session.adverts))
        relay = Relay(self.work.inputs, self._configs, self.desk.holder_of)
        self._stack.callback(relay.close)
        handlers = {
            **advert_handlers(self._adverts, f"/mapreduce/{self.name}"),
            **self.desk.handlers(),
            "work.job": self._on_job,
            "file.read": relay.read_input,
            "peer.read": relay.read_peer,
            "file.write": self.outputs.write,
            "file.commit": self.outputs.commit,
        }
        gateway = self.gateway = self._stack.enter_context(Gateway(handlers, self._directory / "gateway"))
        launch = Launch(self.session.hosts, self._job.program, gateway.address, gateway.token, self.crew)
        self._adverts.put(f"/mapreduce/{self.name}", self._ad())
        self._stack.callback(self._forget_ads)
        size = sum(one.size or 0 for one in self.work.inputs)
        work = {"inputs": len(self.work.inputs), "bytes": size, "splits": len(self.work.splits)}
        facts = {"run": self.name, "session": self.session.name, **work, "partitions": self.work.partitions}
        more = {"path": self.session.path, "split_bytes": self._split_bytes, "print": self._print}
        self.record.note("began", **facts, **more, resumes=None if self.former is None else self.former.name)
        for number, part in self.work.parts.items():
            self.record.note("taken", number=number, part=part)
        self._stack.callback(launch.close)
        self.crew.begin(launch)
        threading.Thread(target=self._watch, name="mapreduce", daemon=True).start()
        orders = {"about": self._on_about, "cancel": self._on_cancel, "release": self._on_release}
        with contextlib.suppress(OSError):  # a run does without
            self._stack.callback(Channel(self._directory, orders).close)

    def _ad(self) -> dict[str, Any]:
        ad: dict[str, Any] = {"name": self.session.name, "output": self.session.output or ""}
        ad |= {"splits": len(self.work.splits), "partitions": self.work.partitions}
        return ad | dict(self.session.facts)

    def _forget_ads(self) -> None:
        with contextlib.suppress(SeraiError, OSError):
            self._adverts.remove(f"/mapreduce/{self.name}", recursive=True)

    def close(self) -> None:
        """End the workers and remove what was not accepted; harmless when done twice."""
        if not self._closed.is_set():
            self._closed.set()
            self.desk.close()
            self._stack.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, well or badly; waits for that."""
        with self.desk.changed:
            return self.desk.changed.wait_for(lambda: self.desk.end is not None, timeout_s)

    def files(self) -> list[str]:
        """The outputs in order, once it has ended.

        Raises:
            TaskFailed: a map or a reduce failed for good.
            NoNodeLeft: no worker is left.
        """
        end = self.desk.end
        if isinstance(end, ev.Fail):
            kind = TaskFailed if end.of_task else NoNodeLeft
            tried = tuple(dict.fromkeys(end.tried or tuple(self.troubles)))
            raise kind(end.what, tried=tried, hint=end.hint)
        if end is None:
            raise DeadlineExceeded("the run has not ended")
        return self.outputs.deliver(self.desk.finals[number] for number in range(self.work.partitions))

    @property
    def resumable(self) -> bool:
        """Whether outputs that are whole are of use to a run that resumes this one."""
        return bool(self._print and self.desk.finals) and not self.skipped and self.outputs.elsewhere is None

    @property
    def troubles(self) -> list[str]:
        """What did not work, in sentences, while the run goes on."""
        return self.crew.troubles

    @property
    def skipped(self) -> list[str]:
        """Splits that are left out, and why."""
        return self.crew.skipped

    def _heed(self, action: ev.Bar | ev.Skip) -> None:
        self.crew.heed(action)

    # ---- what other processes of this user ask (Channel)

    def _on_about(self, _asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        hosts = [str(host.site.url) for host in self.session.hosts]
        yield {"kind": "mapreduce", "command": self.session.name, "nodes": hosts}

    def _on_cancel(self, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if asked.get("tasks") is not None:
            raise UsageError("maps and reduces are not cancelled one by one", hint="serai cancel RUN ends it all")
        with self.desk.changed:
            if self.desk.end is None:
                self.desk.end = ev.Fail("it was cancelled from elsewhere: serai cancel", of_task=True)
                self.record.note("ended", failed=self.desk.end.what)
                self.desk.changed.notify_all()
            master = self.desk.master
            left = len(master.maps) - master.maps_done + len(master.reduces) - master.reduces_done
        yield {"cancelled": left}

    @staticmethod
    def _on_release(_asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        raise UsageError(
            "a MapReduce run lets go of no host", hint="its workers may end at any time: what they had is made again"
        )

    # ---- time, and signs of life

    def _watch(self) -> None:
        """Tick, and look which workers still renew their ads."""
        looked = self._clock.now()
        while not self._closed.wait(TICK_S) and not self.desk.over:
            now = self._clock.now()
            self.crew.tick()
            if now - looked >= LOOK_S:
                looked = now
                self._look_at_ads()

    def _look_at_ads(self) -> None:
        try:
            living = {entry.path.rpartition("/")[2] for entry in self._adverts.list(self._workers_at)}
        except (SeraiError, OSError) as error:
            why = f"the adverts cannot be read: {error}"
            if why != self._unread:  # once, not every second for as long as that lasts
                self._unread = why
                self.record.note("trouble", why=why)
            return
        self._unread = ""
        self.crew.look(living)

    # ---- registering

    def _on_job(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """``work.job``: {worker} -> what it will run; it has registered before."""
        worker = str(head.get("worker"))
        entry = None if "/" in worker else self._adverts.get(f"{self._workers_at}/{worker}")
        if entry is None:
            raise UsageError(f"worker {worker} has not registered")
        with self.desk.changed:
            if worker in self.desk.banished or self.desk.over:
                raise UsageError(f"worker {worker} is not wanted any more")
            why = self._job.why_not(entry.attributes)
            if why:
                self.crew.refuse(worker, why)
                raise UsageError(why)
            what = self._job.head_for(self.crew.place_of(worker))
            self.crew.registered(worker, entry.attributes)
        facts = {"run": self.name, "partitions": self.work.partitions, "shuffle": self._shuffle.facts}
        return {**facts, **what}, self._job.body
