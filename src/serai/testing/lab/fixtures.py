"""Fixtures of pytest that give laboratories: `pytest_plugins = ["serai.testing.lab.fixtures"]`.

Where no laboratory can be had, a test that asks for one is skipped; when root runs it with CI=true, it fails.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from serai.testing.lab.lab import Lab
from serai.testing.lab.needs import why_not

if TYPE_CHECKING:
    from collections.abc import Iterator


class LabFactory(Protocol):
    """Makes laboratories, which are taken down at the end of the session unless the test did."""

    def __call__(self, count: int, **options: Any) -> Lab:
        """A laboratory with so many hosts; options as of `Lab.up`."""
        ...


@pytest.fixture(scope="session")
def lab_factory() -> Iterator[LabFactory]:
    """See `LabFactory`."""
    reason = why_not()
    if reason is not None and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(f"no laboratory in CI: {reason}")
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as labs:

        def up(count: int, **options: Any) -> Lab:
            return labs.enter_context(Lab.up(count, **options))

        yield up


@pytest.fixture(scope="session")
def lab(lab_factory: LabFactory) -> Lab:
    """A laboratory of two hosts, one for the whole session: a test leaves the hosts as it found them."""
    return lab_factory(2)
