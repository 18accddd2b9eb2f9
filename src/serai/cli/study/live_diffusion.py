"""Data diffusion, live: short tasks over a few files on four laboratory hosts whose links give 100 Mb/s.

`serai run` itself is run, once for each policy, each time in a new laboratory. What went over the links is what the
hosts' cables counted, both ways; a copy from host to host counts on both. The least is each file once.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from serai.cli.study.tables import columns
from serai.errors import DeadlineExceeded, SeraiError
from serai.match.movement import Policy
from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.testing.lab import Lab

__all__ = ["LiveDiffusion", "LiveRun", "Work", "carried", "live_diffusion", "run_serai"]

HOSTS, SLOTS = 4, 2
RATE_BIT_S = 100e6
FILES, FILE_BYTES, READS = 64, 4_000_000, 5
MOST_S = 600.0
SUM = "python3 -c 'import sys, zlib; print(zlib.crc32(sys.stdin.buffer.read()))' <{in}"


@dataclass(frozen=True, slots=True)
class Work:
    """Files, and the order in which tasks read them.

    Attributes:
        directory: where the files are.
        files: their names.
        order: the file of each task.
        sums: of each file, by name.
    """

    directory: str
    files: Sequence[str]
    order: Sequence[str]
    sums: dict[str, int]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One policy.

    Attributes:
        policy: its name.
        took_s: wall time of `serai run`.
        link_bytes: that the hosts' cables carried.
        least_bytes: all files once.
        tasks: how many.
    """

    policy: str
    took_s: float
    link_bytes: int
    least_bytes: int
    tasks: int


@dataclass(frozen=True, slots=True)
class LiveDiffusion:
    """All policies; see `serai.cli.study.command.Report`."""

    runs: list[LiveRun]

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return {"study": "diffusion", "live": True, "runs": [asdict(one) for one in self.runs]}

    def lines(self) -> list[str]:
        """The same, as a table."""
        first = self.runs[0]
        rows = [
            (
                one.policy,
                f"{one.took_s:.1f} s",
                format_bytes(one.link_bytes),
                f"{one.link_bytes / one.least_bytes:.2f}",
                f"{one.tasks / one.took_s:.0f}",
            )
            for one in self.runs
        ]
        return [
            f"{first.tasks} tasks over {format_bytes(first.least_bytes)} of files, {HOSTS} hosts of {SLOTS} slots.",
            "",
            *columns(("policy", "wall time", "over the links", "of the least", "tasks/s"), rows),
        ]


def live_diffusion(
    seed: int, *, say: Callable[[str], None], policies: Sequence[Policy] = tuple(Policy)
) -> LiveDiffusion:
    """Run every policy in a laboratory of its own.

    Args:
        seed: of the files and their order.
        say: is told of each run.
        policies: which.

    Raises:
        UsageError: no laboratory can be had here.
        SeraiError: a run failed, or gave wrong sums.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="serai-study-") as scratch:
        work = made(scratch, seed)
        for policy in policies:
            runs.append(_one(policy, work, scratch))
            say(f"{policy}: {runs[-1].took_s:.1f} s, {format_bytes(runs[-1].link_bytes)} over the links")
    return LiveDiffusion(runs)


def made(scratch: str, seed: int) -> Work:
    """Make files that nothing can make smaller, and draw the order of their readers."""
    draw = random.Random(seed)  # noqa: S311 - bytes and an order that are the same every time
    directory = os.path.join(scratch, "files")
    os.makedirs(directory, exist_ok=True)
    names = [f"f{number:03d}" for number in range(FILES)]
    sums = {}
    for name in names:
        data = draw.randbytes(FILE_BYTES)
        sums[name] = zlib.crc32(data)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(data)
    order = names * READS
    draw.shuffle(order)
    return Work(directory, names, order, sums)


def _one(policy: Policy, work: Work, scratch: str) -> LiveRun:
    from serai.testing.lab import Lab  # noqa: PLC0415 - only who asks for the laboratory needs it

    with Lab.up(HOSTS) as lab:
        for host in lab.hosts:
            host.slow(rate_bit_s=RATE_BIT_S)
        pool = os.path.join(scratch, f"{policy}.toml")
        with open(pool, "w", encoding="utf-8") as file:
            for host in lab.hosts:
                config = json.dumps(str(lab.ssh_config))
                file.write(f'[[site]]\nurl = "ssh://{host.name}"\nslots = {SLOTS}\nssh_config = {config}\n\n')
        inputs = [os.path.join(work.directory, name) for name in work.order]
        before, began = carried(lab), time.monotonic()
        words = [SUM, *inputs, "--on", pool, "--policy", str(policy)]
        said = run_serai(words, {"SERAI_STATE": os.path.join(scratch, f"state-{policy}")})
        took_s, after = time.monotonic() - began, carried(lab)
    if sorted(map(int, said.split())) != sorted(work.sums[name] for name in work.order):
        raise SeraiError(f"under {policy} {len(said.split())} sums came of {len(inputs)}, or wrong ones")
    least = sum(os.path.getsize(os.path.join(work.directory, name)) for name in work.files)
    return LiveRun(str(policy), took_s, after - before, least, len(inputs))


def carried(lab: Lab, only: int | None = None) -> int:
    """The bytes that all hosts' cables have carried so far, both ways; or that of one host, counted from 1."""
    links = json.loads(lab.run(["ip", "-j", "-s", "link"], check=True).stdout)
    ends = {link["ifname"]: link["stats64"] for link in links}
    counts = [ends[f"v{number}"] for number in ([only] if only else range(1, len(lab.hosts) + 1))]
    return sum(int(count["rx"]["bytes"]) + int(count["tx"]["bytes"]) for count in counts)


def run_serai(words: Sequence[str], variables: Mapping[str, str], at: str | None = None, lab: Lab | None = None) -> str:
    """Run `serai run`; returns what its tasks printed.

    Args:
        words: behind `serai run`.
        variables: added to the environment.
        at: the directory it runs in.
        lab: in whose network it runs, if not in this machine's.

    Raises:
        SeraiError: it ended badly; the hint is the end of what it said.
        DeadlineExceeded: it had not ended in time.
    """
    command = [sys.executable, "-m", "serai", "run", *words, "--show", "none"]
    try:
        done = subprocess.run(
            command if lab is None else lab.inside(command),
            env=os.environ | dict(variables),
            cwd=at,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MOST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"serai run had not ended after {MOST_S:g} s", command=words[0]) from error
    if done.returncode:
        raise SeraiError(f"serai run ended with code {done.returncode}", command=words[0], hint=done.stderr[-2000:])
    return done.stdout
