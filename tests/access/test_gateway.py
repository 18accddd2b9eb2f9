"""execnet gateways over a connection, for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import execnet
import pytest

from serai.errors import HostUnreachable, NoPython

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.access.conftest import Sshd

    from serai.access.openssh import Connection


@pytest.mark.parametrize("python", ["python3", "/usr/bin//env -u NO 'WITH=a  b' python3 -X dev"])
def test_a_gateway_starts_and_works_over_the_one_connection(
    lab: Sshd, connect: Callable[..., Connection], python: str
) -> None:
    connection = connect()
    connection.open()
    before = lab.connections()
    group = execnet.Group()
    gateway = group.makegateway(f"{connection.execnet_spec(python)}//id=lab")
    channel = gateway.remote_exec(
        "import os, sys; channel.send((os.environ.get('WITH'), sys.flags.dev_mode)); channel.send(channel.receive())"
    )
    assert channel.receive(20) == (("a  b", True) if "dev" in python else (None, False))
    everything = bytes(range(256)) * 4096
    channel.send(everything)
    assert channel.receive(20) == everything
    group.terminate(timeout=5)
    assert lab.connections() == before


def test_what_a_gateway_says_at_its_end_is_kept(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.open()
    group = execnet.Group()
    gateway = group.makegateway(connection.execnet_spec("no-python-here -s"))
    error = connection.gateway_error("no-python-here -s", gateway._io.wait())
    group.terminate(timeout=5)
    assert isinstance(error, NoPython)
    assert "no-python-here" in error.what
    assert "?python=" in str(error.hint)


def test_a_gateway_without_its_master_does_not_connect(lab: Sshd, connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.open()
    before = lab.connections()
    spec = connection.execnet_spec("python3")
    assert connection._master is not None
    connection._master.kill()
    lab.until(lambda: not connection.alive(), "the master is gone")
    group = execnet.Group()
    gateway = group.makegateway(spec)
    error = connection.gateway_error("python3", gateway._io.wait())
    group.terminate(timeout=5)
    assert isinstance(error, HostUnreachable)
    assert lab.connections() == before
