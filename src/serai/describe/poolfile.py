"""Pool files: which sites a run may use, in TOML; and the same said by URLs on the command line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from serai.describe.ads.stores import (
    StoreSpec,
    attributes_of,
    expression,
    one_name,
    reference,
    store_name,
    store_url,
)
from serai.errors import PoolFileError, UsageError
from serai.quantity import bytes_of, seconds
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.describe.tomlplaces import Key

_POOL_KEYS = ("name", "scratch", "retries", "heartbeat", "home_calling")
_SITE_KEYS = (
    "slots", "python", "scratch", "ssh_config", "memory", "linger", "home_calling", "cache",
    "requirements", "nearest_storage", "community",
)  # fmt: skip
HOME_CALLING = ("files", "shell")  # what tasks may do at the front end's machine, where they may do anything there
_QUERY_KEYS = frozenset(_SITE_KEYS)
_TLS_KEYS = frozenset({"ca", "cert", "key"})
_MEANT = {"host": "url", "hosts": "urls", "cores": "slots", "cpus": "slots", "workers": "slots", "jobs": "slots"}
_MOST_SITES = 10_000
_LEAST_MEMORY = 1024**2
_LARGEST_FILE_BYTES = 4 * 1024**2
_SCRATCH_IN_PATH = frozenset({"local", "ssh"})  # schemes whose URL's path is the scratch directory


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """A site that was asked for. What is None was not said.

    Attributes:
        url: the way in, as it was written.
        slots: tasks at a time.
        python: the interpreter of its nodes.
        scratch: the directory on its nodes in which Serai works.
        ssh_config: the file that ssh is given, on the front end; from a pool file it is already joined with that
            file's directory. A leading ``~`` is left as it is.
        memory_bytes: memory that tasks may use on a node.
        linger_s: how long its executors outlive the front end's last sign of life.
        home_calling: what its tasks may do at the front end's machine: ``files`` or ``shell``.
        requirements: what its nodes require of tasks (a ClassAd expression; ``TARGET`` is the task).
        nearest_storage: the name of its nodes' store, or ``=`` and an expression that holds for that store.
        community: what its nodes and their store are called together.
        attributes: further ones of its nodes' ads; a text that begins with ``=`` is an expression.
        stores: those that the pool file describes.
        cache_bytes: what inputs that are kept on a node may take.
    """

    url: Url
    slots: int | None = None
    python: str | None = None
    scratch: str | None = None
    ssh_config: str | None = None
    memory_bytes: int | None = None
    linger_s: float | None = None
    home_calling: str | None = None
    requirements: str | None = None
    nearest_storage: str | None = None
    community: str | None = None
    attributes: Mapping[str, Any] | None = None
    stores: tuple[StoreSpec, ...] = ()
    cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A pool file that was read.

    Attributes:
        path: the file.
        name: the pool's name; the file's own, without its suffix, when it gives none.
        scratch: what sites that name no scratch directory use; already in ``sites``.
        retries: how often a task is tried again after its first failure.
        heartbeat_s: seconds between two signs of life of an executor.
        sites: in the order of the file.
        stores: the same; also in each of ``sites``.
    """

    path: str
    name: str
    scratch: str | None
    retries: int | None
    heartbeat_s: float | None
    sites: tuple[SiteSpec, ...]
    stores: tuple[StoreSpec, ...] = ()


def read_pool_file(path: str) -> PoolFile:
    """Reads a pool file.

    Raises:
        PoolFileError: the file cannot be read, or has a mistake; it names the line, the key and what is expected.
    """
    import tomllib  # noqa: PLC0415 - most runs have no pool file

    from serai.describe.tomlplaces import places_of  # noqa: PLC0415 - as above

    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(_LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PoolFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > _LARGEST_FILE_BYTES:
        raise PoolFileError(f"{path}: larger than {_LARGEST_FILE_BYTES} bytes, which no pool file is")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PoolFileError(f"{path}, line {line}: not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PoolFileError(f"{path}: {error}", hint="quote every text, and write lists as [1, 2]") from error
    return _Reader(path, places_of(text)).pool(data)


def site_from_url(text: str) -> SiteSpec:
    """Reads a site from its URL; its query has the keys of a pool file's site: ``ssh://lab1?slots=4&memory=4GB``.

    Raises:
        UsageError: the URL or one of its options has a mistake.
    """
    url = Url.parse(text)
    if url.scheme != "local" and url.host is None:
        raise UsageError(f"{url} names no host", hint=f"write {url.scheme}://HOST")
    tls = _TLS_KEYS if url.scheme.startswith("dask") else frozenset()
    options: Mapping[str, object] = url.options(_QUERY_KEYS | tls)
    settings: dict[str, Any] = {}
    for key in _SITE_KEYS:
        if key in options:
            value = options[key]
            if key == "slots" and isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
                value = int(value)
            field, convert = _SITE[key]
            try:
                settings[field] = convert(value)
            except UsageError as error:
                raise UsageError(f"{url}: {key}: {error.what}", hint=error.hint) from error
    if url.scheme in _SCRATCH_IN_PATH and url.path not in {"", "/"}:  # a slash at the end is a habit
        if "scratch" in settings:
            raise UsageError(
                f"{url} names two scratch directories", hint="say it in the path or as ?scratch=, not both"
            )
        settings["scratch"] = url.path
    _check_home_calling(url, settings)
    return SiteSpec(url, **settings)


def sites_from(on: Sequence[str]) -> tuple[SiteSpec, ...]:
    """Reads what ``--on`` names: URLs and pool files, in any order.

    Raises:
        UsageError: a word is neither, or what it names has a mistake.
    """
    sites: list[SiteSpec] = []
    for word in on:
        if "://" in word or word.startswith("local:"):
            sites.append(site_from_url(word))
        elif word and "\0" not in word and Path(word).is_file():
            sites += read_pool_file(word).sites
        elif word.endswith(".toml") or "/" in word or not word:
            raise UsageError(f"there is no pool file {word!r}", hint="name a .toml file, or a URL such as ssh://HOST")
        else:
            meant = "local:" if word in {"local", "localhost"} else f"ssh://{word.removeprefix('ssh:')}"
            if "," in word:
                meant = " ".join(f"--on ssh://{one}" for one in word.split(",") if one)
            near = difflib.get_close_matches(word, [path.name for path in Path().glob("*.toml")], n=1, cutoff=0.75)
            raise UsageError(
                f"{word!r} is neither a URL nor a file", hint=f"did you mean {' or '.join([*near, meant])}?"
            )
    return tuple(sites)


def with_home_calling(sites: Sequence[SiteSpec], mode: str | None) -> tuple[SiteSpec, ...]:
    """The sites; those reached over ssh that say nothing about home-calling say this."""
    return tuple(
        replace(site, home_calling=mode) if site.home_calling is None and site.url.scheme == "ssh" else site
        for site in sites
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError("expected a text", hint='write it in quotes: "…"')
    return value


def _count(least: int) -> Callable[[object], int]:
    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"expected a whole number from {least} on", hint="write it without quotes in a pool file")
        return value

    return convert


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise UsageError('expected a duration such as "10m"', hint='write it in quotes: "2s", "10m", "1.5h"')
    return seconds(value)


def _size(value: object) -> int:
    if not isinstance(value, str):
        raise UsageError('expected a size such as "4GB"', hint='write it in quotes: "4GB", "512MiB"')
    return bytes_of(value)


def _memory(value: object) -> int:
    size = _size(value)
    if size < _LEAST_MEMORY:
        raise UsageError(f"no task can do with {size} bytes", hint=f'did you mean "{str(value).rstrip("bB ")}GB"?')
    return size


def _check_home_calling(url: Url, settings: Mapping[str, Any]) -> None:
    if settings.get("home_calling") and url.scheme != "ssh":
        raise UsageError(f"{url}: its tasks cannot call home", hint="home_calling is for ssh:// sites")


def _home_calling(value: object) -> str:
    if value not in HOME_CALLING:
        raise UsageError("expected files or shell", hint="files: SFTP and scp; shell: commands too")
    return str(value)


# For each key: the field it fills, and what reads its value.
_SITE: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "slots": ("slots", _count(1)),
    "python": ("python", _text),
    "scratch": ("scratch", _text),
    "ssh_config": ("ssh_config", _text),
    "memory": ("memory_bytes", _memory),
    "linger": ("linger_s", _duration),
    "home_calling": ("home_calling", _home_calling),
    "requirements": ("requirements", expression),
    "nearest_storage": ("nearest_storage", reference),
    "community": ("community", one_name),
    "cache": ("cache_bytes", _size),
}
_TABLES: Mapping[str, tuple[str, Callable[[object], object]]] = {"attributes": ("attributes", attributes_of)}
_STORE: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "name": ("name", store_name),
    "url": ("url", store_url),
    "community": ("community", one_name),
    "attributes": ("attributes", attributes_of),
}
_POOL: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "name": ("name", _text),
    "scratch": ("scratch", _text),
    "retries": ("retries", _count(0)),
    "heartbeat": ("heartbeat_s", _duration),
    "home_calling": ("home_calling", _home_calling),
}


class _Reader:
    """Turns the data of one pool file into descriptions, with its lines in every error."""

    def __init__(self, path: str, lines: Mapping[Key, int]) -> None:
        self.path = path
        self.lines = lines

    def pool(self, data: Mapping[str, object]) -> PoolFile:
        self._known(data, ("pool", "site", "store"), ())
        pool = data.get("pool", {})
        if not isinstance(pool, dict):
            raise self._mistake(("pool",), "expected a table", "write [pool] on a line of its own")
        self._known(pool, _POOL_KEYS, ("pool",))
        settings = self._settings(pool, _POOL, ("pool",))
        stores = self._stores(self._tables(data, "store"))
        sites: list[SiteSpec] = []
        for index, table in enumerate(self._tables(data, "site")):
            sites += [replace(site, stores=stores) for site in self._sites(table, index, settings)]
            if len(sites) > _MOST_SITES:
                raise self._mistake(("site", index), f"more than {_MOST_SITES} sites", "split the pool")
        if not sites:
            raise PoolFileError(f"{self.path}: there is no site", hint='write [[site]] and below it url = "ssh://HOST"')
        return PoolFile(
            path=self.path,
            name=settings.get("name", Path(self.path).stem),
            scratch=settings.get("scratch"),
            retries=settings.get("retries"),
            heartbeat_s=settings.get("heartbeat_s"),
            sites=tuple(sites),
            stores=stores,
        )

    def _tables(self, data: Mapping[str, object], name: str) -> list[dict[str, object]]:
        tables = data.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._mistake((name,), "expected a list of tables", f"write [[{name}]], with two brackets")
        return tables

    def _stores(self, tables: Sequence[Mapping[str, object]]) -> tuple[StoreSpec, ...]:
        stores: dict[str, StoreSpec] = {}
        for index, table in enumerate(tables):
            at: Key = ("store", index)
            if "name" not in table:
                raise self._mistake(at, "the store has no name", 'write name = "nestore.bologna"')
            settings = self._settings(table, _STORE, at)
            more = {key: value for key, value in table.items() if key not in _STORE}
            store = StoreSpec(**settings | {"attributes": self._own(more, at) | settings.get("attributes", {})})
            if store.name in stores:
                raise self._mistake((*at, "name"), f"two stores are called {store.name}", None)
            stores[store.name] = store
        return tuple(stores.values())

    def _own(self, more: Mapping[str, object], at: Key) -> dict[str, Any]:
        """Attributes that stand among the keys of a store, which is how a misspelt key looks, too."""
        found: dict[str, Any] = {}
        for key, value in more.items():
            near = difflib.get_close_matches(key, _STORE, n=1, cutoff=0.65)
            if near:
                hint = f"did you mean {near[0]}?"
                if key.lower() not in _STORE:
                    hint += f" An attribute of this name goes into attributes = {{ {key} = … }}"
                raise self._mistake((*at, key), "unknown key", hint)
            try:
                found |= attributes_of({key: value})
            except UsageError as error:  # which names it
                raise self._mistake((*at, key, 0), error.what, error.hint) from error
        return found

    def _sites(self, table: Mapping[str, object], index: int, pool: Mapping[str, Any]) -> list[SiteSpec]:
        at: Key = ("site", index)
        self._known(table, ("url", "urls", *_SITE_KEYS, *_TABLES), at)
        if ("url" in table) == ("urls" in table):
            both = "both url and urls" if "url" in table else "neither url nor urls"
            raise self._mistake(at, f"the site has {both}", 'write url = "ssh://HOST" or urls = ["ssh://A", "ssh://B"]')
        key = "url" if "url" in table else "urls"
        urls = [table["url"]] if key == "url" else table["urls"]
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            expected = "a text" if key == "url" else "a list of texts"
            raise self._mistake((*at, key), f"expected {expected}", 'url = "ssh://A", or urls = ["ssh://A", "ssh://B"]')
        settings = self._settings(table, _SITE, at) | self._settings(table, _TABLES, at)
        return [self._site(cast("str", url), settings, pool, (*at, key)) for url in urls]

    def _site(self, url: str, settings: Mapping[str, Any], pool: Mapping[str, Any], at: Key) -> SiteSpec:
        """Makes one site: what its URL says wins over its table, and its table over the pool's."""
        try:
            own = site_from_url(url)
            _check_home_calling(own.url, settings)
        except UsageError as error:
            raise self._mistake(at, error.what, error.hint) from error
        left = {field: value for field, value in settings.items() if getattr(own, field) is None}
        site = replace(own, **left)
        if site.scratch is None:
            site = replace(site, scratch=pool.get("scratch"))
        if site.home_calling is None and site.url.scheme == "ssh":
            site = replace(site, home_calling=pool.get("home_calling"))
        if site.ssh_config is None or site.ssh_config.startswith("~"):
            return site  # whose home ~ means is for the one to say who opens the file
        return replace(site, ssh_config=str(Path(self.path).parent / site.ssh_config))

    def _settings(
        self, table: Mapping[str, object], readers: Mapping[str, tuple[str, Callable[[object], object]]], at: Key
    ) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for key, (field, convert) in readers.items():
            if key in table:
                try:
                    settings[field] = convert(table[key])
                except UsageError as error:
                    raise self._mistake((*at, key), error.what, error.hint) from error
        return settings

    def _known(self, table: Mapping[str, object], known: Sequence[str], at: Key) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                if _MEANT.get(key) in known:
                    near = [_MEANT[key]]
                hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
                raise self._mistake((*at, key), "unknown key", hint)

    def _mistake(self, at: Key, what: str, hint: str | None) -> PoolFileError:
        """Names the line of a key; of what holds it, when the key itself stands inside a value."""
        line = next((self.lines[at[:depth]] for depth in range(len(at), 0, -1) if at[:depth] in self.lines), 1)
        name = f"{at[-1]}: " if isinstance(at[-1], str) else ""
        return PoolFileError(f"{self.path}, line {line}: {name}{what}", hint=hint)
