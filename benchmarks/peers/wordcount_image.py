#!/usr/bin/env python3
"""The application of the study with ten workers: called with `map` or `reduce`; lines in, `key TAB value` lines out.

Each start is noted in ~/starts with the worker that made it, so that the study knows when work began without asking the
system that it measures. It runs on the hosts, by their own Python.
"""

import os
import sys
import time
from collections import Counter
from itertools import groupby


def note(stage: str) -> None:
    """Note this start."""
    worker = os.environ.get("SERAI_WORKER") or f"parent {os.getppid()}"
    with open(os.path.expanduser("~/starts"), "a", encoding="utf-8") as out:
        out.write(f"{time.time():.6f}\t{stage}\t{worker}\n")


def main() -> None:
    """Map or reduce."""
    stage = sys.argv[-1]
    note(stage)
    lines = sys.stdin.buffer
    write = sys.stdout.buffer.write
    if stage == "map":
        counts = Counter()
        for line in lines:
            counts.update(line.split())
        for word, count in counts.items():
            write(b"%b\t%d\n" % (word, count))
        return
    pairs = (line.rstrip(b"\n").split(b"\t") for line in lines)
    for word, group in groupby(pairs, key=lambda pair: pair[0]):
        write(b"%b\t%d\n" % (word, sum(int(count) for _, count in group)))


if __name__ == "__main__":
    main()
