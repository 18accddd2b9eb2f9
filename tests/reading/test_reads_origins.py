"""Inputs of a real store that nodes read there: executors of this machine that are taken for such of others."""

from __future__ import annotations

import functools
import json
import os
import shlex
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.store.conftest import Store

import serai
from serai.access.stores import wire
from serai.apps.frontends.pool import Options
from serai.data import grants
from serai.dispatch import run as runs
from serai.dispatch.carrier import Timing
from serai.dispatch.engines.local import LocalEngine
from serai.dispatch.history.archive import Archive
from serai.dispatch.ports import PRICES
from serai.dispatch.run import Settings
from serai.travel.caching.needs import UNREACHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.dispatch.files.origins import File
    from serai.dispatch.ports import NodeSpec

SIZE = 3_000_000
SLOWLY = """
import sys, time
with open(sys.argv[1], "rb", buffering=0) as file:
    for at in range(0, 3_000_000, 300_000):
        file.seek(at)
        print(sum(file.read(100)), flush=True)
        time.sleep(0.6)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An appliance with TLS, that counts as one of another host."""
    monkeypatch.setenv("SERAI_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(grants, "_is_own", lambda _host: False)
    one = Store(tmp_path / "served", tmp_path / "config", "--tls")
    yield one
    wire.close_all()
    one.stop()


@pytest.fixture
def pool(
    tmp_path: Path,
    store: Store,  # noqa: ARG001 - it sets where tokens are
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., serai.Pool]]:
    nodes = LocalEngine.nodes

    def elsewhere(self: LocalEngine, site: Any) -> list[NodeSpec]:
        return [replace(spec, in_place=False, by_reference=False) for spec in nodes(self, site)]

    monkeypatch.setattr(LocalEngine, "nodes", elsewhere)
    pools: list[serai.Pool] = []

    def make(access: str = "stage", life_s: float = 1800.0, **more: Any) -> serai.Pool:
        monkeypatch.setattr(runs, "Grants", functools.partial(grants.Grants, life_s=life_s))
        settings = Settings(timing=Timing(beat_s=0.2, silence_s=5.0), **more)
        options = Options(runs=tmp_path / "runs", settings=settings, access=access)
        pools.append(serai.Pool(f"local://one?slots=2&scratch={tmp_path / 'one'}", options=options))
        return pools[-1]

    yield make
    for one in pools:
        one.shutdown()


def make(store: Store, *names: str) -> tuple[list[str], list[bytes]]:
    """Files in a store: their URLs, and what is in them."""
    data = [os.urandom(SIZE) for _ in names]
    for name, one in zip(names, data, strict=True):
        (store.room / name).parent.mkdir(parents=True, exist_ok=True)
        (store.room / name).write_bytes(one)
    return [f"store://127.0.0.1:{store.port}/{name}" for name in names], data


def notes(tmp_path: Path, name: str, task: int) -> list[str]:
    with Archive(tmp_path / "runs").open(name, time.time()) as history:
        return [note.text for note in history.task(task).notes if not note.text.startswith(PRICES)]


def narrowed(store: Store) -> list[dict[str, Any]]:
    kept = json.loads((store.room / ".serai/access.json").read_text())
    return [token for token in kept["tokens"] if token["parent"]]


def asked_of_the_front_end(one: serai.Pool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the front end reads for nodes, from now on."""
    list(one.run("true {in}", [__file__]))
    asked: list[str] = []
    run = one._core.run
    carrier = run.roster.carrier("one")
    assert carrier is not None
    read = carrier._filler._read_origin

    def noted(file: File) -> Iterator[bytes | None]:
        asked.append(file.origin)
        return read(file)

    monkeypatch.setattr(carrier._filler, "_read_origin", noted)
    return asked


def test_files_come_from_the_store_and_its_token_is_for_them_and_ends(
    pool: Callable[..., serai.Pool], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls, data = make(store, "d/a b.bin", "d/ü.bin", "d/c%20.bin", "other/d.bin")
    (store.room / "d/secret").write_bytes(b"of nobody else")
    one = pool()
    asked = asked_of_the_front_end(one, monkeypatch)
    done = list(one.run("b2sum -l 256 {in}", urls))
    assert [outcome.error for outcome in done] == [None] * 4
    found = {outcome.stdout.split()[0].decode() for outcome in done}
    assert found == {digest(one_data) for one_data in data}
    assert asked == []
    for outcome in done:
        (told,) = notes(tmp_path, one.name, outcome.task)
        assert told.endswith(f" from store 127.0.0.1:{store.port}"), told
    (token,) = narrowed(store)
    assert sorted(token["paths"]) == ["/d/a b.bin", "/d/c%20.bin", "/d/ü.bin", "/other/d.bin"]
    run = one._core.run
    assert run._grants is not None
    (own,) = run._grants._stores.values()
    (text,) = own._tokens.values()
    assert store.curl(f"{store.url}/d/%C3%BC.bin", token=text)[::2] == (200, data[1])
    assert store.curl(f"{store.url}/d/secret", token=text)[0] == 403
    assert store.curl("-T", "-", f"{store.url}/d/%C3%BC.bin", data=b"x", token=text)[0] == 403
    one.shutdown()
    assert narrowed(store) == []
    assert store.curl(f"{store.url}/d/%C3%BC.bin", token=text)[0] == 401
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    left += [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert not [
        path for path in left if text.encode() in path.read_bytes() or store.token.encode() in path.read_bytes()
    ]


def digest(data: bytes) -> str:
    done = subprocess.run(["b2sum", "-l", "256"], input=data, capture_output=True, check=True)
    return done.stdout.split()[0].decode()


def test_a_mount_reads_there_and_goes_on_with_a_token_that_is_renewed(
    pool: Callable[..., serai.Pool], store: Store, tmp_path: Path
) -> None:
    urls, (data,) = make(store, "d/x.root")
    one = pool("mount", life_s=3.0)
    began = time.monotonic()
    (done,) = one.run(f"{sys.executable} -c {shlex.quote(SLOWLY)} {{in}}", urls)
    assert done.error is None
    assert done.stdout.split() == [b"%d" % sum(data[at : at + 100]) for at in range(0, SIZE, 300_000)]
    assert time.monotonic() - began > 5.0  # the first token had expired by then
    (told,) = notes(tmp_path, one.name, done.task)
    assert f"read from afar from store 127.0.0.1:{store.port}: " in told, told
    base = Path(one._core.run.roster.ad("one")["base"])
    secret = {token["name"].encode() for token in narrowed(store)}
    assert secret
    for path in (one for one in base.rglob("*") if one.is_file()):
        assert not [name for name in secret if name in path.read_bytes()], path  # grants are in memory only
        if path.suffix == ".json":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("access", ["stage", "mount"])
def test_where_the_store_refuses_the_front_end_sends_and_it_is_said_once(
    pool: Callable[..., serai.Pool], store: Store, tmp_path: Path, access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls, data = make(store, *(f"f{n}.bin" for n in range(3)))
    one = pool(access)
    grant = grants.Grants.grant

    def another(self: grants.Grants, *args: Any, **more: Any) -> dict[str, Any]:
        found = grant(self, *args, **more)
        return {**found, "fingerprint": "0" * 64} if found else found  # as if somebody else answered there

    monkeypatch.setattr(grants.Grants, "grant", another)
    done = [outcome for url in urls for outcome in one.run("b2sum -l 256 < {in}", [url])]
    assert [outcome.error for outcome in done] == [None] * 3
    assert [outcome.stdout.split()[0].decode() for outcome in done] == [digest(one_data) for one_data in data]
    for outcome in done:
        (told,) = notes(tmp_path, one.name, outcome.task)
        assert told.endswith(" sent") or "read from afar: 3 MB of 3 MB" in told, told
    with Archive(tmp_path / "runs").open(one.name, time.time()) as history:
        said = [note.text for note in history.notes() if note.text.startswith("nothing comes straight")]
    assert len(said) == 1
    assert f"store 127.0.0.1:{store.port}: " in said[0]
    assert "certificate" in said[0]
    base = Path(one._core.run.roster.ad("one")["base"])
    assert len(list((base / UNREACHED).iterdir())) == 1
    one.shutdown()
    assert not base.exists()


def test_what_changed_in_the_store_is_not_taken_for_what_was_catalogued(
    pool: Callable[..., serai.Pool], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (url,), _ = make(store, "d/x.bin")
    one = pool()
    asked = asked_of_the_front_end(one, monkeypatch)
    catalogue = one._core.run.catalogue
    needs = catalogue.needs

    def changed(*args: Any) -> dict[str, Any]:
        found = needs(*args)
        (store.room / "d/x.bin").write_bytes(os.urandom(SIZE))
        return found

    monkeypatch.setattr(catalogue, "needs", changed)
    (done,) = one.run("cksum {in}", [url])
    assert asked[0] == url  # and there it is noticed, too
    assert done.error is None or "changed" in str(done.error)


def test_nodes_may_be_told_nothing(pool: Callable[..., serai.Pool], store: Store) -> None:
    (url,), _ = make(store, "d/x.bin")
    one = pool(direct=False)
    (done,) = one.run("cksum {in}", [url])
    assert done.error is None
    assert narrowed(store) == []
