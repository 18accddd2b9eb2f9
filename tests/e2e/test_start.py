"""Hosts are started at the same time, and each is used as soon as it is there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import HOLD

from serai.describe.poolfile import sites_from
from serai.dispatch.run import Run
from serai.pool.members import Standing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Front

    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory

pytestmark = pytest.mark.lab


def test_a_far_host_does_not_delay_the_others(front: Front) -> None:
    front.lab.host("lab3").slow(delay_ms=250)
    process = front.start("run", f"{HOLD}sleep 0.2", "--each", "1..60", *front.on(slots=2))
    first = front.until(front.up, "one is there")
    assert "lab3" not in first
    front.until(lambda: len(front.done()) >= 4, "they work already")
    assert "lab3" not in front.up()
    front.hold("lab1", "lab2")  # so that they leave something
    front.until(lambda: front.busy_on("lab3"), "the far one works, too")
    front.let_go()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def check_in_s(front: Front, lab: Lab, count: int, directory: Path) -> float:
    """Seconds until so many hosts have checked in."""
    sites = sites_from([f"ssh://{host.name}?ssh_config={lab.ssh_config}" for host in lab.hosts[:count]])
    run = Run(sites, directory)
    began = time.monotonic()
    run.start()
    members = list(run.roster.members.values())
    front.until(lambda: all(one.standing is Standing.UP for one in members), "the last", 90)
    took_s = time.monotonic() - began
    run.close()
    return took_s


def test_sixteen_hosts_start_at_the_same_time(front: Front, lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory(16, prefix="many")
    check_in_s(front, lab, 1, tmp_path / "warm")
    # One and many right after each other, several times: whatever else this machine does is the same for both then.
    found = [
        (check_in_s(front, lab, 1, tmp_path / f"1-{n}"), check_in_s(front, lab, 16, tmp_path / f"16-{n}"))
        for n in range(3)
    ]
    lab.down()
    # Each login is some tens of milliseconds of arithmetic here and on the host, and all hosts are this machine: what
    # cannot be done at the same time for want of cores is allowed for, a wait of one for another is not.
    cores = len(os.sched_getaffinity(0))
    assert min(last / alone for alone, last in found) < 2 * max(1.0, 16 / (2 * cores)), found
