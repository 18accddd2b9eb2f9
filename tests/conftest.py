"""What all tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the runs of tests out of the user's state directory, short enough for control sockets."""
    directory = tmp_path_factory.mktemp("s", numbered=True)
    monkeypatch.setenv("SERAI_STATE", str(directory))
    return directory
