"""``any://`` by an appliance that the adverts tell of, and by ssh when it has gone: real sshd, real appliance."""

from __future__ import annotations

import platform
import signal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.access.conftest import Sshd
from tests.store.conftest import Store, until

from serai.access import connections, porter
from serai.access.filesystems import choosing
from serai.access.filesystems.anywhere import AnyFileSystem, decide
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores import beside, wire
from serai.access.stores.nearby import appliances_of
from serai.cli.look import explain
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    one = Sshd(tmp_path_factory.mktemp("sshd"))
    yield one
    porter.close_all()
    connections.close_all()
    one.stop()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An appliance whose ad is out; this side is, as far as it knows, another system on the same host."""
    adverts = f"sqlite:///{tmp_path}/adverts.sqlite"
    monkeypatch.setenv("SERAI_ADVERTS", adverts)
    monkeypatch.setenv("SERAI_CONFIG", str(tmp_path / "config"))
    one = Store(tmp_path / "served", tmp_path / "config", "--adverts", adverts, "--name", "nestore.lab")
    facts = HostFacts(platform.node(), "another boot", "me", 1, "/home/me")
    monkeypatch.setattr(LocalFiles, "host_facts", lambda _: facts)
    monkeypatch.setattr(beside, "VALID_S", 0.0)  # that it has ended is to be seen at once
    until(lambda: choosing._appliances(platform.node()), "the ad is published")
    choosing.forget_all()
    yield one
    one.stop()
    wire.close_all()
    choosing.forget_all()


def test_it_is_used_and_when_it_dies_ssh_is(sshd: Sshd, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
    (store.room / "sub").mkdir()
    (store.room / "sub/x").write_bytes(b"it")
    url = f"any://lab{store.room}/sub/x"
    chosen = decide(url).chosen
    assert chosen is not None
    assert chosen.url == f"store://127.0.0.1:{store.port}/sub/x"
    fs = AnyFileSystem("lab")
    path = f"{store.room}/sub/x"
    assert isinstance(fs.way(path).filesystem, StoreFileSystem)
    assert fs.cat_file(path) == b"it"
    assert fs.info(path)["name"] == path
    assert fs.find(str(store.room / "sub")) == [path]
    assert fs.ls(str(store.room), detail=False) == [f"{store.room}/sub"]
    fs.pipe_file(f"{store.room}/sub/new", b"by the store")
    assert fs.digest([f"{store.room}/sub/new"]).keys() == {f"{store.room}/sub/new"}
    # What is beside it on the same mount is reached by the host itself.
    assert not isinstance(fs.way(str(store.room.parent)).filesystem, StoreFileSystem)
    assert isinstance(fs.way(path).filesystem, StoreFileSystem)
    told = CliRunner().invoke(explain, [url]).output
    assert f"by store://127.0.0.1:{store.port}/sub/x" in told
    assert "nestore.lab" in told
    store.stop(signal.SIGKILL)  # its ad is still out
    assert fs.cat_file(path) == b"it"
    assert not isinstance(fs.way(path).filesystem, StoreFileSystem)
    outcomes = {one.url.partition(":")[0]: one.outcome for one in decide(url).candidates}
    assert "does not answer" in outcomes["store"]
    assert outcomes["ssh"] == "chosen"


def test_an_appliance_can_be_asked_for_by_its_name(store: Store) -> None:
    (store.room / "x").write_bytes(b"it")
    fs = AnyFileSystem("nestore.lab")
    assert fs.cat_file("/x") == b"it"
    assert fs.ls("/", detail=False) == ["/x"]
    store.stop(signal.SIGKILL)
    with pytest.raises(HostUnreachable, match=r"it is the appliance of that name"):
        fs.cat_file("/x")


def test_an_appliance_of_another_directory_or_without_the_file_is_passed_over(
    sshd: Sshd, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
    (tmp_path / "other").write_bytes(b"other")
    chosen = decide(f"any://lab{tmp_path}/other").chosen
    assert chosen is not None
    assert chosen.url.startswith("ssh:")
    store.token_file.write_text("serai_no_token\n")
    decision = decide(f"any://lab{store.room}/x")
    assert decision.chosen is not None
    assert decision.chosen.url.startswith("ssh:")
    assert "refuses the token in" in decision.candidates[0].outcome


AD: dict[str, Any] = {
    "Name": "n",
    "Machine": "h",
    "AccessModes": ["direct", "store"],
    "AccessURLs": ["file://h/data", "store://h:9094/"],
}


@pytest.mark.parametrize(
    ("change", "here", "count"),
    [
        ({}, "x", 1),
        ({"AccessURLs": ["file://h/data", "store://127.0.0.1:9094/"]}, "x", 0),
        ({"AccessURLs": ["file://h/data", "store://127.0.0.1:9094/"]}, "H", 1),
        ({"AccessURLs": ["file://other/data", "store://h:9094/"]}, "x", 0),
        ({"AccessURLs": ["file://h/data", "ssh://h/"]}, "x", 0),
        ({"AccessModes": "direct"}, "x", 0),
        ({"Name": 3}, "x", 0),
    ],
)
def test_what_ads_say_is_looked_at(change: dict[str, Any], here: str, count: int) -> None:
    found = appliances_of([AD | change], here)
    assert [(one.host, one.root, one.name) for one in found] == [("h", "/data", "n")] * count
