"""One large file and many small ones, from this machine to a host and from a host to another, by whole processes.

The disks of the hosts are in memory and their network is one of this kernel, so that what is measured is the programs:
ciphers, processes, round trips, system calls. Every copy is compared with its source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies import laboratory
from studies.cold import SERAI

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from serai.testing.lab import Host, Lab

SMALL_BYTES = 4096
IN_A_FOLDER = 100
MOST_S = 300.0
AGENT = ("ssh-agent", "sh", "-c", 'ssh-add -q "$1" && shift && exec "$@"', "sh")
MAKE = """
import os, random, sys
root, (large, small, in_a_folder, small_bytes) = sys.argv[1], map(int, sys.argv[2:])
source = random.Random(1)
os.makedirs(root + "/big")
with open(root + "/big/large", "wb") as out:
    for start in range(0, large, 1 << 20):
        out.write(source.randbytes(min(1 << 20, large - start)))
for number in range(small):
    folder = f"{root}/tree/{number // in_a_folder:03}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{number:06}", "wb") as out:
        out.write(source.randbytes(small_bytes))
"""
DIGEST = 'cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum'


@dataclass(frozen=True, slots=True)
class Way:
    """A program that copies a folder: its words, in which {from}, {to}, {what} and others are filled in."""

    peer: str
    kind: str
    words: tuple[str, ...]
    note: str = ""


TO_HOST = (
    Way("scp", "peer", ("scp", "-q", "-r", "{from}/{what}", "lab1:{to}/")),
    Way("rsync", "peer", ("rsync", "-a", "{from}/{what}", "lab1:{to}/")),
    Way("tar, ssh", "limit", ("sh", "-c", "tar -C {from} -c {what} | ssh lab1 tar -C {to} -x"), "nothing is verified"),
    Way("serai", "serai", (SERAI, "cp", "-r", "{from}/{what}", "ssh://lab1{to}/")),
)
BETWEEN = (
    Way("scp", "peer", ("scp", "-q", "-r", "lab1:{from}/{what}", "lab2:{to}/"), "its default: through this machine"),
    Way(
        "scp, direct",
        "peer",
        (*AGENT, "{key}", "scp", "-q", "-R", "-A", "-r", "lab1:{from}/{what}", "lab2:{to}/"),
        "-R -A, with an agent",
    ),
    Way(
        "tar, ssh, ssh",
        "limit",
        ("sh", "-c", "ssh lab1 tar -C {from} -c {what} | ssh lab2 tar -C {to} -x"),
        "through this machine; nothing is verified",
    ),
    Way(
        "tar, ssh, direct",
        "limit",
        (*AGENT, "{key}", "ssh", "-A", "lab1", "tar -C {from} -c {what} | ssh -o BatchMode=yes lab2 tar -C {to} -x"),
        "with an agent; nothing is verified",
    ),
    Way("serai", "serai", (SERAI, "cp", "-r", "ssh://lab1{from}/{what}", "ssh://lab2{to}/")),
)


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring the laboratory up once, and copy everything in turn, round by round."""
    large, small = (20_000_000, 500) if arguments.quick else (arguments.large_mb * 1_000_000, arguments.small_files)
    words = [str(large), str(small), str(arguments.rounds), arguments.only]
    return laboratory.study("copying", words, arguments, 300 + 1200 * arguments.rounds)


def figures(lab: Lab, scratch: Path, large: int, small: int, rounds: int, only: str) -> Iterator[dict[str, Any]]:
    """Copy, compare, delete."""
    one, two = lab.hosts[0], lab.hosts[1]
    home = f"/home/{one.user}"
    here = str(scratch / "source")
    sizes = [str(number) for number in (large, small, IN_A_FOLDER, SMALL_BYTES)]
    subprocess.run([sys.executable, "-c", MAKE, here, *sizes], check=True, timeout=MOST_S)
    one.run(["python3", "-c", MAKE, f"{home}/source", *sizes], user=one.user, timeout_s=MOST_S, check=True)
    digests = {what: digest_of(one, f"{home}/source/{what}") for what in ("big", "tree")}
    for turn in range(rounds):
        for what in ("big", "tree"):
            for route, ways, source, target in (
                ("to a host", TO_HOST, here, one),
                ("between hosts", BETWEEN, f"{home}/source", two),
            ):
                for way in ways:
                    if only and not laboratory.kept({"peer": way.peer}, only):
                        continue
                    figure: dict[str, Any] = {"peer": way.peer, "kind": way.kind, "note": way.note, "round": turn}
                    figure |= {"route": route, "what": what, "against": "scp"}
                    figure |= {"bytes": large, "files": 1} if what == "big" else {"files": small}
                    figure.setdefault("bytes", small * SMALL_BYTES)
                    if shutil.which(way.words[0]) is None:
                        figure["error"] = f"{way.words[0]} is not installed"
                    else:
                        places = {
                            "from": source,
                            "to": f"{home}/target",
                            "what": what,
                            "key": str(lab.directory / "id"),
                        }
                        figure |= copied(way, places, target, digests[what], scratch)
                    yield figure


def copied(way: Way, places: dict[str, str], target: Host, digest: str, scratch: Path) -> dict[str, Any]:
    """Copy once into an empty folder; compare."""
    folder = places["to"]
    target.run(["sh", "-c", 'rm -rf "$1" && mkdir "$1"', "sh", folder], user=target.user, timeout_s=MOST_S, check=True)
    taken = laboratory.timed([word.format(**places) for word in way.words], scratch, MOST_S)
    if "error" not in taken and digest_of(target, f"{folder}/{places['what']}") != digest:
        return {"error": "the copy differs from its source"}
    target.run(["rm", "-rf", folder], user=target.user, timeout_s=MOST_S)
    return {name: value for name, value in taken.items() if name not in {"stdout", "began"}}


def digest_of(host: Host, folder: str) -> str:
    """Return a digest of the names and contents of all files below a folder of a host."""
    told = host.run(["sh", "-c", DIGEST, "sh", folder], user=host.user, timeout_s=MOST_S)
    return told.stdout.strip() or told.stderr.strip()


def main() -> None:
    """Take all figures; run by `study`."""
    own_ssh, scratch, large, small, rounds, only = sys.argv[1:]
    from serai.testing.lab import Lab  # noqa: PLC0415 - so that its absence is a figure's error, not a broken run.py

    disk_bytes = int(2.5 * (int(large) + int(small) * 2 * SMALL_BYTES)) + (256 << 20)
    with Lab.up(2, disk_bytes=disk_bytes) as lab:
        laboratory.let_in(lab, Path(own_ssh))
        os.environ["SERAI_SSH_CONFIG"] = str(lab.ssh_config)
        for figure in figures(lab, Path(scratch), int(large), int(small), int(rounds), only):
            laboratory.say(figure)


if __name__ == "__main__":
    main()
