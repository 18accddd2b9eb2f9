"""What nodes are given to read inputs at their origins, what they are never given, and what happens in trouble."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.store.conftest import Store

from serai.access.stores import wire
from serai.clock import SystemClock
from serai.data import grants
from serai.data.grants import Grants, origin_of, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "sesame/never+told"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("store://nest.lab/d/x", "store nest.lab:9094"),
        ("store://nest.lab:99/d/x?fingerprint=sha256:" + "a" * 64, "store nest.lab:99"),
        ("s3://bucket/x", "s3 bucket"),
        ("s3://bucket/x?endpoint=https://minio.lab:9000", "s3 minio.lab:9000"),
        ("https://Data.example.org/x?y=z", "https data.example.org"),
        ("http://data.example.org:8080/x", "http data.example.org:8080"),
        ("https://me:secret@data.example.org/x", ""),
        ("https://me@data.example.org/x", ""),
        ("store://127.0.0.1:9094/x", ""),
        ("store://localhost/x", ""),
        ("s3://bucket/x?endpoint=http://127.0.0.1:9000", ""),
        ("http://localhost:8080/x", ""),
        ("http://[::1]/x", ""),
        ("http://0.0.0.0/x", ""),
        ("http://169.254.169.254/latest", ""),
        ("http://a.localhost/x", ""),
        ("https://[broken/x", ""),
        ("zip://x::https://data.example.org/x.zip", ""),
        ("ssh://lab1/x", ""),
        ("any://lab1/x", ""),
        ("ftp://data.example.org/x", ""),
        ("/d/x", ""),
    ],
)
def test_which_origins_nodes_may_read_from(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_a_version_is_what_http_would_tell() -> None:
    assert version_of("s3://b/x", {"ETag": '"abc"', "size": 3}) == ('"abc"', "")
    assert version_of("https://h/x", {"Last-Modified": "Sun"}) == ("", "Sun")
    listed = {"ino": 255, "size": 16, "mtime_ns": 4096, "type": "file"}
    assert version_of("store://h/x", listed) == ('"ff-10-1000"', "")
    assert version_of("store://h/x", {**listed, "etag": '"1-2-3"'}) == ('"1-2-3"', "")
    assert version_of("ssh://h/x", listed) == ("", "")


def test_an_http_url_is_what_it_is_and_without_tls_a_version_is_wanted() -> None:
    made = Grants(SystemClock())
    found = made.grant("https://data.example.org/ü x%20y?q=ä#part", ('"v"', ""))
    assert found == {
        "kind": "origin",
        "name": "https data.example.org",
        "url": "https://data.example.org/%C3%BC%20x%20y?q=%C3%A4",
        "etag": '"v"',
    }
    assert made.grant("http://data.example.org/x") == {}
    assert made.grant("http://data.example.org/x", ("", "Sun"))["modified"] == "Sun"
    assert made.grant("https://me:secret@data.example.org/x") == {}
    made.close()
    assert made.grant("https://data.example.org/y") == {}


def test_a_signed_url_reads_one_object_for_a_while_and_holds_no_key() -> None:
    made = Grants(SystemClock(), life_s=600.0)
    url = "s3://bucket/d/a b?endpoint=https://minio.lab:9000&region=eu-central-1"
    found = made.grant(url, ('"v"', ""), wait_s=30.0)
    parts = urlsplit(found["url"])
    query = parse_qs(parts.query)
    assert (parts.netloc, parts.path) == ("minio.lab:9000", "/bucket/d/a%20b")
    assert query["X-Amz-Expires"] == ["600"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert SECRET not in json.dumps(found)
    assert 0 < found["life_s"] <= 600
    assert made.grant(url)["url"] == found["url"]
    made.close()


def test_without_keys_none_is_made_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    said: list[str] = []
    made = Grants(SystemClock(), said.append)
    for name in ("x", "y"):
        assert made.grant(f"s3://bucket/{name}?endpoint=https://minio.lab:9000", wait_s=30.0) == {}
    assert len(said) == 1
    assert said[0].startswith("nodes cannot be let to read straight from s3 minio.lab:9000: no keys")
    made.close()


def test_nobody_waits_long_for_a_store_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "_is_own", lambda _host: False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"store://127.0.0.1:{silent.getsockname()[1]}/x"
        made = Grants(SystemClock())
        began = time.monotonic()
        assert made.grant(url, wait_s=0.2) == {}
        assert made.grant(url, wait_s=60.0) == {}  # it was late a moment ago
        assert time.monotonic() - began < 15.0  # of the 20 s after which such a store is given up, and of 60 s
        made.close()
        assert time.monotonic() - began < grants.ASKED_S
    wire.close_all()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("SERAI_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(grants, "_is_own", lambda _host: False)
    one = Store(tmp_path / "served", tmp_path / "config", "--tls")
    yield one
    wire.close_all()
    one.stop()


def tokens(store: Store) -> list[dict[str, Any]]:
    kept = json.loads((store.room / ".serai/access.json").read_text())
    return [token for token in kept["tokens"] if token["parent"]]


class Ahead(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


def test_one_token_is_for_all_inputs_that_are_expected_and_another_life_renews_it(store: Store) -> None:
    for n in range(30):
        (store.room / f"f{n}").write_bytes(b"x")
    urls = [f"store://127.0.0.1:{store.port}/f{n}" for n in range(30)]
    missing = f"store://127.0.0.1:{store.port}/none"
    clock = Ahead()
    made = Grants(clock, life_s=600.0)
    made.expect(urls)
    first = made.grant(urls[0], wait_s=20.0)
    assert (len(tokens(store)), len(tokens(store)[0]["paths"])) == (1, 30)
    assert {made.grant(url, wait_s=20.0)["token"] for url in urls} == {first["token"]}
    assert len(tokens(store)) == 1
    made.expect([missing, urls[3]])
    assert made.grant(missing, wait_s=20.0) == {}
    ends = tokens(store)[0]["expires"]
    clock.ahead_s = 301.0  # half of its life is over
    assert made.grant(urls[0], wait_s=20.0)["token"] == first["token"]
    assert tokens(store)[0]["expires"] > ends
    made.close()
    assert tokens(store) == []


def test_a_run_that_is_killed_leaves_a_token_that_expires(store: Store) -> None:
    (store.room / "x").write_bytes(b"x")
    script = (
        "import os, sys; from serai.data import grants; from serai.clock import SystemClock\n"
        "grants._is_own = lambda host: False\n"
        f"made = grants.Grants(SystemClock(), life_s=2.0)\n"
        f"print(made.grant({store_url(store)!r}, wait_s=30.0)['token'])\n"
        "sys.stdout.flush(); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    token = done.stdout.strip()
    assert done.returncode == 9, done.stderr
    until = time.monotonic() + 40
    while store.curl(f"{store.url}/x", token=token)[0] != 401:
        assert time.monotonic() < until


def store_url(store: Store) -> str:
    return f"store://127.0.0.1:{store.port}/x"


def test_a_store_that_is_started_anew_gives_one_token_for_all_again(store: Store) -> None:
    """It makes its owner's token anew, and with the old one those end that came of it."""
    for n in range(20):
        (store.room / f"f{n}").write_bytes(b"x")
    urls = [f"store://127.0.0.1:{store.port}/f{n}" for n in range(20)]
    made = Grants(SystemClock(), life_s=600.0)
    made.expect(urls[:15])
    before = {made.grant(url, wait_s=20.0)["token"] for url in urls[:15]}
    kept = json.loads((store.room / ".serai/access.json").read_text())
    kept["tokens"] = [token for token in kept["tokens"] if not token["parent"]]
    draft = store.room / ".serai/other"
    draft.write_text(json.dumps(kept))
    draft.replace(store.room / ".serai/access.json")
    threading.Event().wait(grants.AGAIN_S + 0.1)  # a refused one is not made anew more often
    after = {made.grant(url, anew=True, wait_s=20.0)["token"] for url in (*urls[:15], *urls[15:])}
    assert (len(before), len(after), len(tokens(store))) == (1, 1, 1)
    assert not before & after
    made.close()
    assert tokens(store) == []


def test_a_name_that_cannot_be_one_spoils_no_other_file(store: Store) -> None:
    (store.room / "x").write_bytes(b"x")
    made = Grants(SystemClock())
    made.expect([store_url(store), f"store://127.0.0.1:{store.port}/d/../x"])
    assert made.grant(store_url(store), wait_s=20.0)["token"]
    made.close()


@pytest.mark.parametrize("wanted", [0, 7])
def test_files_that_a_store_refuses_are_found_by_halves(
    store: Store, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    count, refused = 200, {7, 150}
    for n in set(range(count)) - refused:
        (store.room / f"f{n}").write_bytes(b"x")
    urls = [f"store://127.0.0.1:{store.port}/f{n}" for n in range(count)]
    asked: list[int] = []
    request = grants._Store._request

    def counted(self: grants._Store, name: str, paths: list[str]) -> str:
        asked.append(len(paths))
        return request(self, name, paths)

    monkeypatch.setattr(grants._Store, "_request", counted)
    made = Grants(SystemClock())
    made.expect(urls)
    assert bool(made.grant(urls[wanted], wait_s=30.0)) == (wanted not in refused)
    found = [made.grant(url, wait_s=20.0).get("token") for url in urls]
    assert {n for n in range(count) if found[n] is None} == refused
    assert len(set(found)) == 2
    assert len(tokens(store)) == 1
    assert len(asked) < 50  # and not one for each
    made.close()


def test_after_its_end_no_token_is_made_that_nobody_would_end(store: Store) -> None:
    (store.room / "x").write_bytes(b"x")
    made = Grants(SystemClock())
    made.close()
    made._making[store_url(store)] = Future()  # a thread that began before, and comes to it only now
    made._make(origin_of(store_url(store)), store_url(store), anew=False)
    assert tokens(store) == []


def test_after_its_end_nothing_is_said_any_more() -> None:
    """The journal is closed then."""
    said: list[str] = []
    made = Grants(SystemClock(), said.append)
    url = "store://nobody.invalid/x"
    waits = made._making[url] = Future()
    waits.add_done_callback(lambda _: made.close())
    made._make(origin_of(url), url, anew=False)
    assert said == []
