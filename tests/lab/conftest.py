"""The fixtures of the laboratory, and ssh as a user would run it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.testing.lab import Lab


@pytest.fixture(scope="session")
def ssh() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(lab: Lab, host: str, command: str, *options: str, connect_s: int = 10) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", str(lab.ssh_config), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={connect_s}", *options]
        return subprocess.run([*words, host, command], capture_output=True, text=True, timeout=90, check=False)

    return run
