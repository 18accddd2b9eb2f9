"""Nodes and stores as the advert service has them, found by expressions. Pure: attributes in, those meant out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.describe.ads.expressions import parse_expression, without_target
from serai.match.ads import at, stored_ad
from serai.match.bilateral import REFERENCE, holds, with_storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is advertised, each by its path or name.

    Attributes:
        nodes: attributes by path.
        stores: attributes by name.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    stores: Mapping[str, Mapping[str, Any]]

    def where(self, text: str | None, now: datetime) -> Inventory:
        """The nodes and the stores for which an expression holds; a node's ``NearestStorage`` is its store's ad.

        Args:
            text: ``Memory > 4000 && HasSoftware("openmpi")``; None for all.
            now: what policies by the hour go by.

        Raises:
            UsageError: it is no expression.
        """
        if text is None:
            return self
        expression = parse_expression(without_target(text), scope="", what="--where")
        stores = {name: stored_ad(ad) for name, ad in self.stores.items()}
        nodes = {path: at(with_storage(stored_ad(ad), stores), now) for path, ad in self.nodes.items()}
        return Inventory(
            {path: ad for path, ad in self.nodes.items() if holds(expression, nodes[path])},
            {name: ad for name, ad in self.stores.items() if holds(expression, stores[name])},
        )

    def stores_of_nodes(self) -> dict[str, str]:
        """The name of each node's store, by path: the one that an expression means; "" for none.

        An expression that holds for no store stays as it is.
        """
        stores = {name: stored_ad(ad) for name, ad in self.stores.items()}
        found = {}
        for path, ad in self.nodes.items():
            found[path] = str(ad.get(REFERENCE) or "")
            if found[path].startswith("="):
                store = with_storage(stored_ad(ad), stores).get(REFERENCE)
                found[path] = next((name for name, one in stores.items() if one == store), found[path])
        return found
