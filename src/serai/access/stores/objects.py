"""``s3://bucket/key``: objects of Amazon's S3 and of whatever speaks as it does, by s3fs.

The service is Amazon's unless the URL's very end says another one (``s3://bucket/key?endpoint=https://minio.lab:9000``),
or the session's context of type ``s3``, or ``AWS_ENDPOINT_URL`` and the profile, as for Amazon's own programs. Keys are
found where those find them, and stand in no URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Any

import botocore.exceptions as boto
import fsspec.asyn
import s3fs

from serai.errors import AccessError, HostUnreachable, LoginRefused, UsageError
from serai.session.context import current_context
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["S3FileSystem"]

CONNECT_S, READ_S, ATTEMPTS = 10, 60, 3
AT_ONCE = 32  # objects that are written at a time
_OPTIONS = re.compile(r"\?((?:endpoint|region|profile)=[^?]*)\Z", re.ASCII)
_NAMES = {"endpoint": "endpoint_url", "region": "region", "profile": "profile"}
_SCHEMES = ("s3://", "s3a://")


class S3FileSystem(s3fs.S3FileSystem):
    """Objects as files; directories are what names have in common.

    Args:
        endpoint_url: the service; None leaves it to the environment and the profile.
        region: of it.
        profile: of Amazon's files.
        options: further ones of s3fs.
    """

    protocol = ("s3", "s3a")

    def __init__(
        self, endpoint_url: str | None = None, region: str | None = None, profile: str | None = None, **options: Any
    ) -> None:
        config = {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        } | options.pop("config_kwargs", {})
        client = dict(options.pop("client_kwargs", {}))
        if region is not None:
            client.setdefault("region_name", region)
        if profile is not None:
            options["profile"] = profile
        options.setdefault("use_listings_cache", False)  # others write there too
        super().__init__(endpoint_url=endpoint_url, config_kwargs=config, client_kwargs=client, **options)
        self._where = endpoint_url or "S3"

    # ---- URLs

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        found = super()._strip_protocol(path)
        return _OPTIONS.sub("", found) if isinstance(path, str) and path.startswith(_SCHEMES) else found

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        """What a URL says, before what the session's context does.

        Raises:
            UsageError: it says what it cannot.
        """
        context = current_context("s3")
        names = {"endpoint_url": "endpoint", "region": "region", "profile": "profile"}
        told = {ours: getattr(context, theirs) for ours, theirs in names.items() if context is not None}
        found = {name: value for name, value in told.items() if value is not None}
        said = _OPTIONS.search(path) if path.startswith(_SCHEMES) else None
        for option in said[1].split("&") if said is not None else ():
            name, _, value = option.partition("=")
            if name not in _NAMES or not value:
                raise UsageError(
                    f"an S3 URL has no option {name!r}",
                    hint="?endpoint=URL, &region=NAME and &profile=NAME, at its end",
                )
            found[_NAMES[name]] = _checked_endpoint(value) if name == "endpoint" else value
        return found

    # ---- errors

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of Amazon's library that are none of the system's, as ours."""
        try:
            yield
        except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
            raise LoginRefused(
                f"no keys for it were found: {error}",
                host=self._where,
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile into ~/.aws/credentials",
            ) from error
        except boto.ProfileNotFound as error:
            raise LoginRefused(str(error), host=self._where, hint="aws configure list-profiles") from error
        except (boto.ConnectionError, boto.HTTPClientError) as error:
            raise HostUnreachable(f"the S3 service does not answer: {error}", host=self._where) from error
        except boto.BotoCoreError as error:
            raise AccessError(str(error), host=self._where) from error

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        """See s3fs."""
        with self._told():
            return await super().set_session(*args, **kwargs)

    async def _call_s3(self, *args: Any, **kwargs: Any) -> Any:
        with self._told():
            return await super()._call_s3(*args, **kwargs)

    async def _lsdir(self, *args: Any, **kwargs: Any) -> Any:
        with self._told():
            return await super()._lsdir(*args, **kwargs)

    async def _lsbuckets(self, *args: Any, **kwargs: Any) -> Any:
        with self._told():
            return await super()._lsbuckets(*args, **kwargs)

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if mode.startswith("x") and self.exists(path):  # and once more when it is put in its place
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return super()._open(path, mode, *args, **kwargs)

    # ---- many at once

    def pipe_many(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, OSError | None]]:
        """Write many objects, some at a time; yields what became of each."""
        batch: list[tuple[str, bytes]] = []
        for one in files:
            batch.append(one)
            if len(batch) == AT_ONCE:
                yield from self._piped(batch)
                batch = []
        yield from self._piped(batch)

    def _piped(self, batch: list[tuple[str, bytes]]) -> Iterator[tuple[str, OSError | None]]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self._pipe_file(path, data) for path, data in batch), return_exceptions=True)

        for (path, _), error in zip(batch, fsspec.asyn.sync(self.loop, all_of_them), strict=True):
            if isinstance(error, BaseException) and not isinstance(error, OSError):
                raise error
            yield path, error if isinstance(error, OSError) else None


def _checked_endpoint(text: str) -> str:
    url = Url.parse(text)
    if url.scheme not in {"http", "https"} or not url.host or "@" in text:
        raise UsageError(
            f"{url.scheme}://{url.host or ''} is no endpoint of S3", hint="https://HOST:PORT, without keys or passwords"
        )
    return text
