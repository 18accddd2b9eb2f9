"""The experiment of the communities, live: two laboratory hosts with a storage appliance each, and a slow link between.

Each host is a community: its slots are the machines, and `serai store serve` in its network is its store. Programs read
the database through the mount that travels, from the store that the policy has them read from. Who runs where is
`serai run`'s choice, by the ClassAd expressions of the source. Under `auto` it is told the database's URL and no more,
and chooses by price who runs where and whether the database is copied there or read from afar.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING

from serai.cli.study.live_diffusion import carried, run_serai
from serai.cli.study.tables import columns
from serai.errors import SeraiError
from serai.match.movement import Way
from serai.quantity import format_bytes
from serai.sim.studies.communities import RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.testing.lab import Host, Lab

__all__ = ["LiveCommunities", "live_communities"]

JOBS, FILE_BYTES, READ_BYTES = 40, 20_000_000, 4_000_000
SLOTS = {"nestore.bologna": 3, "nestore.madison": 8}
COMPUTE_S = {"nestore.bologna": 2.4, "nestore.madison": 3.0}
WAN_BIT_S, WAN_DELAY_MS = 25e6, 10.0
AUTO = None  # the policy that needs no rule
READY_S = 30.0
STAGE_S = 120.0
PORTS = {"nestore.bologna": 9094, "nestore.madison": 9095}


@dataclass(frozen=True, slots=True)
class _Store:
    """An appliance that runs."""

    name: str
    host: str
    address: str
    pid: int
    token_file: str
    fingerprint: str

    @property
    def url(self) -> str:
        return f"store://{self.address}:{PORTS[self.name]}/cms/db?fingerprint=sha256:{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class LiveRule:
    """One policy.

    Attributes:
        rule: its name.
        took_s: wall time, stage included.
        cpu_efficiency: the time that jobs computed over the time for which they ran.
        wan_bytes: that went over the link between the communities.
        ran: jobs by host.
    """

    rule: str
    took_s: float
    cpu_efficiency: float
    wan_bytes: int
    ran: dict[str, int]


@dataclass(frozen=True, slots=True)
class LiveCommunities:
    """All policies; see `serai.cli.study.command.Report`."""

    runs: list[LiveRule]

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return {"study": "communities", "live": True, "runs": [asdict(one) for one in self.runs]}

    def lines(self) -> list[str]:
        """The same, as a table."""
        rows = [
            (
                one.rule,
                f"{one.took_s:.1f} s",
                f"{one.cpu_efficiency:.0%}",
                format_bytes(one.wan_bytes),
                ", ".join(f"{count} {host}" for host, count in sorted(one.ran.items())),
            )
            for one in self.runs
        ]
        return [
            f"{JOBS} jobs that each read {format_bytes(READ_BYTES)} of {format_bytes(FILE_BYTES)} through a mount.",
            f"{WAN_BIT_S / 1e6:.0f} Mbit/s between the communities.",
            "",
            *columns(("policy", "wall time", "CPU efficiency", "between communities", "where jobs ran"), rows),
        ]


def live_communities(
    seed: int, *, say: Callable[[str], None], rules: Sequence[Rule | None] | None = None
) -> LiveCommunities:
    """Run every policy on two hosts; the stores are emptied in between.

    Args:
        seed: of the database.
        say: is told of each run.
        rules: which; None is auto; by default it and the seven of the source.

    Raises:
        UsageError: no laboratory can be had here.
        SeraiError: a run failed.
    """
    from serai.testing.lab import Lab  # noqa: PLC0415 - only who asks for the laboratory needs it

    runs: list[LiveRule] = []
    with tempfile.TemporaryDirectory(prefix="serai-study-") as scratch, Lab.up(2) as lab:
        lab.hosts[1].slow(rate_bit_s=WAN_BIT_S, delay_ms=WAN_DELAY_MS)
        with _served(lab, scratch) as stores:
            database = random.Random(seed).randbytes(FILE_BYTES)  # noqa: S311 - bytes that are the same every time
            for rule in rules or (*RULES, AUTO):
                _fill(stores, scratch, database, {"nestore.bologna", *(rule.before if rule is not None else ())})
                runs.append(_one(rule, lab, stores, scratch))
                one = runs[-1]
                say(f"{one.rule}: {one.took_s:.1f} s, {format_bytes(one.wan_bytes)} between the communities")
    return LiveCommunities(runs)


@contextlib.contextmanager
def _served(lab: Lab, scratch: str) -> Iterator[dict[str, _Store]]:
    """An appliance in the network of each host."""
    with contextlib.ExitStack() as stack:
        stores = {}
        for name, host in zip(SLOTS, lab.hosts, strict=True):
            stores[name] = stack.enter_context(_serve(name, host, scratch))
        yield stores


@contextlib.contextmanager
def _serve(name: str, host: Host, scratch: str) -> Iterator[_Store]:
    room = os.path.join(scratch, name)
    os.makedirs(os.path.join(room, "cms"))
    listen = ["--listen", f"{host.address}:{PORTS[name]}", "--name", name, "--no-ad"]
    pid = host._pid()  # noqa: SLF001 - its network is where the store is
    words = ["nsenter", "-t", str(pid), "-n", sys.executable, "-m", "serai", "store", "serve", room, *listen]
    with open(os.path.join(scratch, f"{name}.log"), "w+", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(scratch))
        try:
            text = _ready(process, log.name)
            token = re.search(r"your token is in (.+)", text)
            pin = re.search(r"sha256:([0-9a-f]{64})", text)
            if token is None or pin is None:
                raise SeraiError(f"{name} did not say where its token is", hint=text[-1000:])
            yield _Store(name, host.name, host.address, pid, token[1].strip(), pin[1])
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: subprocess.Popen[bytes], log: str) -> str:
    """Wait until a store serves; returns what it said."""
    end = time.monotonic() + READY_S
    while True:
        with open(log, encoding="utf-8") as file:
            text = file.read()
        if "ready" in text.split():
            return text
        if process.poll() is not None or time.monotonic() > end:
            raise SeraiError("a store did not start", hint=text[-1000:])
        time.sleep(0.05)


def _own(scratch: str, state: str = "") -> dict[str, str]:
    """The variables by which Serai here knows the stores, and has nothing to do with its user's own."""
    return {"SERAI_CONFIG": os.path.join(scratch, "config"), "SERAI_STATE": os.path.join(state or scratch, "state")}


def _environment(scratch: str) -> dict[str, str]:
    return os.environ | _own(scratch)


def _fill(stores: dict[str, _Store], scratch: str, database: bytes, having: set[str]) -> None:
    """Give the database to some stores, and to no others."""
    for name in stores:
        path = os.path.join(scratch, name, "cms", "db")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if name in having:
            with open(f"{path}.part", "wb") as file:
                file.write(database)
            os.rename(f"{path}.part", path)


def _one(rule: Rule | None, lab: Lab, stores: dict[str, _Store], scratch: str) -> LiveRule:
    """Run all jobs, and sum up what they say."""
    name = rule.name if rule is not None else "auto"
    where = os.path.join(scratch, re.sub(r"\W+", "-", name))
    os.makedirs(where)
    words = _by_rule(rule, lab, stores, where) if rule is not None else _by_price(lab, stores, where)
    before, began = carried(lab, 2), time.monotonic()
    stage = _stage(stores, scratch) if rule is not None and rule.way is Way.STAGE else None
    try:
        told = [json.loads(line) for line in run_serai(words, _own(scratch, where), where, lab).splitlines()]
    finally:
        if stage is not None:
            stage.kill()
            stage.wait()
    took_s = time.monotonic() - began
    if len(told) != JOBS or any(one["read"] != READ_BYTES for one in told):
        raise SeraiError(f"under {name!r} {len(told)} jobs of {JOBS} read all that they should")
    ran = {host.name: sum(one["host"] == host.name for one in told) for host in lab.hosts}
    efficiency = sum(one["compute_s"] for one in told) / sum(one["took_s"] for one in told)
    return LiveRule(name, took_s, efficiency, carried(lab, 2) - before, ran)


def _by_rule(rule: Rule, lab: Lab, stores: dict[str, _Store], where: str) -> list[str]:
    """What `serai run` is told where a rule says who runs and reads where."""
    near = {name: name for name in stores}
    if rule.way is Way.READ and not rule.before:
        near["nestore.madison"] = "nestore.bologna"
    _send(where, stores, near, staged=rule.way is Way.STAGE)
    pool = _pool(where, lab, stores, has={"nestore.bologna", *rule.before} | _staged(rule))
    words = ["python3 job.py start facts.json {line}", "--no-auto-send", "--each", f"1..{JOBS}", "--on", pool]
    words += [word for name in ("job.py", "facts.json", "program.py") for word in ("--send", os.path.join(where, name))]
    return [*words, "--requirements", rule.requirements, "--rank", rule.rank]


def _by_price(lab: Lab, stores: dict[str, _Store], where: str) -> list[str]:
    """What it is told where it is to find that out."""
    _send(where, stores, {name: name for name in stores}, staged=False)
    words = ["python3 job.py read facts.json {n} {in}", "--no-auto-send", *[stores["nestore.bologna"].url] * JOBS]
    words += [word for name in ("job.py", "facts.json") for word in ("--send", os.path.join(where, name))]
    return [*words, "--on", _pool(where, lab, stores, has=set()), "--policy", "auto", "--access", "auto"]


def _staged(rule: Rule) -> set[str]:
    """A store to which the database is on its way takes jobs, which wait for it there."""
    return {"nestore.madison"} if rule.way is Way.STAGE else set()


def _send(where: str, stores: dict[str, _Store], near: dict[str, str], *, staged: bool) -> None:
    """Write down what every job needs: who reads where, the job, and the mount that travels."""
    from serai.travel import boot  # noqa: PLC0415 - only who asks for the laboratory needs it

    def described(store: _Store) -> dict[str, object]:
        with open(store.token_file, encoding="ascii") as file:
            token = file.read().strip()
        return {"host": store.address, "port": PORTS[store.name], "fingerprint": store.fingerprint, "token": token}

    facts = {
        "hosts": {one.host: {"store": near[name], "compute_s": COMPUTE_S[name]} for name, one in stores.items()},
        "stores": {name: described(one) for name, one in stores.items()},
        "file_bytes": FILE_BYTES,
        "read_bytes": READ_BYTES,
        "wait_s": STAGE_S if staged else 0.0,
    }
    job = resources.files(__package__).joinpath("community_job.py").read_text(encoding="utf-8")
    texts = {"job.py": job, "facts.json": json.dumps(facts), "program.py": boot.script("mount.wrap")}
    for name, text in texts.items():
        with open(os.open(os.path.join(where, name), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(text)


def _pool(where: str, lab: Lab, stores: dict[str, _Store], has: set[str]) -> str:
    """Write a pool file of both communities."""
    lines = []
    for name, store in stores.items():
        lines += ["[[store]]", f'name = "{name}"', f"HasCMSData = {json.dumps(name in has)}", ""]
        lines += ["[[site]]", f'url = "ssh://{store.host}"', f"slots = {SLOTS[name]}", f'nearest_storage = "{name}"']
        lines += [f"ssh_config = {json.dumps(str(lab.ssh_config))}", ""]
    path = os.path.join(where, "pool.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    return path


def _stage(stores: dict[str, _Store], scratch: str) -> subprocess.Popen[bytes]:
    """Begin to copy the database from the one store to the other, in the network of the latter's host."""
    source, target = stores["nestore.bologna"], stores["nestore.madison"]
    words = ["nsenter", "-t", str(target.pid), "-n", sys.executable, "-m", "serai", "cp", "-q", source.url, target.url]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=_environment(scratch))
