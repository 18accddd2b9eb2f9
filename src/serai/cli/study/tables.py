"""What the studies found, as tables and as objects."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from serai.errors import UsageError
from serai.match.movement import Policy
from serai.quantity import format_bytes
from serai.sim.studies import communities as scenes
from serai.sim.studies.community_world import CommunityOutcome, run_rule
from serai.sim.studies.published import DIFFUSION, IDEAL_S, MIXED, QUICK, Setting, simulate
from serai.sim.studies.replay import Nodes, Replayed, replay
from serai.sim.studies.traces import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serai.sim.studies.diffusion import Outcome

__all__ = [
    "CommunitiesReport",
    "DiffusionReport",
    "ReplayReport",
    "columns",
    "communities_report",
    "diffusion_report",
    "replay_report",
]

MOST_PROCESSES = 8
COMMUNITIES_QUICK = 1 / 5


@dataclass(slots=True)
class DiffusionReport:
    """The data diffusion study.

    Attributes:
        runs: of the published load.
        mixed: of the mixed load.
        quick: whether scaled down.
        took_s: wall time.
    """

    runs: list[tuple[Setting, Outcome]]
    mixed: list[tuple[Setting, Outcome]]
    quick: bool
    took_s: float

    def as_json(self) -> dict[str, object]:
        """See `serai.cli.study.command.Report`."""
        return {
            "study": "diffusion",
            "quick": self.quick,
            "took_s": round(self.took_s, 1),
            "published_ideal_s": IDEAL_S,
            "runs": [_run_json(setting, outcome) for setting, outcome in self.runs],
            "mixed": [_run_json(setting, outcome) for setting, outcome in self.mixed],
        }

    def lines(self) -> list[str]:
        """See `serai.cli.study.command.Report`."""
        tasks, ideal_s, another = self.runs[0][1].tasks, self.runs[0][1].ideal_s, self.mixed[0][1]
        head = ("policy", "cache", "published*", "here", "of ideal", "local", "peer", "missed", "longest queue")
        rows = [_row(setting, outcome) for setting, outcome in self.runs]
        mixed = [(*_row(setting, outcome), f"{outcome.waited_s:.0f} s") for setting, outcome in self.mixed]
        return [
            f"Data diffusion: {tasks:,} tasks; the last comes at {ideal_s:,.0f} s (published ideal: {IDEAL_S:,.0f} s).",
            "",
            *columns(head, rows),
            "",
            f"A mixed load: {another.tasks:,} tasks of four kinds; the last comes at {another.ideal_s:,.0f} s.",
            "",
            *columns((*head, "mean wait"), mixed),
            "",
            "* as recalled from the papers, not checked against them",
            f"Simulated in {self.took_s:.0f} s.",
        ]


def _row(setting: Setting, outcome: Outcome) -> tuple[str, ...]:
    shares = tuple(f"{outcome.share(kind):.0%}" for kind in ("local", "peer", "missed"))
    published = f"{setting.published_s:,.0f} s" if setting.published_s else ""
    caches = "" if setting.policy == "first-available" else format_bytes(setting.cache_bytes)
    times = (published, f"{outcome.completion_s:,.0f} s", f"{outcome.efficiency:.1%}")
    return (str(setting.policy), caches, *times, *shares, f"{outcome.most_queued:,}")


def _run_json(setting: Setting, outcome: Outcome) -> dict[str, object]:
    facts = asdict(outcome)
    facts["published_s"] = setting.published_s
    facts["efficiency"] = outcome.efficiency
    return facts


def diffusion_report(seed: int, *, quick: bool, say: Callable[[str], None]) -> DiffusionReport:
    """Run the data diffusion study, several runs at a time.

    Args:
        seed: of what is read.
        quick: an eighth of all.
        say: is told of each run that has ended.
    """
    began = time.monotonic()
    settings = [*DIFFUSION, *MIXED]
    found: list[Outcome] = []
    workers = min(MOST_PROCESSES, os.cpu_count() or 1)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = [pool.submit(simulate, setting, seed, QUICK if quick else 1.0) for setting in settings]
        for number, (setting, future) in enumerate(zip(settings, futures, strict=True), start=1):
            found.append(future.result())
            load = "mixed load" if setting.mixed else format_bytes(setting.cache_bytes)
            say(f"{number}/{len(settings)} {setting.policy}, {load}: {found[-1].completion_s:,.0f} s")
    pairs = list(zip(settings, found, strict=True))
    count = len(DIFFUSION)
    return DiffusionReport(pairs[:count], pairs[count:], quick, time.monotonic() - began)


@dataclass(slots=True)
class CommunitiesReport:
    """The study of the communities.

    Attributes:
        runs: the seven policies, then auto where nothing is staged, then auto where UW has the data.
        mixed: the rules over four kinds of jobs, then auto.
        quick: whether scaled down.
    """

    runs: list[CommunityOutcome]
    mixed: list[CommunityOutcome]
    quick: bool
    notes: list[str] = field(default_factory=list)

    def gain(self) -> float:
        """The only community that has the data, alone, over the best use of both."""
        return self.runs[0].completion_s / min(one.completion_s for one in self.runs)

    def as_json(self) -> dict[str, object]:
        """See `serai.cli.study.command.Report`."""
        return {
            "study": "communities",
            "quick": self.quick,
            "gain": self.gain(),
            "runs": [_community_json(one) for one in self.runs],
            "mixed": [_community_json(one) for one in self.mixed],
        }

    def lines(self) -> list[str]:
        """See `serai.cli.study.command.Report`."""
        return [
            f"Gathering at the well: {self.runs[0].jobs} jobs over two communities.",
            "",
            *_community_table(self.runs),
            "",
            f"Locality used well gains {self.gain():.2f} times over INFN alone (published: up to 2.5).",
            "",
            f"A mixed load: {self.mixed[0].jobs} jobs of four kinds.",
            "",
            *_community_table(self.mixed),
        ]


def _community_table(runs: Sequence[CommunityOutcome]) -> list[str]:
    head = ("policy", "completion", "CPU efficiency", "between communities", "where jobs ran")
    rows = [
        (
            one.rule,
            f"{one.completion_s:,.0f} s",
            f"{one.cpu_efficiency:.0%}",
            format_bytes(one.wan_bytes),
            ", ".join(f"{count} {where}" for where, count in sorted(one.ran.items())),
        )
        for one in runs
    ]
    return columns(head, rows)


def _community_json(one: CommunityOutcome) -> dict[str, object]:
    return asdict(one) | {"cpu_efficiency": one.cpu_efficiency}


def communities_report(*, quick: bool) -> CommunitiesReport:
    """Run the study of the communities; a fifth of all when quick."""
    scale = COMMUNITIES_QUICK if quick else 1.0
    scene, mixed = scenes.published(scale), scenes.mixed(scale)
    runs = [run_rule(scene, rule) for rule in (*scenes.RULES, scenes.AUTO)]
    runs[-1].rule = "auto, nothing staged"
    runs.append(run_rule(scene, scenes.AUTO, (scenes.UW.store,)))
    runs[-1].rule = "auto, UW has the data"
    return CommunitiesReport(runs, [run_rule(mixed, rule) for rule in (*scenes.MIXED_RULES, scenes.AUTO)], quick)


@dataclass(slots=True)
class ReplayReport:
    """A trace, replayed.

    Attributes:
        name: of the trace.
        tasks: how many.
        recorded_s: how long it took where it was recorded; None when that is not said.
        runs: by policy.
    """

    name: str
    tasks: int
    recorded_s: float | None
    runs: list[Replayed]

    def as_json(self) -> dict[str, object]:
        """See `serai.cli.study.command.Report`."""
        return {"study": "replay"} | asdict(self)

    def lines(self) -> list[str]:
        """See `serai.cli.study.command.Report`."""
        recorded = f"; it took {self.recorded_s:,.0f} s where it was recorded" if self.recorded_s is not None else ""
        head = ("policy", "completion", "moved", "from the front end", "from peers", "was there", "cores used")
        rows = [
            (
                str(one.policy),
                f"{one.completion_s:,.1f} s",
                format_bytes(one.moved_bytes),
                format_bytes(one.from_front_end_bytes),
                format_bytes(one.from_peers_bytes),
                format_bytes(one.here_bytes),
                f"{one.run_core_s / one.busy_core_s:.0%}" if one.busy_core_s else "",
            )
            for one in self.runs
        ]
        return [f"{self.name}: {self.tasks:,} tasks{recorded}.", "", *columns(head, rows)]


def replay_report(path: str, *, policy: str, nodes: Nodes) -> ReplayReport:
    """Replay a trace under one policy, or under ``all``.

    Raises:
        UsageError: the policy is none, or the file cannot be read or is no trace; the sentence names the file and the
            key.
    """
    try:
        policies = list(Policy) if policy == "all" else [Policy(policy)]
    except ValueError as error:
        raise UsageError(f"{policy!r} is no policy", hint=f"one of {', '.join(Policy)}, or all") from error
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    trace = read_trace(text, path)
    runs = [replay(trace, one, nodes) for one in policies]
    return ReplayReport(trace.name, len(trace.tasks), trace.makespan_s, runs)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal: text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    right = [
        all(not row[n] or row[n][0].isdigit() for row in rows) and any(row[n] for row in rows)
        for n in range(len(head))
    ]  # fmt: skip
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
