"""``ssh://``: the files of a host, for fsspec, over its one connection.

``fsspec.open("ssh://lab1/data/x")``, pandas and pyarrow come here by fsspec's entry points. A path is taken as it
stands: nothing in it is percent-encoded. ``ssh://lab1/~/x`` is below the login's home
directory, and so is a relative path.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from serai.access.connections import target_of
from serai.access.filesystems.far import PURPOSE, PorterFiles
from serai.access.filesystems.hosted import HostedFileSystem
from serai.access.filesystems.naming import path_of, place_of
from serai.access.porter import shared_porter
from serai.errors import NoPython, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from fsspec.dircache import DirCache

    from serai.access.openssh import Target
    from serai.access.plain.sftp import SftpFiles

__all__ = ["SshFileSystem"]


class SshFileSystem(HostedFileSystem):
    """The files of one host; an instance keeps no connection, and pickles.

    Args:
        host: a name of ssh_config or of the network, or an address.
        user: overrides that of ssh_config; ``username`` says the same.
        port: overrides that of ssh_config.
        ssh_config: the file that ssh is given instead of the user's own; default ``$SERAI_SSH_CONFIG``.
        python: the interpreter on the host.
        options: those of `HostedFileSystem`: ``auto_mkdir``, ``listings_expiry_time`` and fsspec's own.
    """

    protocol = "ssh"

    def __init__(
        self,
        host: str = "",
        user: str | None = None,
        port: int | None = None,
        *,
        ssh_config: str | None = None,
        python: str | None = None,
        **options: Any,
    ) -> None:
        user = options.pop("username", None) or user
        if not host:
            raise UsageError("which host?", hint="write ssh://HOST/PATH, or give host=")
        url = Url("ssh", user, host, None if port is None else int(port))
        super().__init__(str(url), **options)
        self._url = url
        self._ssh_config, self._python = ssh_config, python
        self._far: tuple[Target, PorterFiles | SftpFiles] | None = None
        cache = self.dircache
        if (
            cache.listings_expiry_time is not None
        ):  # threads have instances of their own, and should see each other's changes
            key = (self._target, cache.listings_expiry_time, cache.use_listings_cache)
            self.dircache = _listings.setdefault(key, cache)

    @property
    def _target(self) -> Target:
        # fsspec gives an instance again for the same arguments, whatever the environment says by then.
        return target_of(self._url, os.environ, self._ssh_config)

    @property
    def far(self) -> PorterFiles | SftpFiles:
        """The host's files through its porter; by SFTP where none can run."""
        target = self._target
        if self._far is None or self._far[0] != target:
            try:
                shared_porter(target, PURPOSE, self._python)
                self._far = target, PorterFiles(target, self._python)
            except NoPython as error:
                from serai.access.plain.sftp import SftpFiles  # noqa: PLC0415 - rarely needed

                self._far = target, SftpFiles(target, error)
        return self._far[1]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path_of(path, "ssh")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return place_of(path, "ssh")


_listings: dict[tuple[Target, float, bool], DirCache] = {}
