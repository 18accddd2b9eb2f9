"""`serai communities`: nodes that share their nearest store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.match.inventory import Inventory

_NONE = "(none)"


@click.command()
@click.option("--on", multiple=True, metavar="SITE", help="Check in the nodes of a site or a pool file now.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.option("--url", metavar="URL", help="The advert service.  [$SERAI_ADVERTS]")
def communities(on: Sequence[str], url: str | None, *, as_json: bool) -> int:
    """List stores, each with the nodes that it is the nearest store of: declared in a pool file, or found by measuring.

    Exit code: 0 some were found, 1 none.
    """
    from serai.cli.discovery.nodes import advertised, surveyed  # noqa: PLC0415 - `serai --help` does without

    inventory = surveyed(on, "", url, near=True) if on else advertised(url)
    rows = _rows(inventory)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        click.echo("\n".join(_table(rows)))
    else:
        click.echo(
            "neither a node nor a store is advertised: serai store serve DIR starts a store, and nodes are advertised"
            " while a run or a pool lives; serai communities --on SITE checks them in now",
            err=True,
        )
    return 0 if rows else 1


def _rows(inventory: Inventory) -> list[dict[str, Any]]:
    """For each store: its community, its nodes, and how near these are; last those that have none."""
    by_store: dict[str, list[Mapping[str, Any]]] = {name: [] for name in sorted(inventory.stores)}
    near = inventory.stores_of_nodes()
    for path, ad in sorted(inventory.nodes.items()):
        by_store.setdefault(near[path], []).append(ad)
    rows = []
    for store, ads in sorted(by_store.items(), key=lambda pair: (pair[0] == "", pair[0])):
        names = {str(ad["Community"]) for ad in [inventory.stores.get(store, {}), *ads] if ad.get("Community")}
        rows.append({
            "community": " ".join(sorted(names)) or store,
            "store": store,
            "advertised": store in inventory.stores,
            "nodes": [{"name": ad.get("Name"), "run": ad.get("Run"), "rtt_s": ad.get("StorageRtt")} for ad in ads],
        })  # fmt: skip
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from serai.cli.discovery.nodes import width  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.sentences import clean  # noqa: PLC0415 - the same
    from serai.cli.tables import aligned  # noqa: PLC0415 - the same

    lines = []
    for row in rows:
        nodes = ", ".join(
            f"{one['name']}" + (f" ({one['rtt_s'] * 1000:.1f} ms)" if one["rtt_s"] is not None else "")
            for one in row["nodes"]
        )
        store = row["store"] or _NONE
        if row["store"] and not row["advertised"]:
            store += " (not there)"
        lines.append([clean(one) for one in (row["community"] or _NONE, store, str(len(row["nodes"])), nodes)])
    return aligned(["COMMUNITY", "STORE", "NODES", "NAMES"], lines, right={"NODES"}, width=width())
