"""Processes on laboratory hosts find the front end's adverts through the ssh connection; no port is opened."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access.openssh import Connection, Target
from serai.adverts.gateway import Gateway
from serai.adverts.handlers import advert_handlers
from serai.adverts.sqlite import SqliteAdverts
from serai.clock import SystemClock
from serai.travel.boot import sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.lab import Lab

pytestmark = pytest.mark.lab

SOON_S = 60.0
RUN = "/mapreduce/r1"

# What travels is the text of two modules; address, token's file and a name are all that it gets.
WORKER = """
import json, os, sys
parcel = json.loads(sys.stdin.readline())
exec(parcel["loader"])
gateway = load(parcel, "gateway")
me, gate = os.environ["SERAI_WORKER"], gateway.Gateway.from_environment()
path = "/mapreduce/r1/workers/" + me
facts = {"host": os.uname().nodename, "pid": os.getpid()}
gate.call("advert.put", {"path": path, "attributes": facts, "ttl_s": 5.0})
print("there", flush=True)
since = 0
while True:
    head, body = gate.call("advert.watch", {"directory": "/mapreduce/r1/go", "since": since, "deadline_s": 0.4})
    since = head["version"]
    gate.call("advert.renew", {"path": path, "ttl_s": 5.0})
    if json.loads(body):
        break
won = gate.call("advert.claim", {"path": "/mapreduce/r1/prize", "owner": me, "for_s": 60})[0]["claimed"]
try:
    gate.call("advert.put", {"path": "/nodes/x", "attributes": {}})
except gateway.GatewayError as error:
    print(json.dumps({"won": won, "refused": error.kind}), flush=True)
sys.stdin.readline()
"""


class Node:
    """A way to a host, the socket there that leads here, and the token in a file."""

    def __init__(self, lab: Lab, number: int, gateway: Gateway, room: Path) -> None:
        self.host = lab.hosts[number]
        target = Target(self.host.name, config=str(lab.ssh_config))
        self.connection = Connection(target, control_dir=room, clock=SystemClock(), interactive=False)
        self.connection.open()
        made = self.connection.run(["mktemp", "-d"], deadline_s=SOON_S)
        self.directory = made.stdout.decode().strip()
        self.socket, self.token = f"{self.directory}/g", f"{self.directory}/t"
        keep = ["sh", "-c", 'umask 077; cat >"$1"', "-", self.token]
        assert self.connection.run(keep, deadline_s=SOON_S, stdin=gateway.token.encode()).returncode == 0
        self.connection.forward_back(self.socket, gateway.address)

    def close(self) -> None:
        """Leave the host as it was."""
        self.connection.run(["rm", "-rf", self.directory], deadline_s=SOON_S)
        self.connection.close()

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a worker."""
        facts = (("GATEWAY", self.socket), ("GATEWAY_TOKEN_FILE", self.token), ("WORKER", name))
        words = ["env", *(f"SERAI_{key}={value}" for key, value in facts), "python3", "-u", "-c", WORKER]
        process = subprocess.Popen(
            self.connection.argv(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(sources("gateway")) + "\n")
        process.stdin.flush()
        return process


@pytest.fixture
def room() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_workers_on_hosts_register_claim_and_are_missed(lab: Lab, room: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        adverts = stack.enter_context(SqliteAdverts(tmp_path / "adverts.sqlite", SystemClock()))
        gateway = stack.enter_context(Gateway(advert_handlers(adverts, RUN), room))
        nodes = [Node(lab, number, gateway, room) for number in range(2)]
        for node in nodes:
            stack.callback(node.close)
        adverts.put(f"{RUN}/prize", {})
        workers = [stack.enter_context(nodes[number % 2].start(f"w{number}")) for number in range(4)]
        for worker in workers:
            stack.callback(worker.kill)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "there\n"
        found = adverts.list(f"{RUN}/workers")
        assert [entry.attributes["host"] for entry in found] == [nodes[number % 2].host.name for number in range(4)]
        adverts.put(f"{RUN}/go", {})
        said = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout]
        assert sorted(one["won"] for one in said) == [False, False, False, True]
        assert {one["refused"] for one in said} == {"usage"}
        since = adverts.watch(f"{RUN}/workers", None, 0).version
        nodes[0].host.run(["kill", "-9", str(found[0].attributes["pid"])], check=True)
        gone: list[str] = []
        end = time.monotonic() + SOON_S
        while f"{RUN}/workers/w0" not in gone:
            watched = adverts.watch(f"{RUN}/workers", since, max(0.0, end - time.monotonic()))
            assert watched.changes, "its life was not over in time"
            gone += [change.path for change in watched.changes if change.kind == "expired"]
            since = watched.version


def test_nobody_else_on_the_host_gets_through(lab: Lab, room: Path, tmp_path: Path) -> None:
    with (
        SqliteAdverts(tmp_path / "adverts.sqlite", SystemClock()) as adverts,
        Gateway(advert_handlers(adverts, RUN), room) as gateway,
    ):
        node = Node(lab, 0, gateway, room)
        try:
            connect = f"import socket; socket.socket(socket.AF_UNIX).connect({node.socket!r})"
            assert node.host.run(["python3", "-c", connect], user="user").returncode == 0
            refused = node.host.run(["setpriv", "--reuid", "65534", "--clear-groups", "python3", "-c", connect])
            assert "PermissionError" in refused.stderr
            listening = node.host.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], check=True).stdout
            ports = {line.split()[1].rpartition(":")[2] for line in listening.splitlines() if " 0A " in line}
            assert ports == {f"{22:04X}"}
        finally:
            node.close()
