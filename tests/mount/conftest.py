"""Mounts are real: they need ``/dev/fuse``, and the tests here need root to give it to others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.mount.mounting import Room
from tests.store.conftest import start as start_store

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["start_store"]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("/dev/fuse cannot be opened here")
    return Room(tmp_path)
