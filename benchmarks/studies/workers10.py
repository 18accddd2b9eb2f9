"""The word count of SAGA MapReduce's paper: 10 workers on ssh hosts, 100 MB, the start of the workers included.

What is reported as spawning is what the application saw: from the start of the command until the last of the workers
had begun its first map. Since others have long been working by then, it is an upper bound of the share.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import envs
from studies import laboratory
from studies.cold import SERAI
from studies.rates import PEERS
from studies.wordcount import corpus, result_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from serai.testing.lab import Lab

HOSTS, WORKERS_PER_HOST = 5, 2
MEGABYTES, QUICK_MB = 100, 8
MOST_S = 300.0
PAPER = {"peer": "SAGA MapReduce, published", "kind": "published", "wall_s": 29.0, "spawn_s": 25.1, "workers": 10}


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring the laboratory up once, and count in every round."""
    megabytes = QUICK_MB if arguments.quick else MEGABYTES
    corpus(megabytes, arguments.seed)  # made outside of the deadline
    words = [str(megabytes), str(arguments.seed), str(arguments.rounds)]
    return laboratory.study("workers10", words, arguments, 300 + MOST_S * arguments.rounds)


def mrdl(files: Sequence[Path], hosts: Sequence[str], output_prefix: str) -> bytes:
    """Return the session in the published format; `workers` is Serai's own attribute."""
    place = {"arch": platform.machine(), "OS": "linux"}
    root = ET.Element("MRDL")
    facts = {"name": "wordcount", "version": "1.0", "user": "", "priority": "1", "experimentID": "1"}
    session = ET.SubElement(root, "MapReduceSession", facts | {"eventLevel": "info"})
    targets = ET.SubElement(session, "TargetHosts")
    for host in hosts:
        ET.SubElement(targets, "Host", {**place, "workers": str(WORKERS_PER_HOST)}).text = f"ssh://{host}"
    images = ET.SubElement(session, "ApplicationBinaries")
    ET.SubElement(images, "BinaryImage", place).text = str(PEERS / "wordcount_image.py")
    ET.SubElement(session, "OutputPrefix").text = output_prefix
    inputs = ET.SubElement(session, "ApplicationFiles")
    for path in files:
        ET.SubElement(inputs, "File").text = str(path)
    ET.indent(root)
    return ET.tostring(root, xml_declaration=True, encoding="utf-8")


def figures(lab: Lab, scratch: Path, files: Sequence[Path], rounds: int) -> Iterator[dict[str, Any]]:
    """Log in bare, one host after the other and all at once; then count."""
    from serai_hosts import logins  # noqa: PLC0415 - peers/ is on the path of this process only

    truth = scratch / "truth"
    truth.mkdir()
    limit = [str(envs.program_of("wordcount")), "2", str(truth / "counts"), *map(str, files)]
    subprocess.run(limit, check=True, timeout=MOST_S)
    wanted = result_of(truth)["digest"]
    every = [host.name for host in lab.hosts for _ in range(WORKERS_PER_HOST)]
    python = ("python3", "-c", "pass")
    logins(str(lab.ssh_config), every, python)  # the first warms the caches
    for turn in range(rounds):
        common = {"round": turn, "workers": len(every)}
        began = time.perf_counter()
        for host in every:
            logins(str(lab.ssh_config), [host], python)
        alone = {"peer": "ssh python3 -c pass, one by one", "kind": "limit", "spawn_s": time.perf_counter() - began}
        yield {**common, **alone, "note": "as the paper's workers were started"}
        at_once = logins(str(lab.ssh_config), every, python)
        yield {**common, "peer": "ssh python3 -c pass, at once", "kind": "limit", "spawn_s": at_once}
        yield {**common, "peer": "serai mapreduce", "kind": "serai", **counted(lab, scratch, files, wanted, turn)}
    yield {**PAPER, "round": 0, "note": "10 workers on EC2, 100 MB, spawned one by one"}


def counted(lab: Lab, scratch: Path, files: Sequence[Path], wanted: str, turn: int) -> dict[str, Any]:
    """Run `serai mapreduce` once; compare its result; ask the hosts when their workers began."""
    out = scratch / f"out-{turn}"
    out.mkdir()
    session = scratch / f"session-{turn}.xml"
    session.write_bytes(mrdl(files, [host.name for host in lab.hosts], f"{out}/"))
    for host in lab.hosts:
        host.run(["sh", "-c", "rm -f ~/starts"], user=host.user, check=True)
    figure = laboratory.timed([SERAI, "mapreduce", str(session)], scratch, MOST_S)
    if "error" in figure:
        return figure
    if result_of(out)["digest"] != wanted:
        return {"error": "another result than that of the limit"}
    began = figure.pop("began")
    first: dict[tuple[str, str], float] = {}
    for host in lab.hosts:
        noted = host.run(["sh", "-c", "cat ~/starts 2>/dev/null || true"], user=host.user).stdout
        for line in noted.splitlines():
            when, stage, worker = line.split("\t")
            if stage == "map":
                at = float(when) - began
                first[host.name, worker] = min(at, first.get((host.name, worker), at))
    if not first:
        return {"error": "no host has noted that a map began"}
    return {**figure, "workers": len(first), "first_map_s": min(first.values()), "spawn_s": max(first.values())}


def main() -> None:
    """Take all figures; run by `study`."""
    own_ssh, scratch, megabytes, seed, rounds = sys.argv[1:]
    from serai.testing.lab import Lab  # noqa: PLC0415 - so that its absence is a figure's error, not a broken run.py

    files = corpus(int(megabytes), int(seed))
    with Lab.up(HOSTS) as lab:
        laboratory.let_in(lab, Path(own_ssh))
        os.environ["SERAI_SSH_CONFIG"] = str(lab.ssh_config)
        for figure in figures(lab, Path(scratch), files, int(rounds)):
            laboratory.say(figure)


if __name__ == "__main__":
    main()
