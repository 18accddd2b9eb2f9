"""`serai nodes`: the nodes and stores that are there, found by what they have."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serai.match.inventory import Inventory

WIDTH = 100
ON = "Check in the nodes of a site or a pool file now, instead of looking who is advertised. May be repeated."


@click.command()
@click.option("--where", metavar="EXPR", help="A ClassAd expression: 'Memory > 4000 && HasSoftware(\"openmpi\")'.")
@click.option("--stores", is_flag=True, help="Stores instead of nodes.")
@click.option("--on", multiple=True, metavar="SITE", help=ON)
@click.option("--json", "as_json", is_flag=True, help="Print a list of ads.")
@click.option("--url", metavar="URL", help="The advert service.  [$SERAI_ADVERTS]")
def nodes(where: str | None, on: Sequence[str], url: str | None, *, stores: bool, as_json: bool) -> int:
    """List the nodes that live runs and pools advertise; with --where those that an expression holds for.

    MEMORY and DISK are in MiB and KiB in expressions, as HTCondor's; NearestStorage.NAME is an attribute of a node's
    store. Exit code: 0 some were found, 1 none.
    """
    from serai.clock import SystemClock  # noqa: PLC0415 - `serai --help` does without

    now = datetime.fromtimestamp(SystemClock().wall(), UTC).astimezone()
    if where is not None:  # a mistake is said before anything is waited for
        from serai.describe.ads.expressions import parse_expression  # noqa: PLC0415 - the same

        parse_expression(where, what="--where")
    inventory = _inventory(on, where or "", url, stores=stores)
    found = inventory.where(where, now)
    ads: Mapping[str, Mapping[str, Any]] = found.stores if stores else found.nodes
    if as_json:
        more = {} if stores else inventory.stores_of_nodes()
        listed = [
            {"path": path, **({"store": more[path]} if path in more else {}), **ad} for path, ad in sorted(ads.items())
        ]
        click.echo(json.dumps(listed, indent=2))
    elif ads:
        lines = _table_of_stores(ads) if stores else _table(ads, inventory.stores_of_nodes(), runs=not on)
        click.echo("\n".join(lines))
    else:
        click.echo(_nothing(inventory, where, stores=stores, on=bool(on)), err=True)
    return 0 if ads else 1


def _inventory(on: Sequence[str], where: str, url: str | None, *, stores: bool) -> Inventory:
    """What there is to choose from."""
    if not on:
        return advertised(url)
    if stores:  # which need no check-in
        from serai.match.inventory import Inventory  # noqa: PLC0415 - the same

        return Inventory({}, known_stores(on, url))
    return surveyed(on, where, url, near="neareststorage" in where.lower())


def advertised(url: str | None) -> Inventory:
    """What the advert service has; of stores that pool files describe, what live runs tell."""
    from serai.adverts.service import open_adverts  # noqa: PLC0415 - `serai --help` does without
    from serai.match.inventory import Inventory  # noqa: PLC0415 - the same
    from serai.pool.publishing import DECLARED, NODES, STORES  # noqa: PLC0415 - the same

    with open_adverts(url) as service:
        found = {entry.path: entry.attributes for entry in service.each(NODES, recursive=True)}
        stores = {entry.path.rpartition("/")[2]: entry.attributes for entry in service.each(DECLARED, recursive=True)}
        for entry in service.each(STORES):
            name = entry.path.rpartition("/")[2]
            stores[name] = {**stores.get(name, {}), **entry.attributes}
    return Inventory(found, stores)


def known_stores(on: Sequence[str], url: str | None) -> dict[str, Mapping[str, Any]]:
    """The ads of the stores that pool files describe, and of those that are advertised, by name."""
    from serai.describe.ads.stores import stores_of  # noqa: PLC0415 - the same
    from serai.describe.poolfile import sites_from  # noqa: PLC0415 - the same
    from serai.errors import SeraiError  # noqa: PLC0415 - the same

    stores: dict[str, Mapping[str, Any]] = dict(stores_of(sites_from(on)))
    try:
        stores |= {name: {**stores.get(name, {}), **ad} for name, ad in advertised(url).stores.items()}
    except (SeraiError, OSError) as error:  # only what refers to stores needs them
        click.echo(f"serai: the ads of stores are not known: {error}", err=True)
    return stores


def surveyed(on: Sequence[str], where: str, url: str | None, *, near: bool = False) -> Inventory:
    """What the nodes of sites say when they are asked now; what is wrong with others is said at once.

    Args:
        on: the sites.
        where: an expression, whose software they are asked for.
        url: the advert service, for the ads of stores.
        near: nodes that name no store measure which one is nearest.
    """
    import tempfile  # noqa: PLC0415 - the same
    from pathlib import Path  # noqa: PLC0415 - the same

    from serai.apps.survey import Look, survey  # noqa: PLC0415 - the same
    from serai.clock import SystemClock  # noqa: PLC0415 - the same
    from serai.describe.ads.expressions import software_in  # noqa: PLC0415 - the same
    from serai.describe.poolfile import sites_from  # noqa: PLC0415 - the same
    from serai.dispatch.run import new_name, token  # noqa: PLC0415 - the same
    from serai.match.inventory import Inventory  # noqa: PLC0415 - the same
    from serai.pool.nearness import not_there  # noqa: PLC0415 - the same
    from serai.pool.publishing import attributes  # noqa: PLC0415 - the same

    clock, sites = SystemClock(), sites_from(on)
    stores = known_stores(on, url)
    with tempfile.TemporaryDirectory(prefix="serai-look-") as scratch:
        look = Look(new_name(clock.wall(), token()), Path(scratch), tuple(software_in(where)), stores if near else {})
        found = survey(sites, look, clock)
    named = {name: str(ad.get("nearest_storage") or "") for name, ad in found.ads.items()}
    for trouble in [*found.troubles.values(), *not_there(named, stores)]:
        click.echo(f"serai: {trouble}", err=True)
    nodes = {}
    for name, ad in found.ads.items():
        store, rtt_s = found.nearest.get(name, ("", 0.0))
        state = {"State": "Idle"} | ({"StorageRtt": rtt_s} if store else {})
        nodes[name] = attributes(name, ad, {}, state, store)
    return Inventory(nodes, stores)


def _nothing(inventory: Inventory, where: str | None, *, stores: bool, on: bool) -> str:
    there = len(inventory.stores if stores else inventory.nodes)
    what = "store" if stores else "node"
    if there and where is not None:
        return f"of {there} {what}{'s' if there > 1 else ''}, none has {where}"
    if on:
        return f"there is no {what}"
    if stores:
        return "no store is advertised: serai store serve DIR starts one"
    return "no node is advertised: they are while a run or a pool lives; serai nodes --on SITE checks them in now"


def _table(ads: Mapping[str, Mapping[str, Any]], near: Mapping[str, str], *, runs: bool) -> list[str]:
    from serai.cli.sentences import clean  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.tables import aligned  # noqa: PLC0415 - the same

    rows = []
    for path, ad in sorted(ads.items()):
        cells = [
            ad.get("Name", ""), ad.get("State", ""), ad.get("Slots") or ad.get("Cpus", ""),
            _size(ad, "Memory", 1 << 20),
            _size(ad, "Disk", 1024), ad.get("Gpus") or "", ad.get("LoadAvg", ""), near[path],
            ad.get("Community", ""), ad.get("Run", ""),
        ]  # fmt: skip
        rows.append([clean(str(cell)) for cell in cells])
    head = ["NODE", "STATE", "SLOTS", "MEMORY", "DISK", "GPUS", "LOAD", "STORE", "COMMUNITY", "RUN"]
    shown = [n for n, name in enumerate(head) if any(row[n] for row in rows) and (runs or name != "RUN")]
    right = {"SLOTS", "MEMORY", "DISK", "GPUS", "LOAD"}
    return aligned([head[n] for n in shown], [[row[n] for n in shown] for row in rows], right=right, width=width())


def _table_of_stores(ads: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from serai.cli.sentences import clean  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.tables import aligned  # noqa: PLC0415 - the same

    rows = []
    for name, ad in sorted(ads.items()):
        urls = ad.get("AccessURLs") or []
        where = min(map(str, urls), key=_for_others, default="") if isinstance(urls, list) else ""
        sets = ad.get("Datasets")
        cells = [
            name, _size(ad, "Disk", 1024), _size(ad, "TotalDisk", 1024), str(ad.get("Community", "")), where,
            ", ".join(map(str, sets)) if isinstance(sets, list) else "",
        ]  # fmt: skip
        rows.append([clean(cell) for cell in cells])
    head = ["STORE", "FREE", "OF", "COMMUNITY", "URL", "DATASETS"]
    return aligned(head, rows, right={"FREE", "OF"}, width=width())


def _for_others(url: str) -> int:
    """How little of use a URL of a store is elsewhere; of several the first of the least is shown."""
    return 0 if url.startswith("store") else 2 if url.startswith(("file:", "/")) else 1


def _size(ad: Mapping[str, Any], name: str, unit: int) -> str:
    from serai.quantity import format_bytes  # noqa: PLC0415 - `serai --help` does without

    value = ad.get(name)
    return format_bytes(int(value) * unit) if isinstance(value, int | float) else ""


def width() -> int:
    """Of a line on the terminal."""
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if os.isatty(1) else 10_000
