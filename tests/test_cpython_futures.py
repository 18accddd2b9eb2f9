"""CPython's own tests of executors, from the interpreter's copy, run against `serai.Pool`.

Left out, each because it tests how CPython's pools are made and not what an executor promises: tests that look at
worker threads, processes or queues, that choose a multiprocessing context, and that start a script which imports the
executor by name from ``concurrent.futures`` (`test_pool` has those for `serai.Pool`). Also those that expect a pool to
break when a worker crashes: ours heals.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
import unittest
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import serai

STDLIB = Path(os.__file__).parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PLACES = [STDLIB / "test", Path(f"/usr/lib/python{VERSION}/test")]


def load() -> Any:
    """The suite as one namespace: a single file up to 3.11, a package since.

    Lanes import its functions by name, so it lies under a name of its own in a directory on the path, which they share.
    """
    for place in PLACES:
        single, package = place / "test_concurrent_futures.py", place / "test_concurrent_futures"
        if not single.is_file() and not package.is_dir():
            continue
        directory = tempfile.mkdtemp(prefix="serai-cpython-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)  # each worker collects it, and one runs it
        sys.path.insert(0, directory)
        if single.is_file():
            shutil.copy(single, Path(directory) / "cpython_futures.py")
            names = ["cpython_futures"]
        else:
            shutil.copytree(package, Path(directory) / "cpython_futures")
            names = [
                f"cpython_futures.{name}"
                for name in ("executor", "test_wait", "test_as_completed", "test_shutdown", "test_init")
            ]
        found: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                found |= vars(importlib.import_module(name))
        return SimpleNamespace(**found)
    return None


SUITE = load()
if SUITE is None:
    if os.environ.get("CI") and os.geteuid() == 0:
        raise RuntimeError(f"this Python has no test_concurrent_futures: apt-get install libpython{VERSION}-testsuite")
    pytest.skip("this Python comes without test.test_concurrent_futures", allow_module_level=True)


def executor(max_workers: int | None = None, **more: Any) -> serai.Pool:
    """A pool as the suite makes executors."""
    return serai.Pool(max_workers=max_workers, **more)


class Mixin(SUITE.ExecutorMixin):  # type: ignore[misc, name-defined]
    """Gives tests a pool."""

    executor_type = staticmethod(executor)
    worker_count = 2


class TestWait(Mixin, SUITE.WaitTests, unittest.TestCase):  # type: ignore[misc, name-defined]
    """`wait`."""


class TestAsCompleted(Mixin, SUITE.AsCompletedTests, unittest.TestCase):  # type: ignore[misc, name-defined]
    """`as_completed`."""


class TestExecutor(Mixin, SUITE.ExecutorTest, unittest.TestCase):  # type: ignore[misc, name-defined]
    """`submit` and `map`."""

    if hasattr(SUITE, "ProcessPoolExecutorTest"):
        test_map_chunksize = SUITE.ProcessPoolExecutorTest.test_map_chunksize


class TestInitializer(SUITE.InitializerMixin, Mixin, unittest.TestCase):  # type: ignore[misc, name-defined]
    """An initializer that works."""


class TestFailingInitializer(Mixin, unittest.TestCase):
    """An initializer that does not: the part of the suite's test that does not read CPython's log."""

    def setUp(self) -> None:
        self.executor_kwargs = {"initializer": SUITE.init_fail}
        super().setUp()

    def test_initializer(self) -> None:
        future = self.executor.submit(SUITE.get_init_status)
        with pytest.raises(SUITE.BrokenExecutor):
            future.result(timeout=20)
        with pytest.raises(SUITE.BrokenExecutor):
            self.executor.submit(SUITE.get_init_status)


class TestShutdown(Mixin, SUITE.ExecutorShutdownTest, unittest.TestCase):  # type: ignore[misc, name-defined]
    """`shutdown`."""

    def setUp(self) -> None:
        super().setUp()
        self.executor.submit(abs, -1).result(timeout=30)  # these tests want a pool whose lanes run

    test_interpreter_shutdown = None
    test_submit_after_interpreter_shutdown = None
    test_hang_gh83386 = None
    test_hang_gh94440 = None  # chooses a multiprocessing context
    test_cancel_futures = None  # wants the first of 50 calls to run within microseconds of its submission
