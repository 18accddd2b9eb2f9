"""What the tests of the MapReduce worker share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.mapreduce.mrfront import Front, Plan
else:
    from mrfront import Front


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Callable[[Plan], Front]]:
    with contextlib.ExitStack() as stack:
        yield lambda plan: stack.enter_context(Front(tmp_path, plan))
