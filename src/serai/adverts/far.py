"""The advert service as a node has it: through the gateway to its front end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from serai.adverts.handlers import LONGEST_WATCH_S
from serai.adverts.service import PAGE, Adverts, Change, Entry, Watched
from serai.errors import DeadlineExceeded, HostUnreachable, LoginRefused, SeraiError, UsageError
from serai.travel.gateway import Gateway, GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.adverts.attributes import Value

__all__ = ["FarAdverts", "from_url"]

CALL_S = 30.0
_ERRORS: dict[str, type[Exception]] = {
    "not_found": FileNotFoundError, "exists": FileExistsError, "claimed": PermissionError, "usage": UsageError,
    "unavailable": HostUnreachable, "lost": HostUnreachable, "deadline": DeadlineExceeded, "refused": LoginRefused,
}  # fmt: skip


def from_url(url: str, environment: Mapping[str, str]) -> FarAdverts:
    """Open ``gateway:``, which ``$SERAI_GATEWAY`` and ``$SERAI_GATEWAY_TOKEN_FILE`` say more about."""
    if url != "gateway:":
        raise UsageError(f"{url}: a gateway is named by $SERAI_GATEWAY, and here by gateway: alone")
    try:
        return FarAdverts(Gateway.from_environment(environment))
    except GatewayError as error:
        raise _ours(error) from error


class FarAdverts(Adverts):
    """See this module.

    Args:
        gateway: the node's connection; it is closed with this.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def close(self) -> None:
        """See `Adverts.close`."""
        self._gateway.close()

    def now(self) -> float:
        """See `Adverts.now`."""
        now: float = self._call("now")[0]["now"]
        return now

    def put(
        self, path: str, attributes: Mapping[str, Value], ttl_s: float | None = None, *, exclusive: bool = False
    ) -> int:
        """See `Adverts.put`."""
        head, _ = self._call("put", path=path, attributes=dict(attributes), ttl_s=ttl_s, exclusive=exclusive)
        return int(head["version"])

    def update(self, path: str, attributes: Mapping[str, Value]) -> int:
        """See `Adverts.update`."""
        return int(self._call("update", path=path, attributes=dict(attributes))[0]["version"])

    def get(self, path: str) -> Entry | None:
        """See `Adverts.get`."""
        entry = self._call("get", path=path)[0]["entry"]
        return None if entry is None else Entry(**entry)

    def page(self, directory: str, *, recursive: bool = False, after: str = "", most: int = PAGE) -> list[Entry]:
        """See `Adverts.page`."""
        _, body = self._call("list", directory=directory, recursive=recursive, after=after)
        return [Entry(**entry) for entry in json.loads(body)[:most]]

    def directories(self, directory: str = "/") -> list[str]:
        """See `Adverts.directories`."""
        found: list[str] = json.loads(self._call("directories", directory=directory)[1])
        return found

    def renew(self, path: str, ttl_s: float | None) -> None:
        """See `Adverts.renew`."""
        self._call("renew", path=path, ttl_s=ttl_s)

    def remove(self, path: str, *, recursive: bool = False) -> int:
        """See `Adverts.remove`."""
        return int(self._call("remove", path=path, recursive=recursive)[0]["removed"])

    def claim(self, path: str, owner: str, for_s: float) -> bool:
        """See `Adverts.claim`."""
        return bool(self._call("claim", path=path, owner=owner, for_s=for_s)[0]["claimed"])

    def release(self, path: str, owner: str) -> None:
        """See `Adverts.release`."""
        self._call("release", path=path, owner=owner)

    def watch(self, directory: str, since: int | None = None, deadline_s: float = 20.0) -> Watched:
        """See `Adverts.watch`."""
        end = time.monotonic() + deadline_s
        while True:
            left_s = max(0.0, end - time.monotonic())
            wait_s = min(left_s, LONGEST_WATCH_S)
            head, body = self._call("watch", wait_s, directory=directory, since=since, deadline_s=wait_s)
            changes, since = tuple(_change(one) for one in json.loads(body)), int(head["version"])
            if changes or left_s <= LONGEST_WATCH_S:
                return Watched(changes, since)

    def _call(self, do: str, wait_s: float = 0.0, /, **head: Any) -> tuple[dict[str, Any], bytes]:
        try:
            return self._gateway.call(f"advert.{do}", head, deadline_s=CALL_S + wait_s)
        except GatewayError as error:
            raise _ours(error) from error


def _change(said: dict[str, Any]) -> Change:
    entry = said.pop("entry")
    return Change(**said, entry=None if entry is None else Entry(**entry))


def _ours(error: GatewayError) -> Exception:
    return _ERRORS.get(error.kind, SeraiError)(error.what)
