"""`serai study`: what is asked for, and where its tables and figures go."""

from __future__ import annotations

import json
from typing import Protocol

import click

_figures = click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Draw figures there, as SVG (needs serai[study]).",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print an object instead of tables.")
_seed = click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same figures.")


@click.group()
def study() -> None:
    """Repeat the published experiments, simulated or on the hosts of a laboratory.

    \b
      serai study diffusion            data diffusion: six policies, 250,000 tasks, 64 nodes
      serai study communities          gathering at the well: seven policies, two communities
      serai study replay TRACE.json    a workflow's trace (WfCommons)
    """  # noqa: D301 - click reads the \b


@study.command()
@click.option("--live", is_flag=True, help="On four laboratory hosts with links of 100 Mb/s, scaled down. Needs root.")
@click.option("--quick", is_flag=True, help="An eighth of the tasks, files, nodes and rates.")
@_figures
@_seed
@_json
def diffusion(figures: str | None, seed: int, *, live: bool, quick: bool, as_json: bool) -> None:
    """Repeat the data diffusion experiment: short tasks over files that nodes keep, ever more of them.

    Simulated; the queue that decides is the one of `serai run`. Prints completion times beside the published ones.
    """
    if live:
        from serai.cli.study.live_diffusion import live_diffusion  # noqa: PLC0415 - only when asked for

        _print(live_diffusion(seed, say=_progress), as_json=as_json)
        return
    from serai.cli.study import figures as drawing  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.study import tables  # noqa: PLC0415 - the same

    if figures is not None:
        drawing.check()
    report = tables.diffusion_report(seed, quick=quick, say=_progress)
    if figures is not None:
        drawing.diffusion(figures, report)
    _print(report, as_json=as_json)


@study.command()
@click.option("--live", is_flag=True, help="On laboratory hosts in two communities, scaled down. Needs root.")
@click.option("--quick", is_flag=True, help="A fifth of the machines, jobs and links.")
@_figures
@_seed
@_json
def communities(figures: str | None, seed: int, *, live: bool, quick: bool, as_json: bool) -> None:
    """Repeat the experiment of the communities: seven policies and auto, 300 jobs, two stores.

    Simulated; who may run where is asked of ClassAds, and auto goes by prices.
    """
    if live:
        from serai.cli.study.live_communities import live_communities  # noqa: PLC0415 - only when asked for

        _print(live_communities(seed, say=_progress), as_json=as_json)
        return
    from serai.cli.study import figures as drawing  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.study import tables  # noqa: PLC0415 - the same

    if figures is not None:
        drawing.check()
    report = tables.communities_report(quick=quick)
    if figures is not None:
        drawing.communities(figures, report)
    _print(report, as_json=as_json)


@study.command()
@click.argument("trace", type=click.Path())
@click.option("--nodes", type=click.IntRange(1, 100_000), default=4, show_default=True, help="How many nodes.")
@click.option("--cores", type=click.IntRange(1, 10_000), default=4, show_default=True, help="Of each node.")
@click.option("--policy", default="auto", show_default=True, help="As of `serai run`; or all.")
@click.option(
    "--link", type=click.FloatRange(min=0.001), default=1000.0, show_default=True, help="Megabit/s of each node's link."
)
@click.option("--cache", default="100GB", show_default=True, metavar="SIZE", help="Of each node.")
@_json
def replay(trace: str, nodes: int, cores: int, policy: str, link: float, cache: str, *, as_json: bool) -> None:
    """Replay a workflow's trace, a WfCommons instance, on simulated nodes.

    Prints the completion time and the bytes that were moved under a policy.
    """
    from serai.cli.study import tables  # noqa: PLC0415 - `serai --help` does without
    from serai.quantity import bytes_of  # noqa: PLC0415 - the same
    from serai.sim.studies.replay import Nodes  # noqa: PLC0415 - the same

    there = Nodes(count=nodes, cores=cores, cache_bytes=bytes_of(cache), link_bytes_s=link * 1e6 / 8)
    _print(tables.replay_report(trace, policy=policy, nodes=there), as_json=as_json)


def _progress(line: str) -> None:
    click.echo(line, err=True)


class Report(Protocol):
    """What a study found."""

    def as_json(self) -> dict[str, object]:
        """All of it."""
        ...

    def lines(self) -> list[str]:
        """The same, as tables."""
        ...


def _print(report: Report, *, as_json: bool) -> None:
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(report.lines()))
