"""Data diffusion, live: many short tasks that read a few files again and again, over laboratory hosts with slow links.

The front end has the files; every host has two slots and a link of 100 Mb/s. What went over the links is what the
interfaces of the hosts' cables counted, both ways; a copy from host to host counts on both cables. The least is each
file once. Each contestant gets a laboratory of its own, and every answer is compared with a sum made beforehand.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
from peers.proctree import machine_cpu_s
from studies import laboratory
from studies.cold import SERAI
from studies.rates import PEERS, environment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from serai.testing.lab import Lab

HOSTS, SLOTS = 4, 2
RATE_BIT_S = 100e6
FRONT_END = "10.77.0.254"
FOLDERS = Path("/tmp/serai-diffusion")
PACKAGES = "/tmp/packages"
DISK_BYTES = 8 << 30  # no more of it is used than is written
QUICK = (8, 5, 20)
MOST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Way:
    """A contestant.

    Attributes:
        peer: its name.
        kind: `serai`, `peer` or `limit`.
        script: in peers/; empty for the command itself.
        options: of the command.
        env: its environment.
        variant: in the script's own words.
        once: whether it is run in the first round only, since it takes very long.
        note: what a reader of the table must know.
    """

    peer: str
    kind: str
    script: str = ""
    options: tuple[str, ...] = ()
    env: str = ""
    variant: str = ""
    once: bool = False
    note: str = ""


OPEN = "HTTP in the clear; listens on the network"
WAYS = (
    Way("ssh, shares by hand", "limit", "diffusion_limit.py", note="tar to each host, cksum there; no queue"),
    Way("serai, auto", "serai", options=("--policy", "auto")),
    Way("serai, good-cache-compute", "serai", options=("--policy", "good-cache-compute")),
    Way(
        "serai, blind",
        "serai",
        options=("--policy", "first-available", "--cache", "0"),
        once=True,
        note="the oldest task to the first free slot; no caches",
    ),
    Way(
        "dask",
        "peer",
        "diffusion_dask.py",
        env="dask",
        note=f"a task fetches each file, the others depend on it; kept in memory; {OPEN}",
    ),
    Way(
        "parsl HTEX, files kept by hand",
        "peer",
        "diffusion_parsl.py",
        env="parsl",
        variant="kept",
        note=f"the tasks themselves keep files on their host; {OPEN}",
    ),
    Way(
        "parsl HTEX, its staging",
        "peer",
        "diffusion_parsl.py",
        env="parsl",
        variant="staging",
        once=True,
        note=f"HTTPInTaskStaging: each task fetches its file; {OPEN}",
    ),
)


@dataclass(frozen=True, slots=True)
class Work:
    """The files and how often each is read.

    Attributes:
        folder: where the front end has them.
        files: their names.
        reads: tasks per file.
        size_bytes: of each.
    """

    folder: Path
    files: tuple[str, ...]
    reads: int
    size_bytes: int

    def order(self) -> list[str]:
        """Return the file of each task, mixed: the same in every run."""
        order = list(self.files) * self.reads
        random.Random(1).shuffle(order)
        return order

    def sums(self, *, of_cksum: bool) -> dict[str, str]:
        """Return each file's sum, as `cksum` or as zlib says it."""
        if not of_cksum:
            return {name: str(zlib.crc32((self.folder / name).read_bytes())) for name in self.files}
        said = subprocess.run(["cksum", *self.files], cwd=self.folder, capture_output=True, text=True, check=True)
        return {line.split()[2]: line.split()[0] for line in said.stdout.splitlines()}


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Make the files once, and let every contestant read them, round by round."""
    count, megabytes, reads = QUICK if arguments.quick else (arguments.files, arguments.size_mb, arguments.reads)
    for env in {way.env for way in WAYS if way.env}:
        envs.python_of(env)  # made outside of the time that is measured, and of the deadline
    made(count, megabytes, reads)
    words = [str(count), str(megabytes), str(reads), str(arguments.rounds), arguments.only]
    return laboratory.study("diffusion", words, arguments, MOST_S * len(WAYS) * arguments.rounds)


def made(count: int, megabytes: int, reads: int) -> Work:
    """Return the files, made when they are not there: bytes that no link and no file system can make smaller."""
    folder, size = FOLDERS / f"{megabytes}mb", megabytes * 1_000_000
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"f{number:03d}" for number in range(count))
    for name in names:
        path = folder / name
        if not path.exists() or path.stat().st_size != size:
            part = folder / f"{name}.part"
            part.write_bytes(random.Random(name).randbytes(size))
            part.rename(path)
    return Work(folder, names, reads, size)


def figures(scratch: Path, own_ssh: Path, work: Work, rounds: int, only: str) -> Iterator[dict[str, Any]]:
    """Take every contestant in turn."""
    from serai.errors import SeraiError  # noqa: PLC0415 - so that its absence is a figure's error

    sums = {of_cksum: work.sums(of_cksum=of_cksum) for of_cksum in (False, True)}  # and all files are in memory
    for turn in range(rounds):
        for way in WAYS:
            if (turn and way.once) or (only and not laboratory.kept({"peer": way.peer}, only)):
                continue
            print(f"diffusion, round {turn + 1}: {way.peer} …", file=sys.stderr, flush=True)
            figure: dict[str, Any] = {"peer": way.peer, "kind": way.kind, "note": way.note, "round": turn}
            figure |= {"tasks": len(work.files) * work.reads, "files": len(work.files)}
            figure |= {"size_bytes": work.size_bytes, "least_bytes": len(work.files) * work.size_bytes}
            wanted = sums[way.env == ""]
            with tempfile.TemporaryDirectory(prefix="w", dir=scratch, ignore_cleanup_errors=True) as own:
                try:
                    told = taken(way, Path(own), own_ssh, work, wanted)
                except (SeraiError, OSError, RuntimeError, subprocess.SubprocessError) as failed:  # the others go on
                    told = {"error": str(failed)}
                yield figure | told


def taken(way: Way, own: Path, own_ssh: Path, work: Work, wanted: dict[str, str]) -> dict[str, Any]:
    """Run one contestant once, in a laboratory of its own."""
    from serai.testing.lab import Lab  # noqa: PLC0415 - so that its absence is a figure's error, not a broken run.py

    python = Path(sys.base_prefix)
    pythons = {f"lab{number}": python for number in range(1, HOSTS + 1)}
    with Lab.up(HOSTS, disk_bytes=DISK_BYTES, pythons=pythons) as lab:
        laboratory.let_in(lab, own_ssh)
        os.environ["SERAI_SSH_CONFIG"] = str(lab.ssh_config)
        if way.env:
            furnish(lab, way.env)
        for host in lab.hosts:
            host.slow(rate_bit_s=RATE_BIT_S)
        before, busy_s, began = carried(lab), machine_cpu_s(), time.perf_counter()
        told = by_command(way, own, lab, work) if not way.script else by_script(way, own, lab, work)
        after = carried(lab)
        if "error" in told:
            return told
        busy = (machine_cpu_s() - busy_s) / (time.perf_counter() - began)
    said = told.pop("said")
    right = sorted(f"{wanted[name]} {name}" for name in work.order())
    if not way.script:  # what tasks print has no file's name
        right = sorted(wanted[name] for name in work.order())
    if sorted(said) != right:
        return {"error": f"{len(said)} sums of {len(right)}, or wrong ones"}
    per_host = [one - other for one, other in zip(after, before, strict=True)]
    shares = {"link_bytes": sum(per_host), "busiest_link_bytes": max(per_host)}
    return told | shares | {"busy_cores": busy, "over_least": sum(per_host) / (len(work.files) * work.size_bytes)}


def furnish(lab: Lab, env: str) -> None:
    """Put a peer's packages on every host, before its link is slow: who uses it has it installed there."""
    folder = next((envs.ENVS / env / "lib").glob("python3*/site-packages"))
    for host in lab.hosts:
        ssh = ["ssh", "-F", str(lab.ssh_config), "-o", "ControlPath=none", host.name]
        for place in (folder, PEERS):
            tar = ["tar", "-C", str(place), "--exclude=__pycache__", "--exclude=pip", "-cf", "-", "."]
            script = f"mkdir -p {PACKAGES} && tar -C {PACKAGES} -xf -"
            subprocess.run(f"{shlex.join(tar)} | {shlex.join([*ssh, script])}", shell=True, check=True, timeout=120)
        host.run(["python3", "-m", "compileall", "-q", PACKAGES], user=host.user, timeout_s=120)


def carried(lab: Lab) -> list[int]:
    """Return the bytes that each host's cable has carried, both ways, as the front end's ends of them count."""
    links = json.loads(lab.run(["ip", "-j", "-s", "link"], check=True).stdout)
    ends = {link["ifname"]: link["stats64"] for link in links}
    counts = [ends[f"v{number}"] for number in range(1, len(lab.hosts) + 1)]
    return [count["rx"]["bytes"] + count["tx"]["bytes"] for count in counts]


def by_command(way: Way, own: Path, lab: Lab, work: Work) -> dict[str, Any]:
    """Run `serai run`; return its figure and what its tasks said: the sums."""
    pool = own / "pool.toml"
    sites = [f'[[site]]\nurl = "ssh://{host.name}"\nslots = {SLOTS}\n' for host in lab.hosts]
    pool.write_text("\n".join(sites), encoding="utf-8")
    inputs = [str(work.folder / name) for name in work.order()]
    words = [SERAI, "run", "cksum <{in}", *inputs, "--on", str(pool), "--show", "none", *way.options]
    out = own / "said"
    told = laboratory.timed(["sh", "-c", 'exec "$@" >"$0"', str(out), *words], own, MOST_S)
    if "error" in told:
        return told
    lines = [line.split() for line in out.read_text(encoding="ascii").splitlines()]
    sums = [line[0] for line in lines if line[1:] == [str(work.size_bytes)]]
    return {"wall_s": told["wall_s"], "cpu_s": told["cpu_s"], "said": sums}


def by_script(way: Way, own: Path, lab: Lab, work: Work) -> dict[str, Any]:
    """Run a peer's script in the laboratory's network; return its figure and the sums that it wrote down."""
    python = envs.python_of(way.env) if way.env else Path(sys.executable)
    env = environment(python, str(own), own=True)
    inside = ["nsenter", "-t", str(lab._pid), "-n"]  # noqa: SLF001 - its front end is one more host of that network
    origin = subprocess.Popen(
        [*inside, sys.executable, str(PEERS / "diffusion_origin.py"), str(work.folder), FRONT_END],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert origin.stdout is not None
        port = origin.stdout.readline().strip()
        asked = {
            "ssh_config": str(lab.ssh_config),
            "hosts": [host.name for host in lab.hosts],
            "address": FRONT_END,
            "origin": f"http://{FRONT_END}:{port}",
            "order": work.order(),
            "packages": PACKAGES,
            "slots": SLOTS,
            "scratch": str(own),
            "variant": way.variant or str(work.folder),
        }
        (own / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        more = {name: value for name, value in env.items() if os.environ.get(name) != value}
        more["SERAI_BENCH_PATH"] = more.pop("PYTHONPATH", str(PEERS))
        words = [*inside, str(python), str(PEERS / way.script), str(own / "asked.json")]
        words = ["sh", "-c", 'PYTHONPATH="$SERAI_BENCH_PATH" exec "$@"', "sh", *words]
        told = laboratory.timed(words, own, MOST_S, **more)
    finally:
        origin.communicate()
    if "error" in told:
        return told
    sums = [" ".join(reversed(line.split())) for line in (own / "sums").read_text(encoding="ascii").splitlines()]
    startup_s = json.loads(told["stdout"].splitlines()[-1])["startup_s"]
    return {"wall_s": told["wall_s"], "cpu_s": told["cpu_s"], "startup_s": startup_s, "said": sums}


def main() -> None:
    """Take all figures; run by `study`."""
    own_ssh, scratch, count, megabytes, reads, rounds, only = sys.argv[1:]
    work = made(int(count), int(megabytes), int(reads))
    for figure in figures(Path(scratch), Path(own_ssh), work, int(rounds), only):
        laboratory.say(figure)


if __name__ == "__main__":
    main()
