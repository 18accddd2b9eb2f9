"""Inputs by URL, as a user names them: patterns become files at the front end, and mistakes are said before a start."""

from __future__ import annotations

import glob as globbing
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serai.describe.places import is_url, path_here, split_options, url_parts
from serai.errors import SeraiError, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from serai.describe.poolfile import SiteSpec
    from serai.describe.task import Item
    from serai.dispatch.ports import NodeSpec

_PASSWORD = re.compile(r"://[^/@:]*:[^/@]*@")
NO_LISTINGS = ("http://", "https://")  # what a page links to has no sizes, and there may be no page
ASKED_ONE_BY_ONE = 4  # files of one directory; for more of them, the directory is listed


def ssh_configs(sites: Iterable[SiteSpec | NodeSpec]) -> dict[str, str]:
    """The file that ssh is given for each host of a pool that has one of its own, by ``[user@]host[:port]``.

    By ``""`` for all other hosts, if every ssh host of the pool has the same.
    """
    found: dict[str, str] = {}
    configs: set[str | None] = set()
    for site in sites:
        url = site.url if isinstance(site.url, Url) else Url.parse(site.url)
        if url.scheme != "ssh" or url.host is None:
            continue
        configs.add(site.ssh_config)
        if site.ssh_config is not None:
            config = os.path.expanduser(site.ssh_config)
            found[str(Url("ssh", url.user, url.host, url.port)).removeprefix("ssh://")] = config
            found.setdefault(url.host, config)
    if len(configs) == 1 and found:
        found[""] = next(iter(found.values()))
    return found


def opened(url: str, configs: Mapping[str, str]) -> tuple[Any, str]:
    """The file system of a URL and the path in it.

    Raises:
        UsageError: nobody knows its scheme.
    """
    from serai.access.files import filesystem_for  # noqa: PLC0415 - fsspec is slow to import

    return filesystem_for(url, config_for(url, configs))


def config_for(url: str, configs: Mapping[str, str]) -> str | None:
    """The file that ssh is given for a URL; None for the user's own."""
    authority = url_parts(url)[0]
    names = (authority, authority.rpartition("@")[2], "")
    return next((configs[name] for name in names if name in configs), None)


def has_pattern(text: str) -> bool:
    """Whether an input is a URL with a pattern, which the shell has left as it is."""
    return is_url(text) and globbing.has_magic(split_options(text)[0])


def expand(texts: Iterable[str], configs: Mapping[str, str] | None = None) -> list[str]:
    """Replaces URLs with patterns by the files that match, sorted by name, and looks whether all others are there.

    Paths stay as they are; ``local:`` and ``file:`` become paths.

    Args:
        texts: paths and URLs.
        configs: see `ssh_configs`.

    Raises:
        UsageError: nothing matches, there is no such file, or its host cannot be asked; it names the URL.
    """
    configs = configs or {}
    texts = list(texts)
    if any(map(_PASSWORD.search, filter(is_url, texts))):  # it would be told, and stand in the journal
        raise UsageError("a URL holds no password", hint="say it where the file system looks for it: see fsspec")
    plain = [text for text in texts if is_url(text) and path_here(text) is None and not has_pattern(text)]
    _check(plain, configs)
    found: list[str] = []
    for text in texts:
        here = path_here(text)
        if not is_url(text):
            found.append(text)
        elif here is not None:
            found += _here(text, here)
        else:
            found += _matching(text, configs) if has_pattern(text) else [text]
    return found


def expanded(items: Iterable[Item], configs: Mapping[str, str]) -> Iterator[Item]:
    """Items with the files that match in place of URLs with patterns; the others are not looked at."""
    for item in items:
        if any(map(has_pattern, item.inputs)):
            inputs = [one for text in item.inputs for one in (expand([text], configs) if has_pattern(text) else [text])]
            yield replace(item, inputs=tuple(inputs))
        else:
            yield item


def _here(text: str, path: str) -> list[str]:
    if os.path.lexists(path):
        if os.path.isdir(path):
            raise _directory(text)
        return [path]
    found = sorted(globbing.glob(path, recursive=True)) if globbing.has_magic(path) else []
    if not found:
        raise _nothing(text)
    return found


def _matching(text: str, configs: Mapping[str, str]) -> list[str]:
    try:
        filesystem, path = opened(text, configs)
        if filesystem.isfile(path):  # a name with a bracket in it
            return [text]
        found = filesystem.glob(path, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:
        raise _trouble(text, error) from error
    names = sorted(name for name, info in found.items() if info.get("type") == "file")
    if not names:
        raise _nothing(text)
    chain = "".join(text.partition("::")[1:]) or split_options(text)[1]
    return [split_options(str(filesystem.unstrip_protocol(name)))[0] + chain for name in names]


def _check(urls: list[str], configs: Mapping[str, str]) -> None:
    """Looks whether files are there; of many in one directory by listing that."""
    folders: dict[tuple[str, str], list[str]] = {}
    for url in dict.fromkeys(urls):
        folders.setdefault(url_parts(url)[:2], []).append(url)
    for group in folders.values():
        known: dict[str, str] = {}
        for number, url in enumerate(group):
            try:
                filesystem, path = opened(url, configs)
                if number == 0 and len(group) > ASKED_ONE_BY_ONE and not url.startswith(NO_LISTINGS):
                    known = _listed(filesystem, path)
                kind = known.get(path) or filesystem.info(path)["type"]
            except FileNotFoundError:
                raise _nothing(url) from None
            except Exception as error:
                raise _trouble(url, error) from error
            if kind == "directory":
                raise _directory(url)


def infos(urls: Iterable[str], configs: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
    """What file systems say of files; of many in one directory by listing that.

    Where one does not answer that is said instead, and no more of that directory.
    """
    folders: dict[tuple[str, str], list[str]] = {}
    for url in dict.fromkeys(urls):
        folders.setdefault(url_parts(url)[:2], []).append(url)
    for group in folders.values():
        known: dict[str, Mapping[str, Any]] = {}
        for number, url in enumerate(group):
            try:
                filesystem, path = opened(url, configs)
                if number == 0 and len(group) > ASKED_ONE_BY_ONE and not url.startswith(NO_LISTINGS):
                    parent = filesystem._parent(path)  # noqa: SLF001 - fsspec's own
                    known = {str(one["name"]): one for one in filesystem.ls(parent, detail=True)}
                yield url, known.get(path) or filesystem.info(path)
            except FileNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said when the file is wanted
                yield url, error
                break


def _listed(filesystem: Any, path: str) -> dict[str, str]:
    """What is in the directory of a path: {path: type}; nothing where it cannot be listed."""
    try:
        return {str(one["name"]): str(one["type"]) for one in filesystem.ls(filesystem._parent(path), detail=True)}  # noqa: SLF001 - fsspec's own
    except OSError:
        return {}


def _nothing(text: str) -> UsageError:
    if globbing.has_magic(split_options(text)[0]):
        return UsageError(f"no file matches {text!r}", hint="serai ls shows what is there")
    return UsageError(f"there is no file {text!r}")


def _directory(text: str) -> UsageError:
    return UsageError(f"{text!r} is a directory", hint=f"name its files: '{text.rstrip('/')}/*'")


def _trouble(text: str, error: Exception) -> UsageError:
    """What went wrong in looking for an input."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, SeraiError):
        who = f"{error.host}: " if error.host else ""
        return UsageError(
            f"the input {text!r} cannot be looked for: {who}{error.what}", tried=error.tried, hint=error.hint
        )
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UsageError(f"the input {text!r} cannot be looked for: {words}")
