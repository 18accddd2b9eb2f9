"""What tests of engines share."""

from __future__ import annotations

import socket

import pytest

from serai.testing.lab.fixtures import lab, lab_factory

__all__ = ["lab", "lab_factory"]


@pytest.fixture
def free_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
