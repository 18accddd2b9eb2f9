"""A front end for workers: the real gateway, the real advert service, and just enough of a master."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serai.adverts.gateway import Gateway
from serai.adverts.handlers import advert_handlers
from serai.adverts.service import open_adverts
from serai.travel.boot import WORKER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

RUN = "run1"
DEADLINE_S = 90.0


def certificate_and_key() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a run")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return {
        "cert": certificate.public_bytes(pem).decode(),
        "key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
    }


@dataclass
class Plan:
    """What a run does.

    Attributes:
        head: of the job: mapper, combiner, reducer …
        body: functions by name, pickled.
        splits: the inputs of map orders.
        partitions: how many.
        output: a directory on this machine; None to have outputs written through the gateway.
        located: changes where a reduce is told to find a map's output.
    """

    head: dict[str, Any]
    splits: list[dict[str, Any]]
    body: bytes = b""
    partitions: int = 2
    output: Path | None = None
    located: Callable[[dict[str, Any]], dict[str, Any]] = lambda one: one


@dataclass
class Front:
    """The front end; a context."""

    room: Path
    plan: Plan
    shuffle: dict[str, str] = field(default_factory=certificate_and_key)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.maps: dict[int, tuple[str, dict[str, Any]]] = {}
        self.reduces: dict[int, dict[str, Any]] = {}
        self.failures: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.beats: list[dict[str, Any]] = []
        self.read: list[str] = []
        self.written: dict[str, bytearray] = {}
        self.committed: dict[str, dict[str, Any]] = {}
        self.queue: list[dict[str, Any]] = [self.map_order(number) for number in range(len(self.plan.splits))]
        self.given: dict[str, dict[str, Any] | None] = {}
        self.cancelled: set[str] = set()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.hold = False
        self.stops = True

    def __enter__(self) -> Self:
        self.stack = contextlib.ExitStack()
        self.adverts = self.stack.enter_context(contextlib.closing(open_adverts(f"sqlite://{self.room}/adverts.db")))
        own = {name.replace("_", "."): getattr(self, name) for name in dir(self) if name.startswith(("work_", "file_"))}
        handlers = {**advert_handlers(self.adverts), **own, "peer.read": self.peer_read}
        self.gateway = self.stack.enter_context(Gateway(handlers, self.room / "gw"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.terminate()  # so that it ends what it has started
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(40)
            for pipe in (process.stdin, process.stderr):
                if pipe:
                    pipe.close()
        self.stack.close()

    # ---- workers

    def start(self, name: str, python: str = sys.executable, **environment: str) -> subprocess.Popen[bytes]:
        token = self.room / "token"
        token.touch(0o600)
        token.write_text(self.gateway.token)
        scratch = self.room / name
        scratch.mkdir(exist_ok=True)
        told = {
            "SERAI_GATEWAY": self.gateway.address,
            "SERAI_GATEWAY_TOKEN_FILE": str(token),
            "SERAI_WORKER": name,
            "SERAI_RUN": RUN,
            "TMPDIR": str(scratch),
            **environment,
        }
        parcel = self.room / "parcel"
        parcel.write_bytes(WORKER.packed())
        with parcel.open("rb") as stdin:
            process = subprocess.Popen(
                [python, "-u", "-c", WORKER.program()],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **told},
                cwd=scratch,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def until(self, what: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        with self.changed:
            assert self.changed.wait_for(what, deadline_s), (self.failures, self.reports)

    def finish(self, deadline_s: float = DEADLINE_S) -> bytes:
        """Wait for all outputs and give them, one after another."""
        until = time.monotonic() + deadline_s
        with self.changed:
            while len(self.reduces) < self.plan.partitions:
                assert not self.failures, self.failures[0]["what"]
                assert time.monotonic() < until
                for name, process in self.processes.items():
                    ended = process.poll()
                    said = process.stderr.read() if ended and ended > 0 and process.stderr else b""
                    assert not ended or ended < 0, f"{name} ended: {said.decode()}"
                self.changed.wait(0.2)
        return b"".join(self.part(number) for number in range(self.plan.partitions))

    def part(self, number: int) -> bytes:
        name = f"part-{number:05}"
        return (self.plan.output / name).read_bytes() if self.plan.output else bytes(self.written[name])

    # ---- the master

    def map_order(self, number: int) -> dict[str, Any]:
        return {"kind": "map", "task": number, "attempt": 1, "input": self.plan.splits[number]}

    def work_job(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        entry = self.adverts.get(f"/mapreduce/{RUN}/workers/{head['worker']}")
        assert entry is not None
        job = {"run": RUN, "partitions": self.plan.partitions, "shuffle": self.shuffle, **self.plan.head}
        return job, self.plan.body

    def work_next(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        worker = head["worker"]
        with self.changed:
            self.cancelled.discard(worker)
            self.changed.wait_for(lambda: not self.hold and (self.queue or self._ended()), 2.0)
            if self.queue and not self.hold:
                order = self.given[worker] = self._filled(self.queue.pop(0))
                self.changed.notify_all()
                return {"order": order}, b""
            return {"order": {"kind": "stop"} if self._ended() and self.stops else None}, b""

    def _ended(self) -> bool:
        return len(self.reduces) == self.plan.partitions

    def _filled(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["kind"] != "reduce":
            return order
        name = f"part-{order['partition']:05}"
        path = None if self.plan.output is None else str(self.plan.output / name)
        maps = [self.plan.located(self._located(number, order["partition"])) for number in sorted(self.maps)]
        return {**order, "maps": maps, "output": {"name": name, "path": path}}

    def _located(self, number: int, partition: int) -> dict[str, Any]:
        worker, outputs = self.maps[number]
        entry = self.adverts.get(f"/mapreduce/{RUN}/workers/{worker}")
        ad = {} if entry is None else entry.attributes
        start, size = outputs["index"][partition]
        return {
            "task": number,
            "worker": worker,
            "host": ad.get("host"),
            "addresses": ["127.0.0.1"],
            "port": ad.get("shuffle_port"),
            "path": outputs["path"],
            "start": start,
            "size": size,
        }

    def work_done(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        with self.changed:
            self.reports.append(head)
            if head["kind"] == "map":
                self.maps[head["task"]] = head["worker"], head["outputs"]
                if len(self.maps) == len(self.plan.splits):
                    self.queue += [
                        {"kind": "reduce", "partition": one, "attempt": 1} for one in range(self.plan.partitions)
                    ]
            else:
                self.reduces[head["partition"]] = head["outputs"]
            self.changed.notify_all()
        return {}, b""

    def work_failed(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        with self.changed:
            self.failures.append(head)
            self.changed.notify_all()
        return {}, b""

    def work_beat(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        with self.changed:
            self.beats.append(head)
            self.changed.notify_all()
            return {"cancel": head["worker"] in self.cancelled, "stop": False}, b""

    def file_read(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self.read.append(head["url"])
        with open(head["url"], "rb") as file:
            file.seek(head["start"])
            return {}, file.read(head["length"])

    def peer_read(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self.read.append(head["path"])
        with open(head["path"], "rb") as file:
            file.seek(head["start"])
            return {}, file.read(head["length"])

    def file_write(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        with self.changed:
            data = self.written.setdefault(head["name"], bytearray())
            if len(data) < head["offset"] + len(body):
                data.extend(bytes(head["offset"] + len(body) - len(data)))
            data[head["offset"] : head["offset"] + len(body)] = body
        return {}, b""

    def file_commit(self, head: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self.written.setdefault(head["name"], bytearray())
        self.committed[head["name"]] = head
        return {}, b""


def function(**parts: object) -> dict[str, Any]:
    """A plan's head and body for functions that the worker can import."""
    kinds = {
        name: {"kind": part} if isinstance(part, str) else {"kind": "function"}
        for name, part in parts.items()
        if part is not None
    }
    return {"head": kinds, "body": pickle.dumps({name: part for name, part in parts.items() if callable(part)})}


def command(**parts: str) -> dict[str, Any]:
    built_in = ("sum", "count")
    return {
        "head": {
            name: {"kind": part} if part in built_in else {"kind": "command", "command": part}
            for name, part in parts.items()
        }
    }


def splits_of(path: Path, pieces: int, *, relayed: bool = False) -> list[dict[str, Any]]:
    size = path.stat().st_size
    bounds = [size * number // pieces for number in range(pieces + 1)]
    where = {"url": str(path), "path": None if relayed else str(path), "compression": None, "size": size}
    return [{**where, "start": start, "stop": stop} for start, stop in itertools.pairwise(bounds)]
