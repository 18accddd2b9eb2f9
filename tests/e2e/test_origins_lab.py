"""Inputs of stores, read by nodes on real hosts straight from there: what does not cross the front end's own link.

The front end is a process in the laboratory's network, at the bridge; the stores listen on addresses of a third host.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import FRONT, Front
from tests.e2e.test_inputs_lab import received
from tests.e2e.test_reads_lab import PARTS, SPARSE

from serai.access.stores import trust
from serai.access.stores.certificates import ensure_certificate
from serai.dispatch.ports import PRICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.lab import Host, Lab
    from serai.testing.lab.fixtures import LabFactory

pytestmark = pytest.mark.lab

SIZE = 6_000_000
COUNT = 4
SLACK = 900_000  # two executors, and what is said to them
STORE, S3, WEB = 9094, 5000, 8443
ADDRESS = "10.77.0.1"
SECRET = "sesame/never+told"  # noqa: S105 - of a server in the laboratory


class Near(Front):
    """A front end in the laboratory's network, whose link there is the bridge's own."""

    more: dict[str, str]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.more

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["nsenter", "-t", str(self.lab._pid), "-n", sys.executable, str(FRONT), *words],
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def moved(self) -> int:
        """Bytes that have come to this machine, or left it, in the laboratory's network."""
        lines = self.lab.run(["cat", "/proc/net/dev"], check=True).stdout.splitlines()
        (row,) = (line.split(":")[1].split() for line in lines if line.split(":")[0].strip() == "br0")
        return int(row[0]) + int(row[8])

    def notes(self, about: str = "task > 0") -> list[str]:
        told = [row[0] for row in self.query(f"SELECT text FROM note WHERE {about} ORDER BY id")]  # noqa: S608 - our own
        return [text for text in told if not text.startswith(PRICES)]


@pytest.fixture(scope="module")
def land(lab_factory: LabFactory) -> Lab:
    return lab_factory(3, prefix="org")


@pytest.fixture(scope="module")
def stores(land: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An appliance, an S3 service and a web server on the first host; gives the directory of their files."""
    room = tmp_path_factory.mktemp("stores")
    (room / "served").mkdir()
    for n in range(COUNT):
        (room / "served" / f"d{n}.root").write_bytes(os.urandom(SIZE))
    names = [ADDRESS, "localhost"]
    made = ensure_certificate(str(room), names, dt.datetime.now(dt.UTC))
    (room / "web.pem").write_text("".join(Path(one).read_text() for one in made))
    inside = ["nsenter", "-t", str(land.hosts[0]._pid()), "-n", sys.executable]
    config = {**os.environ, "SERAI_CONFIG": str(room / "config")}
    root = str(Path(__file__).parents[2])
    web = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    commands = [
        (["-m", "serai", "store", "serve", str(room / "served"), "--listen", f"{ADDRESS}:{STORE}", "--no-ad"], config),
        (["-m", "tests.reading.origin_server", f"{room}/served/d0.root", f"{room}/web.pem", ADDRESS, str(WEB)], web),
        (["-c", f"from moto.server import main; main(['-H', '{ADDRESS}', '-p', '{S3}'])"], {**os.environ}),
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    for words, environment in commands:
        with (room / f"log{len(started)}").open("wb") as log:
            started.append(subprocess.Popen([*inside, *words], env=environment, stdout=log, stderr=log))
    try:
        for port in (STORE, WEB, S3):
            near_to(land, port)
        yield room
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


def near_to(land: Lab, port: int) -> None:
    probe = f"import socket; socket.create_connection(('{ADDRESS}', {port}), 1).close()"
    Front.until(lambda: land.run([sys.executable, "-c", probe]).returncode == 0, f"{port} is open", 30)


@pytest.fixture
def near(land: Lab, stores: Path, tmp_path: Path) -> Iterator[Near]:
    one = Near(tmp_path, land)
    config = {"SERAI_CONFIG": str(tmp_path / "config")}
    own = {"SERAI_CONFIG": str(stores / "config")}
    token = trust.read_token(trust.token_path(ADDRESS, STORE, own))
    pin = trust.known_fingerprint(ADDRESS, STORE, own)
    assert token
    assert pin
    trust.save_token(trust.token_path(ADDRESS, STORE, config), token)
    trust.remember(ADDRESS, STORE, pin, config)
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    one.more = {**config, **keys, "SSL_CERT_FILE": str(stores / "web.pem"), "SERAI_ADVERTS": ""}
    (tmp_path / "sparse.py").write_text(SPARSE)
    yield one
    one.end()
    for host in land.hosts:
        host.run(["sh", "-c", f"ip route del blackhole {ADDRESS} 2>/dev/null; ip route flush type blackhole; true"])
    one.nothing_left(land.hosts)
    for host in land.hosts[1:]:
        host.run(["sh", "-c", "rm -rf /tmp/serai-*"])
    _no_secret(one, token)


def _no_secret(one: Near, token: str) -> None:
    """Nothing that this run has left anywhere holds what is secret."""
    for path in (path for path in (one.home / ".state").rglob("*") if path.is_file()):
        data = path.read_bytes()
        for secret in (token, SECRET, "sst_", "X-Amz-Signature"):
            assert secret.encode() not in data, path


def data_of(stores: Path, n: int = 0) -> bytes:
    return (stores / "served" / f"d{n}.root").read_bytes()


def urls(kind: str, near: Near, stores: Path) -> list[str]:
    if kind == "store":
        return [f"store://{ADDRESS}:{STORE}/d{n}.root" for n in range(COUNT)]
    if kind == "https":
        return [f"https://{ADDRESS}:{WEB}/d{n}.root" for n in range(COUNT)]
    endpoint = f"http://{ADDRESS}:{S3}"
    script = (
        "import sys; from serai.access.stores.objects import S3FileSystem as S\n"
        "s = S(sys.argv[1]); s.mkdir('bucket') if not s.exists('bucket') else None\n"
        "[s.put_file(p, 'bucket/' + p.rpartition('/')[2]) for p in sys.argv[2:]]"
    )
    paths = [str(stores / "served" / f"d{n}.root") for n in range(COUNT)]
    words = ["nsenter", "-t", str(near.lab._pid), "-n", sys.executable, "-c", script, endpoint, *paths]
    subprocess.run(words, check=True, env=near.environment(), timeout=60)
    return [f"s3://bucket/d{n}.root?endpoint={endpoint}" for n in range(COUNT)]


def trust_web(host: Host, stores: Path) -> None:
    """Let a host believe the web server's certificate."""
    script = 'cd /etc/ssl/certs && cat > web.pem && ln -sf web.pem "$(openssl x509 -hash -noout -in web.pem).0"'
    host.run(["sh", "-c", script], input_text=(stores / "web.pem").read_text(), check=True)


ORIGINS = {"store": f"store {ADDRESS}:{STORE}", "s3": f"s3 {ADDRESS}:{S3}", "https": f"https {ADDRESS}:{WEB}"}


@pytest.mark.parametrize("kind", ["store", "s3", "https"])
def test_copies_come_straight_and_do_not_cross_the_front_ends_link(near: Near, stores: Path, kind: str) -> None:
    inputs = urls(kind, near, stores)
    for host in near.lab.hosts[1:]:
        trust_web(host, stores)
    wanted = {hashlib.sha256(data_of(stores, 0 if kind == "https" else n)).hexdigest() for n in range(COUNT)}
    before = [near.moved(), *(received(host) for host in near.lab.hosts[1:])]
    done = near.run("run", "sha256sum {in}", *inputs, "--access", "stage", *near.on("org2", "org3", slots=1))
    moved, *taken = [now - then for now, then in zip(
        [near.moved(), *(received(host) for host in near.lab.hosts[1:])], before, strict=True)]  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == wanted
    told = near.notes()
    assert len(told) == COUNT
    assert sum(text.endswith((f" from {ORIGINS[kind]}", " cached")) for text in told) == COUNT, told
    files = 1 if kind == "https" else COUNT
    assert sum(taken) > files * SIZE
    assert moved < SLACK, (moved, taken, told)


@pytest.mark.parametrize("kind", ["store", "s3"])
def test_a_mount_reads_parts_there(near: Near, stores: Path, kind: str) -> None:
    url, *_ = urls(kind, near, stores)
    trust_web(near.lab.host("org2"), stores)
    data = data_of(stores)
    script = (near.home / "sparse.py").read_text().replace(str(PARTS), "[1 << 20, 4 << 20]")
    (near.home / "sparse.py").write_text(script)
    before = near.moved()
    words = ["--access", "mount", *near.on("org2", slots=1)]
    done = near.run("run", "python3 sparse.py {in}", url, *words)
    moved = near.moved() - before
    assert done.returncode == 0, done.stderr
    parts = b"".join(data[at : at + (1 << 20)] for at in (1 << 20, 4 << 20))
    assert done.stdout.strip() == hashlib.sha256(parts).hexdigest()
    (told,) = near.notes()
    assert re.search(rf"read from afar from {ORIGINS[kind]}: 2(\.\d+)? MB of 6 MB in ", told), told
    assert moved < SLACK, moved
    assert f"from {ORIGINS[kind]}" in near.run("explain", "1").stdout


@pytest.mark.parametrize("access", ["stage", "mount"])
def test_a_node_that_does_not_reach_the_store_has_the_front_end(near: Near, stores: Path, access: str) -> None:
    near.lab.host("org1").run(["ip", "route", "add", "blackhole", "10.77.0.3"], check=True)  # nothing comes back to it
    inputs = urls("store", near, stores)
    before = near.moved()
    began = time.monotonic()
    done = near.run("run", "sha256sum {in}", *inputs, "--access", access, *near.on("org3", slots=1))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 90  # the system itself tries for two minutes, each time
    assert near.moved() - before > COUNT * SIZE * 2  # to the front end, and to the node
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert sorted(found) == sorted(hashlib.sha256(data_of(stores, n)).hexdigest() for n in range(COUNT))
    (said,) = [text for text in near.notes("task = 0") if text.startswith("nothing comes straight")]
    assert f"store {ADDRESS}:{STORE}: " in said
    assert not [text for text in near.notes() if "from store" in text]
    near.lab.host("org1").run(["ip", "route", "del", "blackhole", "10.77.0.3"], check=True)


def test_who_wants_it_so_gives_nodes_nothing(near: Near, stores: Path) -> None:
    (url, *_) = urls("store", near, stores)
    before = near.moved()
    done = near.run("run", "sha256sum {in}", url, "--no-direct", "--access", "stage", *near.on("org2", slots=1))
    assert done.returncode == 0, done.stderr
    assert near.moved() - before > 2 * SIZE
    assert near.notes() == [f"inputs: {url} sent"]


def test_a_certificate_that_a_node_does_not_believe_is_not_gone_by(near: Near, stores: Path) -> None:
    url = urls("https", near, stores)[0]
    host = near.lab.host("org3")
    host.run(["sh", "-c", "rm -f /etc/ssl/certs/web.pem"])
    done = near.run("run", "sha256sum {in}", url, "--access", "stage", *near.on("org3", slots=1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == hashlib.sha256(data_of(stores)).hexdigest()
    assert near.notes() == [f"inputs: {url} sent"]
    (said,) = [text for text in near.notes("task = 0") if text.startswith("nothing comes straight")]
    assert "certificate" in said


def test_what_is_shown_to_the_store_is_not_shown_to_others_of_the_node(near: Near, stores: Path) -> None:
    inputs = urls("store", near, stores)
    host = near.lab.host("org2")
    command = "sh -c 'cksum \"$1\" && touch /tmp/flag && sleep 5' sh {in}"
    running = near.start("run", command, inputs[0], "--access", "mount", *near.on("org2", slots=1))
    near.until(lambda: host.run(["test", "-e", "/tmp/flag"]).returncode == 0, "it has read")
    kept = json.loads((stores / "served/.serai/access.json").read_text())
    secrets = [token["name"] for token in kept["tokens"]]
    assert any(token["parent"] for token in kept["tokens"])
    shown = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"]).stdout
    assert not [name for name in secrets if name in shown]
    look = "grep -rlaE 'sst_[0-9a-f]{12}_' /tmp /home 2>/dev/null; true"
    assert host.run(["sh", "-c", look]).stdout == ""
    running.communicate(timeout=120)
    assert running.returncode == 0
    host.run(["rm", "-f", "/tmp/flag"])
