from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.openssh import Target
from serai.access.porter import Porter, shared_porter
from serai.errors import HostUnreachable, NoPython, SeraiError, UsageError
from serai.testing.jobs import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.access.conftest import Sshd


@pytest.fixture(params=["local", "ssh"])
def target(request: pytest.FixtureRequest) -> Iterator[Target | None]:
    if request.param == "local":
        yield None
    else:
        sshd: Sshd = request.getfixturevalue("lab")
        yield Target("lab", config=str(sshd.config))
    porter.close_all()
    connections.close_all()


def ask_for_ever(one: Porter) -> None:
    while True:
        one.call("who")


def test_it_says_who_and_where_it_is(target: Target | None) -> None:
    head, body = shared_porter(target, "files").call("who")
    assert (head["uid"], body) == (os.getuid(), b"")
    assert head["pid"] != os.getpid()
    assert head["boot"]


def test_errors_of_the_system_are_the_built_in_ones(target: Target | None) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        shared_porter(target, "files").call("files.stat", {"path": "/no/such/file"})
    assert caught.value.filename == "/no/such/file"
    assert caught.value.__notes__ == [f"on {shared_porter(target, 'files').host}"], "a traceback says on which host"
    with pytest.raises(UsageError, match="nothing here does brew"):
        shared_porter(target, "files").call("brew")


def test_many_calls_at_once_are_each_answered(target: Target | None, tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / str(n)).write_bytes(bytes(n))
    one = shared_porter(target, "files")
    calls = [one.submit("files.stat", {"path": str(tmp_path / str(n % 20))}) for n in range(2000)]
    assert [call.result()[0]["size"] for call in calls] == [n % 20 for n in range(2000)]


def test_calls_of_a_porter_that_ended_fail_and_the_next_has_a_new_one(target: Target | None) -> None:
    one = shared_porter(target, "files")
    os.kill(one.call("who")[0]["pid"], 9)
    with pytest.raises(HostUnreachable, match="lost"):
        ask_for_ever(one)
    another = shared_porter(target, "files")
    assert another is not one
    assert another.call("who")[0]["uid"] == os.getuid()


def test_a_call_that_comes_after_the_end_is_told_of_it_too(
    target: Target | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent then may still fit into a socket, and nobody answers it."""
    one = shared_porter(target, "files")
    os.kill(one.call("who")[0]["pid"], 9)
    until(lambda: not one.alive, "its end is seen")
    monkeypatch.setattr(one._link, "send", lambda *_: None)
    with pytest.raises(HostUnreachable, match="lost"):
        one.call("who", deadline_s=1.0)


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(NoPython, match="no-such-python"):
        Porter(None, "no-such-python")


def test_the_end_does_not_wait_for_a_login_under_way(tmp_path: Path) -> None:
    began, config = tmp_path / "began", tmp_path / "config"
    config.write_text(f"Host mute\n  ProxyCommand sh -c 'touch {began}; exec sleep 60'\n")
    errors: list[SeraiError] = []

    def start() -> None:
        try:
            shared_porter(Target("mute", config=str(config)), "files")
        except SeraiError as error:
            errors.append(error)

    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    until(began.exists, "the login is under way")
    ender = threading.Thread(target=porter.close_all, daemon=True)
    ender.start()
    ender.join(20)
    assert not ender.is_alive()  # a login may take 30 s
    connections.close_all()
    starter.join(40)
    assert len(errors) == 1


def test_a_socket_of_the_host_leads_to_one_here(lab: Sshd, tmp_path: Path) -> None:
    connection = connections.shared(Target("lab", config=str(lab.config)))
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(here)
        server.listen()
        connection.forward_back(there, here)
        client.settimeout(40)
        client.connect(there)

        def answer() -> None:
            with server.accept()[0] as one:
                one.sendall(one.recv(100).upper())

        threading.Thread(target=answer, daemon=True).start()
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"
    connection.end_forward_back(there, here)
    connection.end_forward_back(there, here)
    connections.close_all()
