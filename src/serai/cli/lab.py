"""`serai lab`: the laboratory."""

from __future__ import annotations

import click


@click.group()
def lab() -> None:
    """Real Linux hosts on this machine, for trying pools without owning any. Needs root."""


@lab.command()
@click.argument("count", type=click.IntRange(1, 200))
@click.option("--dir", "directory", default="lab", show_default=True, help="Where the pool file and ssh_config go.")
@click.option("--prefix", default="lab", show_default=True, help="Hosts are called PREFIX1, PREFIX2, …")
@click.option("--install", is_flag=True, help="Install what is missing (apt-get).")
def up(count: int, directory: str, prefix: str, *, install: bool) -> None:
    """Bring up COUNT hosts, and keep them until Ctrl-C."""
    from serai.testing.lab.command import lab_up  # noqa: PLC0415 - nothing else of the command needs it

    lab_up(count, click.echo, directory=directory, prefix=prefix, install=install)
