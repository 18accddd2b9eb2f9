"""The appliances that the adverts tell of, for ``any://``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from serai.adverts.service import open_adverts
from serai.match.any_candidates import Appliance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["appliances_of", "known_appliances"]

MOST = 1000  # ads that are looked at
_LOOPBACK = ("store://127.", "store://localhost", "store://[::1]")


def known_appliances(here: str, environment: Mapping[str, str] = os.environ) -> list[Appliance]:
    """The appliances that can be reached from a host, those on it first.

    Args:
        here: the host's name.
        environment: where the advert service is said.

    Raises:
        SeraiError, OSError: the service cannot be asked.
    """
    with open_adverts(None, environment) as adverts:
        entries = adverts.page("/stores", recursive=True, most=MOST)
    return appliances_of((entry.attributes for entry in entries), here)


def appliances_of(ads: Iterable[Mapping[str, Any]], here: str) -> list[Appliance]:
    """What ads of stores say, those of this host first, and none that only another host itself reaches."""
    found: list[Appliance] = []
    for ad in ads:
        modes, urls = ad.get("AccessModes"), ad.get("AccessURLs")
        host, name = ad.get("Machine"), ad.get("Name")
        if not (isinstance(modes, list) and isinstance(urls, list) and isinstance(host, str) and isinstance(name, str)):
            continue
        said = dict(zip(map(str, modes), map(str, urls), strict=False))
        direct, url = said.get("direct", ""), said.get("store", "")
        head = f"file://{host}/"
        if not direct.startswith(head) or not url.startswith("store://"):
            continue
        if url.startswith(_LOOPBACK) and host.lower() != here.lower():
            continue
        found.append(Appliance(host, direct[len(head) - 1 :], url, name))
    return sorted(found, key=lambda one: (one.host.lower() != here.lower(), one.name))
