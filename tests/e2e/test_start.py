"""Hosts are started at the same time, and each is used as soon as it is there."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING

import pytest

from serai.describe.poolfile import sites_from
from serai.dispatch.run import Run
from serai.pool.members import Member, Standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Front

    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory

pytestmark = pytest.mark.lab


def test_a_far_host_does_not_delay_the_others(front: Front) -> None:
    front.lab.host("lab3").slow(delay_ms=150)
    process = front.start("run", "sleep 0.2", "--each", "1..140", *front.on(slots=2))

    def up() -> set[str]:
        return {row[0] for row in front.query("SELECT name FROM node WHERE state = 'up'")}

    first = front.until(up, "one is there")
    assert "lab3" not in first
    front.until(lambda: len(front.done()) >= 4, "they work already")
    assert "lab3" not in up()
    front.until(lambda: front.busy_on("lab3"), "the far one works, too")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def check_in_s(front: Front, lab: Lab, count: int, directory: Path) -> tuple[float, float]:
    """Seconds until the first and the last of so many hosts have checked in; the best of three starts."""
    found = []
    for attempt in range(3):
        sites = sites_from([f"ssh://{host.name}?ssh_config={lab.ssh_config}" for host in lab.hosts[:count]])
        run = Run(sites, directory / f"{count}-{attempt}")
        began = time.monotonic()
        run.start()
        members = list(run.roster.members.values())

        def up(members: list[Member] = members) -> int:
            return sum(one.standing is Standing.UP for one in members)

        front.until(up, "the first")
        first = time.monotonic() - began
        front.until(functools.partial(_all_of, up, count), "the last", 30)
        found.append((time.monotonic() - began, first))
        run.close()
    last, first = min(found)
    return first, last


def _all_of(up: Callable[[], int], count: int) -> bool:
    return up() == count


def test_sixteen_hosts_start_at_the_same_time(front: Front, lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory(16, prefix="many")
    check_in_s(front, lab, 1, tmp_path / "warm")
    _, alone = check_in_s(front, lab, 1, tmp_path)
    first, last = check_in_s(front, lab, 16, tmp_path)
    lab.down()
    # Each login is some tens of milliseconds of arithmetic here and on the host, and all hosts are this machine: what
    # cannot be done at the same time for want of cores is allowed for, a wait of one for another is not.
    cores = len(os.sched_getaffinity(0))
    assert last < 2 * alone * max(1.0, 16 / (2 * cores)), (alone, first, last)
