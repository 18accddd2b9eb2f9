"""Adverts through the gateway: rights, what a node may say, long answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import serai.adverts.handlers as module
from serai.adverts.far import FarAdverts, from_url
from serai.adverts.gateway import Gateway
from serai.adverts.handlers import advert_handlers
from serai.adverts.sqlite import SqliteAdverts
from serai.clock import SystemClock
from serai.errors import HostUnreachable, LoginRefused, UsageError
from serai.travel.gateway import Gateway as Client
from serai.travel.gateway import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "/mapreduce/r1"


@pytest.fixture
def adverts(tmp_path: Path) -> Iterator[SqliteAdverts]:
    with SqliteAdverts(tmp_path / "a", SystemClock()) as adverts:
        adverts.put("/nodes/lab1", {"cores": 4})
        adverts.put(f"{RUN}0/x", {})
        yield adverts


@pytest.fixture
def client(adverts: SqliteAdverts, tmp_path: Path) -> Iterator[Client]:
    with Gateway(advert_handlers(adverts, RUN), tmp_path) as gateway, Client(gateway.address, gateway.token) as client:
        yield client


@pytest.mark.parametrize("path", ["/nodes/lab1", f"{RUN}0/x", f"{RUN}/../../nodes/lab1", "/", ""])
def test_a_node_writes_below_its_prefix_only(client: Client, adverts: SqliteAdverts, path: str) -> None:
    client.call("advert.put", {"path": f"{RUN}/workers/w1", "attributes": {}, "ttl_s": 15})
    before = adverts.list("/", recursive=True)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("put", {"attributes": {}}),
        ("update", {"attributes": {}}),
        ("renew", {"ttl_s": 1}),
        ("remove", {}),
        ("remove", {"recursive": True}),
        ("claim", {"owner": "w1", "for_s": 1}),
        ("release", {"owner": "w1"}),
    ]
    for name, head in calls:
        with pytest.raises(GatewayError) as caught:
            client.call(f"advert.{name}", {"path": path, **head})
        assert caught.value.kind == "usage"
    assert adverts.list("/", recursive=True) == before
    assert client.call("advert.get", {"path": "/nodes/lab1"})[0]["entry"]["attributes"] == {"cores": 4}


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("put", {}),
        ("put", {"path": RUN + "/x", "attributes": []}),
        ("put", {"path": RUN + "/x", "attributes": {}, "ttl_s": "1"}),
        ("put", {"path": RUN + "/x", "attributes": {}, "ttl_s": True}),
        ("put", {"path": RUN + "/x", "attributes": {"token": "x"}}),
        ("put", {"path": RUN + "/x", "attributes": {}, "strange": 1}),
        ("get", {"path": 1}),
        ("list", {"directory": "/", "where": [1]}),
        ("list", {"directory": "/", "where": ["x"]}),
        ("watch", {"directory": "/", "since": "0"}),
        ("claim", {"path": RUN + "/x", "owner": "w", "for_s": None}),
    ],
)
def test_what_a_node_says_is_looked_at(client: Client, name: str, head: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        client.call(f"advert.{name}", head)
    assert caught.value.kind == "usage"


def test_long_lists_come_in_parts(client: Client, adverts: SqliteAdverts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 3000)
    for number in range(40):
        adverts.put(f"{RUN}/x/{number:02}", {"even": not number % 2, "text": "x" * 200})
    found: list[str] = []
    calls, after = 0, ""
    while not calls or after:
        head, body = client.call("advert.list", {"directory": f"{RUN}/x", "where": ["even=true"], "after": after})
        found += [entry["path"][-2:] for entry in json.loads(body)]
        after, calls = head["after"], calls + 1
    assert found == [f"{number:02}" for number in range(0, 40, 2)]
    assert calls > 1
    assert len(FarAdverts(client).list(f"{RUN}/x")) == 40


def test_a_node_opens_it_by_its_environment(adverts: SqliteAdverts, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    with Gateway(advert_handlers(adverts), tmp_path) as gateway:
        file.write_text(gateway.token)
        environment = {"SERAI_GATEWAY": gateway.address, "SERAI_GATEWAY_TOKEN_FILE": str(file)}
        with from_url("gateway:", environment) as far:
            assert far.directories() == ["/mapreduce", "/nodes"]
        file.write_text("0" * 64)
        with pytest.raises(LoginRefused):
            from_url("gateway:", environment)
        with pytest.raises(UsageError):
            from_url("gateway:", {})
    with pytest.raises(HostUnreachable):
        from_url("gateway:", environment)
