"""What pool files say of stores, and of the nodes near them: names, expressions, attributes."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.describe.ads.expressions import parse_expression
from serai.errors import UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serai.describe.poolfile import SiteSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_STORE_NAME = re.compile(r"\w(?:[\w.@:+ -]*[\w.@:+-])?")
_OPERATOR = re.compile(r"[<>=!&|?()\"']|(?i:(?:target|my)\.)")
_MOST = 128  # attributes
# What a store's URL may begin with: what files are read by, and what a standard client of a store may speak.
SCHEMES = ("any", "chirp", "dav", "davs", "file", "http", "https", "local", "s3", "sftp", "ssh", "store", "stores")
_HERE = frozenset({"file", "local"})  # whose path is enough
# What is of the ad itself: another value would say something wrong of the node or the store.
_RESERVED = frozenset({"mytype", "name", "machine", "requirements", "rank", "neareststorage", "community", "software"})


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A store that a pool file describes: ``[[store]]``.

    Attributes:
        name: by which ``nearest_storage`` refers to it.
        url: where it is; "" when its attributes are all that is needed of it, or its advert says where it is.
        community: what it and the nodes near it are called together.
        attributes: further ones of its ad.
    """

    name: str
    url: str = ""
    community: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def ad(self) -> dict[str, Any]:
        """Its ad, as the advert service would keep it."""
        ad: dict[str, Any] = {"MyType": "Storage", "Name": self.name}
        if self.url:
            ad["AccessURLs"] = [self.url]
        if self.community:
            ad["Community"] = self.community
        return ad | dict(self.attributes)


def declared(site: SiteSpec) -> dict[str, Any]:
    """What a site says of its nodes, for their ads."""
    found = {
        "requirements": site.requirements,
        "nearest_storage": site.nearest_storage or _of_community(site),
        "community": site.community,
        "attributes": dict(site.attributes or {}),
    }
    return {key: value for key, value in found.items() if value}


def stores_of(sites: Iterable[SiteSpec]) -> dict[str, dict[str, Any]]:
    """The ads of the stores that pool files describe, by name."""
    return {store.name: store.ad() for site in sites for store in site.stores}


def expression(value: object) -> str:
    """A ClassAd expression.

    Raises:
        UsageError: it is none.
    """
    text = one_name(value)
    parse_expression(text)
    return text


def reference(value: object) -> str:
    """The name of a store, or ``=`` and an expression.

    Raises:
        UsageError: it is neither.
    """
    text = one_name(value)
    if text.startswith("="):
        parse_expression(text[1:])
        return text
    if _OPERATOR.search(text):
        raise UsageError(
            f"{text!r} is neither the name of a store nor an expression",
            hint='an expression begins with = and is about the store: "=TARGET.HasCMSData"',
        )
    return store_name(text)


def store_name(value: object) -> str:
    """What a store is called.

    Raises:
        UsageError: none can be called so.
    """
    text = one_name(value)
    if not _STORE_NAME.fullmatch(text):
        raise UsageError(f"no store can be called {text!r}", hint="letters, digits, blanks within, and . _ - : @ +")
    return text


def store_url(value: object) -> str:
    """Where a store is.

    Raises:
        UsageError: it is no URL, or one of nothing that a store can be.
    """
    text = one_name(value)
    if ":" not in text:
        raise UsageError(
            f"{text!r} is no URL", hint="write store://HOST:9094, or leave url out: a store may be attributes"
        )
    url = Url.parse(text)
    if url.scheme not in SCHEMES and not _is_of_others(url.scheme):
        near = difflib.get_close_matches(url.scheme, SCHEMES, n=1)
        raise UsageError(
            f"nothing reads from {url.scheme}:",
            hint=f"did you mean {near[0]}:?" if near else f"known: {', '.join(SCHEMES)}",
        )
    if url.scheme in _HERE and not url.path:
        raise UsageError(f"{url} names no directory", hint=f"write {url.scheme}:///DIR")
    if url.scheme not in _HERE and url.host is None:
        raise UsageError(f"{url} names no host", hint=f"write {url.scheme}://HOST")
    return text


def _is_of_others(scheme: str) -> bool:
    """Whether a package of somebody else reads files by URLs of a scheme (see `serai.access.registry`)."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and only third parties need it

    return bool(entry_points(group="serai.mediators", name=f"{scheme}.files"))


def one_name(value: object) -> str:
    """A text that is not empty.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError("expected a text", hint='write it in quotes: "…"')
    return value


def attributes_of(value: object) -> dict[str, Any]:
    """Attributes of an ad: texts, numbers, true and false, lists of these; ``"=…"`` is an expression.

    Raises:
        UsageError: a name or a value cannot be one.
    """
    if not isinstance(value, dict):
        raise UsageError("expected a table", hint='attributes = { Site = "UW", Mips = 600 }')
    if len(value) > _MOST:
        raise UsageError(f"more than {_MOST} attributes")
    for name, one in value.items():
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of an attribute", hint="letters, digits and _")
        if name.lower() in _RESERVED:
            raise UsageError(f"{name} is not for a table of attributes", hint="it has a key of its own, or is known")
        if any(not isinstance(part, str | int | float) for part in (one if isinstance(one, list) else [one])):
            raise UsageError(f"{name}: expected a text, a number, true, false, or a list of these")
        if isinstance(one, str) and one.startswith("="):
            parse_expression(one[1:], what=name)
    return dict(value)


def _of_community(site: SiteSpec) -> str | None:
    """The store of a site's community, where there is exactly one."""
    names = [store.name for store in site.stores if store.community and store.community == site.community]
    return names[0] if len(names) == 1 else None
