"""Starts of /bin/true on one ssh host until all are done, over a plain link and over one with a long way."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
from studies import laboratory
from studies.rates import PEERS, environment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

ROUND_TRIP_MS = 175.0
MOST_S = 240.0
# Starts (not: until done) over a link of 175 ms, as noted in the sources of radical.saga.
PUBLISHED = {"radical.saga, published, 1 thread": 4.0, "radical.saga, published, 10 threads": 21.0}


@dataclass(frozen=True, slots=True)
class Way:
    """A peer: its script in peers/, from how many threads it starts jobs (0: one call for all), its environment."""

    peer: str
    kind: str
    script: str
    threads: int
    env: str = ""
    note: str = ""


WAYS = (
    Way("ssh, 1 thread", "limit", "jobs_ssh.py", 1, note="a process and a session each; no job can be found again"),
    Way("ssh, 10 threads", "limit", "jobs_ssh.py", 10, note="the same; the sessions a server allows by default"),
    Way("serai, one call", "serai", "jobs_serai.py", 0),
    Way("serai, 1 thread", "serai", "jobs_serai.py", 1),
    Way("serai, 10 threads", "serai", "jobs_serai.py", 10),
    Way("radical.saga, 1 thread", "peer", "jobs_radical.py", 1, "radical"),
    Way("radical.saga, 10 threads", "peer", "jobs_radical.py", 10, "radical"),
)


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring the laboratory up once, and start everybody's jobs in turn, round by round."""
    for env in {way.env for way in WAYS if way.env}:
        envs.python_of(env)  # made outside of the time that is measured, and of the deadline
    words = [str(10 if arguments.quick else arguments.jobs), str(arguments.rounds), arguments.only]
    return laboratory.study("jobstarts", words, arguments, 300 + 900 * arguments.rounds)


def figures(lab: Any, scratch: Path, count: int, rounds: int, only: str) -> Iterator[dict[str, Any]]:
    """Take every peer over the plain link and over the long one, and give the published figures."""
    for turn in range(rounds):
        for round_trip_ms in (0.0, ROUND_TRIP_MS):
            lab.hosts[0].slow(None, delay_ms=round_trip_ms / 2)  # each way
            for way in WAYS:
                if only and not laboratory.kept({"peer": way.peer}, only):
                    continue
                figure = {"peer": way.peer, "kind": way.kind, "note": way.note, "round": turn}
                figure |= {"round_trip_ms": round_trip_ms, "jobs": count}
                yield figure | taken(way, scratch, count)
    for peer, rate in PUBLISHED.items():
        figure = {"peer": peer, "kind": "published", "note": "starts only; elsewhere, on another day", "round": 0}
        figure |= {"round_trip_ms": ROUND_TRIP_MS, "jobs": count, "started_s": count / rate, "jobs_s": count / rate}
        yield figure


def taken(way: Way, scratch: Path, count: int) -> dict[str, Any]:
    """Run one peer's script once."""
    python = envs.python_of(way.env) if way.env else Path(sys.executable)
    env = environment(python, str(scratch), own=bool(way.env))
    words = [str(python), str(PEERS / way.script), "lab1", str(count), str(way.threads)]
    more = {name: value for name, value in env.items() if os.environ.get(name) != value}
    if way.env:
        more["SERAI_BENCH_PATH"] = more.pop("PYTHONPATH")
        words = ["sh", "-c", 'PYTHONPATH="$SERAI_BENCH_PATH" exec "$@"', "sh", *words]
    told = laboratory.timed(words, scratch, MOST_S, **more)
    if "error" in told:
        return told
    del told["began"]
    return json.loads(told.pop("stdout").splitlines()[-1]) | told


def main() -> None:
    """Take all figures; run by `study`."""
    own_ssh, scratch, count, rounds, only = sys.argv[1:]
    from serai.testing.lab import Lab  # noqa: PLC0415 - so that its absence is a figure's error, not a broken run.py

    with Lab.up(1) as lab:
        laboratory.let_in(lab, Path(own_ssh))
        os.environ["SERAI_SSH_CONFIG"] = str(lab.ssh_config)
        for figure in figures(lab, Path(scratch), int(count), int(rounds), only):
            laboratory.say(figure)


if __name__ == "__main__":
    main()
