"""Replay small worlds by their seeds: ``python -m serai.sim 17`` or ``python -m serai.sim 17 --many 1000``."""

from __future__ import annotations

import argparse
import sys

from serai.sim.checks import Broken
from serai.sim.draw import file_world, small_world


def main(arguments: list[str] | None = None) -> int:
    """Run worlds; returns 1 when one of them breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m serai.sim", description="Replay small worlds by their seeds.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--many", type=int, default=1, metavar="N", help="this seed and those that follow, N in all")
    parser.add_argument("--files", action="store_true", help="worlds whose tasks read files")
    given = parser.parse_args(arguments)
    broken = 0
    for seed in range(given.seed, given.seed + given.many):
        world = file_world(seed) if given.files else small_world(seed)
        try:
            world.run()
        except Broken as error:
            broken += 1
            say(str(error) if given.many == 1 else str(error).splitlines()[0])
            continue
        if given.many == 1:
            counts = ", ".join(f"{count} {what}" for what, count in sorted(world.ledger.counts.items()))
            say(f"seed {seed}: over at {world.ended_at:.3f} s after {world.steps} steps: {counts}")
    if given.many > 1:
        say(f"{given.many - broken} of {given.many} worlds kept every promise")
    return 1 if broken else 0


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
