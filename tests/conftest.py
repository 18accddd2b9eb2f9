"""What all tests share."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same examples each time, so that a failure is of the change at hand. `--hypothesis-profile=explore` looks further.
settings.register_profile("serai", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("serai")

# Who starts the tests in the background may have had Ctrl-C ignored, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = (sys.version_info.major, sys.version_info.minor)
VERSIONS = sorted({(3, minor) for minor in range(8, 15)} | {HERE})


@pytest.fixture(autouse=True, scope="session")
def _settings_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tokens of stores that tests start out of the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERAI_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the runs of tests out of the user's state directory, short enough for control sockets."""
    directory = tmp_path_factory.mktemp("s", numbered=True)
    monkeypatch.setenv("SERAI_STATE", str(directory))
    return directory


@functools.cache
def interpreter(version: tuple[int, int]) -> str | None:
    """Find an interpreter of a version: this one, those of pyenv, those on the PATH."""
    if version == HERE:
        return sys.executable
    name = "{}.{}".format(*version)
    places = [str(one) for one in Path.home().glob(f".pyenv/versions/{name}.*/bin/python")]
    for place in [*sorted(places), shutil.which(f"python{name}")]:
        if place:
            words = [place, "-c", "import sys, ctypes; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
            if done.stdout.strip() == name:
                return place
    return None


@pytest.fixture(params=VERSIONS, ids=lambda one: "{}.{}".format(*one))
def python(request: pytest.FixtureRequest) -> str:
    found = interpreter(request.param)
    if found is None:
        pytest.skip("there is no Python {}.{} here".format(*request.param))
    return found
