"""What listings look like: WebDAV's XML (RFC 4918), and HTML for browsers."""

from __future__ import annotations

import html
import mimetypes
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.parsers import expat
from xml.sax.saxutils import escape

from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Wanted", "content_type", "html_page", "http_date", "multistatus", "wanted_of"]

DAV = "DAV:"
LIVE = (
    "resourcetype",
    "displayname",
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
)
QUOTA = ("quota-available-bytes", "quota-used-bytes")  # RFC 4331: only when asked for
MOST_PROPERTIES = 100
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'

Name = tuple[str, str]  # namespace and name
Wanted = tuple[Name, ...] | None  # None for all


def http_date(mtime_ns: int) -> str:
    """A time as HTTP has it."""
    return formatdate(mtime_ns // 1_000_000_000, usegmt=True)


def content_type(name: str) -> str:
    """What a file is, by its name."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def wanted_of(body: bytes) -> tuple[Wanted, bool]:
    """Reads the body of a PROPFIND: which properties, and whether only their names.

    Raises:
        ValueError: it is none, or declares a document type.
    """
    if not body.strip():
        return None, False
    path: list[Name] = []
    found: list[Name] = []
    kinds: set[str] = set()

    def start(name: str, _attributes: object) -> None:
        namespace, _, local = name.rpartition("\n")
        path.append((namespace, local))
        if len(path) == 2:
            kinds.add(local)
        if len(path) == 3 and path[1] == (DAV, "prop"):
            found.append((namespace, local))
        if len(path) > 16 or len(found) > MOST_PROPERTIES:
            raise ValueError("too much is asked for")

    def refuse(*_: object) -> None:
        raise ValueError("no document type is taken")

    parser = expat.ParserCreate(namespace_separator="\n")
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)  # noqa: FBT003 - expat takes no names
    except expat.ExpatError as error:
        raise ValueError(f"no XML: {error}") from error
    return (tuple(found) if "prop" in kinds else None), "propname" in kinds


def multistatus(
    rows: Iterable[tuple[str, dict[str, Any]]], wanted: Wanted, *, names: bool, sums: dict[str, int]
) -> Iterator[str]:
    """The answer to a PROPFIND, a piece for each row.

    Args:
        rows: encoded paths, and facts as `Files.rows` has them.
        wanted: which properties; None for all.
        names: whether only names of properties are told.
        sums: `Book.sums`.
    """
    yield _HEAD
    for href, facts in rows:
        values, missing = _values(href, facts), list[str]()
        if names:
            found = [f"<D:{name}/>" for name in (*values, *QUOTA)]
        elif wanted is None:
            found = [f"<D:{name}>{value}</D:{name}>" for name, value in values.items()]
        else:
            values |= {QUOTA[0]: str(sums["free"]), QUOTA[1]: str(sums["stored"])}
            found = [f"<D:{name}>{values[name]}</D:{name}>" for space, name in wanted if _has(space, name, values)]
            missing = [_element(space, name) for space, name in wanted if not _has(space, name, values)]
        parts = "".join(
            f"<D:propstat><D:prop>{''.join(some)}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
            for some, status in ((found, "200 OK"), (missing, "404 Not Found"))
            if some or (status == "200 OK" and not missing)
        )
        yield f"<D:response><D:href>{escape(href)}</D:href>{parts}</D:response>\n"
    yield "</D:multistatus>\n"


def _has(space: str, name: str, values: dict[str, str]) -> bool:
    return space == DAV and name in values


def _element(space: str, name: str) -> str:
    return f'<X:{name} xmlns:X="{html.escape(space)}"/>' if space else f'<{name} xmlns=""/>'


def _values(href: str, facts: dict[str, Any]) -> dict[str, str]:
    directory = facts["type"] == "directory"
    values = {
        "resourcetype": "<D:collection/>" if directory else "",
        "getlastmodified": http_date(facts["mtime_ns"]),
        "getetag": escape(f'"{facts["ino"]:x}-{facts["size"]:x}-{facts["mtime_ns"]:x}"'),
    }
    name = facts.get("name", "")
    if name.isprintable():  # XML has no way to write what is no character
        values["displayname"] = escape(name.rpartition("/")[2])
    if not directory:
        values["getcontentlength"] = str(facts["size"])
        values["getcontenttype"] = escape(content_type(href))
    return values


def html_page(path: str, rows: Iterable[dict[str, Any]]) -> str:
    """A listing for browsers.

    Args:
        path: as it is shown.
        rows: as `Files.rows` has them, of one directory.
    """
    shown = html.escape(path.encode("utf-8", "replace").decode())
    lines = [
        f"<!doctype html><meta charset=utf-8><title>{shown}</title>",
        "<style>body{font:1em monospace;margin:2em}td{padding:0 2em 0 0}</style>",
        f"<h1>{shown}</h1><table>",
    ]
    if path != "/":
        lines.append('<tr><td><a href="../">..</a>')
    for row in sorted(rows, key=lambda one: (one["type"] != "directory", one["name"])):
        raw = row["name"].encode("utf-8", "surrogateescape")
        slash = "/" if row["type"] == "directory" else ""
        name = html.escape(raw.decode("utf-8", "replace")) + slash
        size = "" if slash else format_bytes(row["size"])
        lines.append(
            f'<tr><td><a href="./{quote(raw, safe="")}{slash}">{name}</a><td>{size}<td>{http_date(row["mtime_ns"])}'
        )
    return "\n".join([*lines, "</table>\n"])
