"""A session whose standard input and output are one socket, for real."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from serai.errors import NoPython

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.access.conftest import Sshd

    from serai.access.openssh import Connection


def test_bytes_go_both_ways_over_the_one_connection(lab: Sshd, connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.open()
    before = lab.connections()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = connection.session("cat; echo said >&2; exit 7", theirs.fileno())
        theirs.close()
        everything = bytes(range(256)) * 4096
        ours.settimeout(20)
        got = b""
        for at in range(0, len(everything), 1 << 16):
            ours.sendall(everything[at : at + (1 << 16)])
            while len(got) < at:
                got += ours.recv(1 << 16)
        ours.shutdown(socket.SHUT_WR)
        while data := ours.recv(1 << 16):
            got += data
    assert got == everything
    assert process.wait(20) == 7
    assert lab.connections() == before


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("no-such-python", "no-such-python"),
        ("python3 -c 'import sys; sys.exit(sys.version.split()[0])'", "its interpreter cannot run the executor: 3."),
    ],
)
def test_an_interpreter_that_does_not_do_is_told(connect: Callable[..., Connection], remote: str, said: str) -> None:
    connection = connect()
    connection.open()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        error = connection.session_error("python3", connection.session(remote, theirs.fileno()).wait(20))
    assert isinstance(error, NoPython)
    assert said in error.what
    assert "?python=" in str(error.hint)
