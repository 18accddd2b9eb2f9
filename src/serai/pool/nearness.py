"""Which stores a node is asked to reach, and what its answers mean. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serai.match.communities import Closeness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MOST = 16  # stores that a node is asked to reach: the agent takes no more
MOST_NAMED = 4
_PORTS = {"http": 80, "https": 443, "dav": 80, "davs": 443, "store": 9094, "stores": 9094, "ssh": 22, "sftp": 22}
_HERE = ("localhost", "127.", "::1")


def places(stores: Mapping[str, Mapping[str, Any]], machine: str) -> dict[str, tuple[str, int]]:
    """(host, port) of stores, by name: of those that a node can reach at all.

    Args:
        stores: their ads by name.
        machine: the node's host name: a store at a loopback address is reached from its own host only.
    """
    found: dict[str, tuple[str, int]] = {}
    for name, ad in sorted(stores.items()):
        urls = ad.get("AccessURLs")
        for url in urls if isinstance(urls, list) else ():
            place = _place(str(url))
            if place and (not place[0].startswith(_HERE) or machine == ad.get("Machine")):
                found[name] = place
                break
        if len(found) == MOST:
            break
    return found


def _place(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port and parts.scheme != "file" else None


def closeness(
    wanted: Mapping[str, tuple[str, int]],
    reached: Mapping[str, float | None],
    rates: Callable[[str, int], float] = lambda _host, _port: 0.0,
) -> dict[str, Closeness]:
    """How near the stores are that a node reached, by name.

    Rates count where those of all of them are known: one that nobody has measured is neither near nor far.

    Args:
        wanted: see `places`.
        reached: seconds by ``host:port``, as the node's agent told them; None where nobody answered.
        rates: gives the bytes a second that came to the node from a (host, port); 0 where none were measured.
    """
    found = {}
    for name, (host, port) in wanted.items():
        took = reached.get(f"{host}:{port}")
        if took is not None:
            found[name] = Closeness(float(took), rates(host, port))
    if all(one.rate for one in found.values()):
        return found
    return {name: Closeness(one.rtt_s) for name, one in found.items()}


def loads(stores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of work that wait at stores, where their ads say so (``WaitingSeconds``)."""
    found = {}
    for name, ad in stores.items():
        value = ad.get("WaitingSeconds")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def not_there(references: Mapping[str, str], stores: Iterable[str]) -> list[str]:
    """What is to be said of stores that nodes name and nobody describes: a sentence for each.

    Args:
        references: the store that each node names, by node: a name, or ``=`` and an expression, which names none.
        stores: the names of those that are known.
    """
    known = sorted(set(stores))
    nodes: dict[str, list[str]] = {}
    for node, name in references.items():
        if name and not name.startswith("=") and name not in known:
            nodes.setdefault(name, []).append(node)
    said = []
    for name, its in nodes.items():
        near = difflib.get_close_matches(name, known, n=3) or known[:MOST_NAMED]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        more = f" and {len(its) - MOST_NAMED} more" if len(its) > MOST_NAMED else ""
        who = ", ".join(its[:MOST_NAMED]) + more
        said.append(
            f"no pool file or advert tells of the store {name}, to which {who} refer{'s' * (len(its) == 1)}{hint}"
        )
    return said
