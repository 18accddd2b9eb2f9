"""Word count of the same files by whole processes, in turn; every result is compared with that of the limit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
import processes
from account import account
from catalogue import COUNTS
from peers.proctree import machine_cpu_s
from studies.rates import PEERS, environment, wanted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from catalogue import Count

CORPORA = Path("/tmp/serai-corpus")
FILES = 8
QUICK_MB = (8,)
MAKING_DEADLINE_S = 600.0


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Count every size with every peer; a peer that fails leaves a figure with its error, and the others go on."""
    sizes = QUICK_MB if arguments.quick else tuple(int(word) for word in arguments.megabytes.split(","))
    figures = []
    for megabytes in sizes:
        files = corpus(megabytes, arguments.seed)
        size = sum(len(path.read_bytes()) for path in files)  # and all are in memory, for the first as for the last
        runs = [run for run in COUNTS if run.kind == "limit" or wanted(run.peer, arguments.only)]
        truth = ""
        for turn in range(arguments.rounds):
            for run in runs:
                if megabytes > run.most_mb or (run.once and turn):
                    continue
                print(f"wordcount, {megabytes} MB, round {turn + 1}: {run.peer} …", end=" ", file=sys.stderr)
                figure = {"peer": run.peer, "kind": run.kind, "round": turn, "note": run.note, "bytes": size}
                figure |= take(run, files, arguments.deadline_s)
                truth = truth or figure.get("digest", "")
                if figure.get("digest", truth) != truth:
                    figure["error"] = f"another result: {figure['words']} words, {figure['distinct']} distinct"
                print(figure.get("error") or f"{figure['wall_s']:.2f} s", file=sys.stderr)
                figures.append(figure)
    return figures


def corpus(megabytes: int, seed: int) -> list[Path]:
    """Return the files of a corpus, made when they are not there."""
    folder = CORPORA / f"{megabytes}-{FILES}-{seed}"
    words = [str(envs.python_of("report")), str(PEERS / "corpus.py"), str(folder)]
    words += ["--bytes", str(megabytes * 1_000_000), "--files", str(FILES), "--seed", str(seed)]
    subprocess.run(words, check=True, timeout=MAKING_DEADLINE_S)
    return sorted(folder.glob("text-*.txt"))


def take(run: Count, files: Sequence[Path], deadline_s: float) -> dict[str, Any]:
    """Let one peer count once."""
    try:
        python = envs.python_of(run.env) if run.env else Path(sys.executable)
        program = str(envs.program_of(run.program) if run.program else python)
    except (RuntimeError, OSError) as failed:
        return {"error": str(failed)}
    # Unix sockets are made in it, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        out = Path(scratch, "out")
        out.mkdir()
        places = {"peers": str(PEERS), "out": str(out), "scratch": f"{scratch}/s"}
        Path(places["scratch"]).mkdir()
        words = [program, *(word.format(**places) for word in run.words), *map(str, files)]
        env = environment(python, scratch, own=bool(run.env)) | {"TMPDIR": places["scratch"]}
        with account() as (enter, cpu_s):
            busy_s = machine_cpu_s()
            ended = processes.run(
                [*enter, *(processes.alone() if run.alone else ()), *words],
                env=env,
                cwd=Path(scratch),
                deadline_s=deadline_s,
            )
            used_s = cpu_s()
            others_s = max(0.0, machine_cpu_s() - busy_s - used_s)
        figure = {"wall_s": ended.wall_s, "cpu_s": used_s, "others_cpu_s": others_s}
        if ended.code:
            return {"error": ended.complaint.splitlines()[-1] if ended.complaint else f"exit code {ended.code}"}
        return figure | result_of(out)


def result_of(out: Path) -> dict[str, Any]:
    """Return how many words and distinct words a result has, and a digest of its lines in order, however partitioned.

    Every file must be sorted in itself; a word that is in two of them shows in the digest.
    """
    paths = [path for path in out.rglob("*") if path.is_file() and path.name[0] not in "._"]
    every: list[bytes] = []
    for path in paths:
        lines = path.read_bytes().splitlines()
        if any(one > other for one, other in pairwise(lines)):
            return {"error": f"{path.name} is not sorted", "words": 0, "distinct": 0}
        every += lines
    every.sort()
    return {
        "words": sum(int(line.rpartition(b"\t")[2]) for line in every),
        "distinct": len(every),
        "files": len(paths),
        "digest": hashlib.sha256(b"\n".join(every)).hexdigest(),
    }
