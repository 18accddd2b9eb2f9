"""Which file system a URL's files are in, and under which path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from serai.access.registry import MEDIATORS, mediator
from serai.errors import UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["filesystem_for"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):", re.ASCII)  # two letters at least, as in fsspec
_CHAINED = "::"
_WEB = frozenset({"http", "https"})
_OF_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"})


def is_of_objects(filesystem: AbstractFileSystem) -> bool:
    """Whether a file system is a store of objects: these appear whole or not at all, and make their directories."""
    protocol = filesystem.protocol
    return not _OF_OBJECTS.isdisjoint({protocol} if isinstance(protocol, str) else protocol)


def filesystem_for(url: str | Url, ssh_config: str | None = None, **options: Any) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it.

    The path of a URL given as text is taken as it stands, as fsspec does: blanks, ``%``, ``#`` and ``?`` are characters
    of names, and patterns stay patterns. That of a `Url` has been decoded already.

    Args:
        url: ``ssh://lab1/data``, ``any://lab1/data``, ``local:data``, ``s3://…`` or whatever fsspec knows; or a path.
        ssh_config: the file that ssh is given instead of the user's own.
        options: further ones of the file system.

    Raises:
        UsageError: nobody knows the scheme, or a package for it is missing.
    """
    import fsspec  # noqa: PLC0415 - slow to import

    if isinstance(url, Url):
        text, scheme = _text(url), url.scheme
    else:
        text = url
        match = _SCHEME.match(url)
        # A path such as "a:b" is a path when nobody knows "a"; a URL says // or is of a scheme that needs none.
        known = match is not None and (url[match.end() :].startswith(("//", ":")) or match[1].lower() == "local")
        scheme = match[1].lower() if match is not None and known else "local"
    if _CHAINED in text or scheme not in MEDIATORS:
        try:
            filesystem, path = fsspec.core.url_to_fs(text, **options)
        except ImportError as error:
            hint = "pip install aiohttp, which is in 'serai[store]', too" if scheme in _WEB else str(error)
            raise UsageError(f"{scheme}: needs a package that is not installed", hint=hint) from error
        except ValueError:
            return _third_party(text, scheme, options)
        if scheme in _WEB and _CHAINED not in text:
            from serai.access.filesystems.web import WebFiles  # noqa: PLC0415 - aiohttp is there: fsspec's own needs it

            return WebFiles(**{**WebFiles._get_kwargs_from_urls(text), **options}), path  # noqa: SLF001 - fsspec's own protocol
        return filesystem, path
    made = mediator(scheme, "files")
    if scheme in {"ssh", "any"} and ssh_config is not None:
        options["ssh_config"] = ssh_config
    return made(**{**made._get_kwargs_from_urls(text), **options}), made._strip_protocol(text)  # noqa: SLF001 - fsspec's own protocol


def _third_party(text: str, scheme: str, options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    made = mediator(scheme, "files")  # an entry point, or an error that names the known ones
    return made(**{**made._get_kwargs_from_urls(text), **options}), made._strip_protocol(text)  # noqa: SLF001 - fsspec's own protocol


def _text(url: Url) -> str:
    """A URL with its path as it is."""
    if url.host is None:
        return f"{url.scheme}:{url.path}"
    head = str(Url(url.scheme, url.user, url.host, url.port))
    return head + url.path
