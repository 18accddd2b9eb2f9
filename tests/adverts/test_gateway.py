"""The gateway: proofs, calls, limits, losses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.adverts.gateway import Gateway, Handler
from serai.errors import HostUnreachable, UsageError
from serai.travel import frames, gateway
from serai.travel.boot import sources
from serai.travel.gateway import LARGEST, MOST_CALLS, GatewayError
from serai.travel.gateway import Gateway as Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON_S = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


class Doors:
    """Handlers that wait until they are let go of."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting = 0

    def wait(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        self.waiting += 1
        assert self.open.wait(SOON_S)
        return head, body


def failing(error: Exception) -> Handler:
    def fail(_head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        raise error

    return fail


ERRORS = {
    "not_found": FileNotFoundError("no entry /a"),
    "exists": FileExistsError("there is one"),
    "claimed": PermissionError("w1 holds it"),
    "usage": UsageError("no such path"),
    "unavailable": HostUnreachable("the database is away"),
    "failed": ZeroDivisionError("by zero"),
}


@pytest.fixture
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    doors.open.set()


@pytest.fixture
def server(tmp_path: Path, doors: Doors) -> Iterator[Gateway]:
    handlers: dict[str, Handler] = {
        "echo": lambda head, body: (head, body),
        "wait": doors.wait,
        "long": lambda head, _: ({}, b"x" * head["bytes"]),
        "set": lambda _head, _body: ({"a": {1}}, b""),
        **{f"fail.{kind}": failing(error) for kind, error in ERRORS.items()},
    }
    with Gateway(handlers, tmp_path) as server:
        yield server


@pytest.fixture
def client(server: Gateway) -> Iterator[Client]:
    with Client(server.address, server.token) as client:
        yield client


def test_heads_and_bodies_come_back(client: Client) -> None:
    assert client.call("echo", {"ü": [1, None, "x"]}, b"\0body") == ({"ü": [1, None, "x"]}, b"\0body")
    assert client.call("echo") == ({}, b"")
    body = os.urandom(1 << 16) * (LARGEST >> 16)
    assert client.call("echo", {}, body)[1] == body


def test_longer_bodies_are_refused_on_either_side(client: Client) -> None:
    with pytest.raises(GatewayError, match="usage"):
        client.call("echo", {}, bytes(LARGEST + 1))
    with pytest.raises(GatewayError, match="unavailable"):
        client.call("long", {"bytes": LARGEST + 1})
    assert len(client.call("long", {"bytes": LARGEST})[1]) == LARGEST


def test_a_frame_beyond_the_limits_ends_the_connection(server: Gateway) -> None:
    with Client(server.address, server.token) as client:
        client._writer.send(frames.HEADER.pack(gateway.ASK, 0, 1, 2, LARGEST + 1) + b"{}", SOON_S)
        until(lambda: client.lost, "the front end let go of it")


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_travel_with_their_kind(client: Client, kind: str) -> None:
    with pytest.raises(GatewayError) as caught:
        client.call(f"fail.{kind}")
    assert caught.value.kind == kind
    assert str(ERRORS[kind]) in caught.value.what
    assert caught.value.transient == (kind == "unavailable")


def test_what_is_no_call_is_a_usage_error(client: Client) -> None:
    with pytest.raises(GatewayError, match=r"usage: nothing here does 'no\.such'"):
        client.call("no.such")
    with pytest.raises(GatewayError, match="usage"):
        client.call("echo", {"a": {1}})
    with pytest.raises(GatewayError, match="failed: TypeError"):
        client.call("set")
    assert client.call("echo", {"still": "there"})[0] == {"still": "there"}


def test_long_calls_hold_up_no_others(client: Client, doors: Doors) -> None:
    waiting = [threading.Thread(target=client.call, args=("wait",)) for _ in range(MOST_CALLS - 1)]
    for one in waiting:
        one.start()
    until(lambda: doors.waiting == MOST_CALLS - 1, "all of them wait")
    for number in range(50):
        assert client.call("echo", {"n": number}, deadline_s=SOON_S)[0] == {"n": number}
    doors.open.set()
    for one in waiting:
        one.join(SOON_S)
        assert not one.is_alive()


def test_a_call_beyond_the_limit_waits_for_its_turn_within_its_deadline(client: Client, doors: Doors) -> None:
    waiting = [threading.Thread(target=client.call, args=("wait",)) for _ in range(MOST_CALLS)]
    for one in waiting:
        one.start()
    until(lambda: doors.waiting == MOST_CALLS, "all of them wait")
    with pytest.raises(GatewayError, match="deadline"):
        client.call("echo", deadline_s=0.05)
    doors.open.set()
    assert client.call("echo", {"a": 1}, deadline_s=SOON_S)[0] == {"a": 1}
    for one in waiting:
        one.join(SOON_S)


def test_a_node_that_does_not_count_is_refused(server: Gateway, doors: Doors) -> None:
    with Client(server.address, server.token) as client:
        client._room = threading.BoundedSemaphore(MOST_CALLS + 1)
        waiting = [threading.Thread(target=client.call, args=("wait",)) for _ in range(MOST_CALLS)]
        for one in waiting:
            one.start()
        until(lambda: doors.waiting == MOST_CALLS, "all of them wait")
        with pytest.raises(GatewayError, match="unavailable"):
            client.call("echo", deadline_s=SOON_S)
        doors.open.set()
        for one in waiting:
            one.join(SOON_S)


def test_a_deadline_ends_the_wait_and_a_late_answer_is_nobodys(client: Client, doors: Doors) -> None:
    with pytest.raises(GatewayError, match="deadline") as caught:
        client.call("wait", {"a": 1}, deadline_s=0.05)
    assert caught.value.transient
    doors.open.set()
    assert client.call("echo", {"b": 2})[0] == {"b": 2}


def test_a_wrong_token_is_refused_by_either_side(server: Gateway, tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="refused") as caught:
        Client(server.address, "0" * 64)
    assert server.token not in str(caught.value)
    until(lambda: server.statistics().connections == 0, "it is let go of")
    assert server.statistics().refused == 1
    impostor = socket.socket(socket.AF_UNIX)
    impostor.bind(str(tmp_path / "i"))
    impostor.listen()

    def answer() -> None:
        with impostor, impostor.accept()[0] as one:
            one.sendall(frames.pack(gateway.HELLO, head={"version": gateway.VERSION, "nonce": "00"}))
            one.recv(4096)
            one.sendall(frames.pack(gateway.WELCOME, head={"proof": "0" * 64}))

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(GatewayError, match="does not know the token"):
        Client(str(tmp_path / "i"), server.token)
    thread.join(SOON_S)


def test_who_asks_before_the_proof_is_let_go_of(server: Gateway) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(SOON_S)
        one.connect(server.address)
        one.sendall(frames.pack(gateway.ASK, head={"do": "echo", "head": {}}))
        with one.makefile("rb") as stream:
            said = [gateway.read_frame(stream), gateway.read_frame(stream)]
            assert [frame and frame[0] for frame in said] == [gateway.HELLO, gateway.REFUSE]
            assert gateway.read_frame(stream) is None
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(SOON_S)
        one.connect(server.address)
        one.sendall(frames.HEADER.pack(gateway.PROVE, 0, 0, gateway.LARGEST_GREETING + 1, 0))
        with one.makefile("rb") as stream:
            assert gateway.read_frame(stream) is not None
            assert gateway.read_frame(stream) is None


def test_a_lost_connection_is_said_to_all_who_wait(server: Gateway, doors: Doors) -> None:
    client = Client(server.address, server.token)
    kinds: list[str] = []

    def call() -> None:
        try:
            client.call("wait")
        except GatewayError as error:
            kinds.append(error.kind)

    waiting = [threading.Thread(target=call) for _ in range(3)]
    for one in waiting:
        one.start()
    until(lambda: doors.waiting == 3, "all of them wait")
    server.close()
    for one in waiting:
        one.join(SOON_S)
    assert kinds == ["lost"] * 3
    with pytest.raises(GatewayError, match="lost"):
        client.call("echo")
    with pytest.raises(GatewayError, match="lost"):
        Client(server.address, server.token)
    client.close()


def test_a_node_that_takes_nothing_is_let_go_of(server: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serai.adverts.gateway.SEND_S", 0.2)
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(SOON_S)
        one.connect(server.address)
        with one.makefile("rb") as stream:
            hello = gateway.read_frame(stream)
            assert hello is not None
            nonces = hello[2]["nonce"] + "00"
            said = {"nonce": "00", "proof": gateway.proof(server.token, "node", nonces)}
            one.sendall(frames.pack(gateway.PROVE, head=said))
            assert gateway.read_frame(stream) is not None
            one.sendall(frames.pack(gateway.ASK, 0, 1, {"do": "long", "head": {"bytes": LARGEST}}))
            until(lambda: server.statistics().connections == 0, "it is let go of")


def test_the_socket_is_private_short_and_gone_at_the_end(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    for room in (tmp_path / "r", deep):
        with Gateway({}, room) as server:
            directory = os.path.dirname(server.address)
            assert os.stat(directory).st_mode & 0o777 == 0o700
            assert len(server.address) < 104
            assert server.token not in repr(server)
            Client(server.address, server.token).close()
        assert not os.path.exists(directory)


def test_what_a_killed_front_end_left_is_removed_and_nothing_else(server: Gateway, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from serai.adverts.gateway import Gateway\n"
        "print(Gateway({}, Path(sys.argv[1])).address, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    room = Path(server.address).parent.parent
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    left = Path(done.stdout.strip()).parent
    assert left.parent == room
    assert left.exists()
    bare = room / f"{left.name.rpartition('-')[0]}-abcdefgh"
    bare.mkdir()
    with Gateway({}, tmp_path):
        assert not left.exists()
        assert bare.exists(), "one that is being made"
        with Client(server.address, server.token) as client:
            assert client.call("echo", {"a": 1})[0] == {"a": 1}
    bare.rmdir()


def test_the_environment_names_the_gateway(server: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{server.token}\n")
    environment = {"SERAI_GATEWAY": server.address, "SERAI_GATEWAY_TOKEN_FILE": str(file)}
    file.chmod(0o644)
    with pytest.raises(GatewayError, match=r"refused.*chmod 600"):
        Client.from_environment(environment)
    file.chmod(0o600)
    with Client.from_environment(environment) as client:
        assert client.call("echo", {"a": 1})[0] == {"a": 1}
    with pytest.raises(GatewayError, match="usage"):
        Client.from_environment({})
    with pytest.raises(GatewayError, match="cannot be read"):
        Client.from_environment({**environment, "SERAI_GATEWAY_TOKEN_FILE": str(tmp_path / "none")})


NODE = """
import json, os, sys, threading
parcel = json.loads(sys.stdin.readline())
exec(parcel["loader"])
gateway = load(parcel, "gateway")
with gateway.Gateway.from_environment() as gate:
    body = os.urandom(1 << 20)
    assert gate.call("echo", {"a": [1, "ä"]}, body) == ({"a": [1, "ä"]}, body)
    kinds = []
    def call():
        try:
            gate.call("fail.claimed", deadline_s=30)
        except gateway.GatewayError as error:
            kinds.append(error.kind)
    threads = [threading.Thread(target=call) for _ in range(30)]
    for one in threads: one.start()
    for one in threads: one.join()
    print(kinds == ["claimed"] * 30)
"""
PYTHONS = {one.parent.parent.name: str(one) for one in Path.home().glob(".pyenv/versions/3.*/bin/python")}
PYTHONS = {name: path for name, path in PYTHONS.items() if int(name.split(".")[1]) >= 8} | {"this": sys.executable}


@pytest.mark.parametrize("python", PYTHONS)
def test_a_node_needs_python_alone(server: Gateway, tmp_path: Path, python: str) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(server.token)
    environment = {"SERAI_GATEWAY": server.address, "SERAI_GATEWAY_TOKEN_FILE": str(token), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [PYTHONS[python], "-I", "-c", NODE], input=json.dumps(sources("gateway")), env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_many_nodes_at_once(server: Gateway) -> None:
    clients = [Client(server.address, server.token) for _ in range(100)]
    assert server.statistics().connections == 100
    for number, client in enumerate(clients):
        assert client.call("echo", {"n": number})[0] == {"n": number}
    for client in clients:
        client.close()
    until(lambda: server.statistics().connections == 0, "all are gone")
    assert server.statistics().handled == 100
