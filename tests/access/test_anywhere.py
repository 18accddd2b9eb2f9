from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from serai.access import connections, porter
from serai.access.files import filesystem_for
from serai.access.filesystems import choosing
from serai.access.filesystems.anywhere import AnyFileSystem, decide
from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.ssh import SshFileSystem
from serai.cli.look import explain
from serai.describe.host import HostFacts
from serai.errors import HostUnreachable, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.access.conftest import Sshd

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _afresh(lab: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(lab.config))
    choosing.forget_all()


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    porter.close_all()
    connections.close_all()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> HostFacts:
    """This side is another machine than the hosts, as far as it knows."""
    facts = HostFacts("elsewhere", "another boot", "me", 1, "/home/me")
    monkeypatch.setattr(LocalFiles, "host_facts", lambda _: facts)
    return facts


def test_an_alias_of_this_machine_leads_to_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"it")
    decision = decide(f"any://lab{tmp_path}/x")
    assert decision.chosen is not None
    assert [(one.url, one.outcome) for one in decision.candidates] == [
        (f"local:{tmp_path}/x", "chosen"),
        (f"ssh://lab{tmp_path}/x", "not needed"),
    ]
    assert fsspec.filesystem("file").cat_file(f"{tmp_path}/x") == AnyFileSystem("lab").cat_file(f"{tmp_path}/x")


@pytest.mark.usefixtures("elsewhere")
def test_another_machine_is_reached_by_ssh(tmp_path: Path) -> None:
    chosen = decide(f"any://lab{tmp_path}").chosen
    assert chosen is not None
    assert chosen.url == f"ssh://lab{tmp_path}"


def test_names_below_home_stay_below_home() -> None:
    home = Path(f"~/.serai-test-{os.getpid()}").expanduser()
    home.mkdir()
    try:
        (home / "x").write_bytes(b"it")
        for fs in (AnyFileSystem("lab"), SshFileSystem("lab")):
            assert fs.ls(f"~/{home.name}", detail=False) == [f"~/{home.name}/x"]
            assert fs.find(home.name) == [f"~/{home.name}/x"]
            assert fs.cat_file(f"{fs.protocol}://lab/~/{home.name}/x") == b"it"
            assert fs.unstrip_protocol(f"~/{home.name}") == f"{fs.protocol}://lab/~/{home.name}"
    finally:
        shutil.rmtree(home)


def test_when_nothing_leads_there_each_way_is_told_with_its_reason(lab: Sshd) -> None:
    config = lab.config_with("", (f"Port {lab.port}", f"Port {lab.free_port()}"))
    fs = AnyFileSystem("lab", ssh_config=config)
    with pytest.raises(HostUnreachable) as caught:
        fs.ls("/data")
    assert "ssh://lab/data (the host itself)" in caught.value.tried[0]
    assert "refuses connections" in caught.value.tried[0]
    assert "serai explain any://lab/data" in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
def test_a_decision_is_remembered_and_made_again_when_its_way_fails(lab: Sshd, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"it")
    fs = AnyFileSystem("lab")
    assert fs.cat_file(f"{tmp_path}/x") == b"it"
    before = lab.connections()
    assert fs.cat_file(f"{tmp_path}/x") == b"it"
    assert lab.connections() == before
    porter.close_all()
    connections.close_all()
    assert fs.cat_file(f"{tmp_path}/x") == b"it"
    assert lab.connections() == before + 1


@pytest.mark.usefixtures("elsewhere")
def test_a_worker_decides_for_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"it")
    fs = AnyFileSystem("lab")
    chosen = fs.decide(f"{tmp_path}/x").chosen
    assert chosen is not None
    assert chosen.url.startswith("ssh:")
    code = (
        "import pickle, sys; fs = pickle.load(sys.stdin.buffer)\n"
        f"print(fs.decide({str(tmp_path / 'x')!r}).chosen.url, fs.cat_file({str(tmp_path / 'x')!r}))"
    )
    told = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(fs), capture_output=True, check=True)
    assert told.stdout.decode().split() == [f"local:{tmp_path}/x", "b'it'"]


def test_a_look_that_hangs_is_left_behind() -> None:
    import threading  # noqa: PLC0415 - here alone

    end = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        choosing._within(0.05, end.wait)
    end.set()


def test_explain_prints_the_decision(tmp_path: Path) -> None:
    told = CliRunner().invoke(explain, [f"any://lab{tmp_path}"])
    assert told.exit_code == 0
    assert told.output.splitlines()[0] == f"any://lab{tmp_path}: by local:{tmp_path}"
    assert "not needed" in " ".join(told.output.split())
    bad = CliRunner().invoke(explain, ["any://no.such.host.invalid/x"])
    assert bad.exit_code == 1
    assert "no way leads there" in bad.output


# ---- URLs


def test_each_url_has_its_file_system() -> None:
    for url, kind, path in (
        ("ssh://me@lab:22/a b%20?#*", SshFileSystem, "/a b%20?#*"),
        ("ssh://lab", SshFileSystem, "/"),
        (Url.parse("ssh://lab/a%20b"), SshFileSystem, "/a b"),
        ("any://lab/x/", AnyFileSystem, "/x"),
        ("local:/x", LocalFiles, "/x"),
        ("local:x", LocalFiles, f"{os.getcwd()}/x"),
        ("/x", LocalFiles, "/x"),
        ("a:b", LocalFiles, f"{os.getcwd()}/a:b"),
        ("memory://x", fsspec.get_filesystem_class("memory"), "/x"),
    ):
        fs, found = filesystem_for(url)
        assert (type(fs), found) == (kind, path), url
    assert filesystem_for("ssh://me@lab:22/x")[0].storage_options == {"host": "lab", "user": "me", "port": 22}
    with pytest.raises(UsageError, match="has files for shs:"):
        filesystem_for("shs://lab/x")
    with pytest.raises(UsageError, match="no password"):
        filesystem_for("ssh://me:secret@lab/x")


def test_fsspec_and_pyarrow_find_them_by_their_entry_points(tmp_path: Path) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fsspec.specs"]
    meta = tmp_path / "serai-0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: serai\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (meta / "entry_points.txt").write_text("[fsspec.specs]\n" + "\n".join(lines) + "\n")
    code = (
        "import fsspec, sys\n"
        "for url in sys.argv[1:]:\n"
        "  with fsspec.open(url, 'wt') as file: file.write('it')\n"
        "  fs, path = fsspec.url_to_fs(url)\n"
        "  print(type(fs).__module__, fs.cat_file(path))"
    )
    urls = [f"{head}{tmp_path}/{n}" for n, head in enumerate(("ssh://lab", "any://lab", "local://"))]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    told = subprocess.run(
        [sys.executable, "-c", code, *urls], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
    )
    module = "serai.access.filesystems"
    assert told.stdout.decode().splitlines() == [f"{module}.{name} b'it'" for name in ("ssh", "anywhere", "local")], (
        told.stderr.decode()
    )


@pytest.mark.parametrize("kind", [SshFileSystem, AnyFileSystem])
def test_pyarrow_reads_and_writes_tables(kind: type, tmp_path: Path) -> None:
    table = pa.table({"n": list(range(100_000)), "text": [str(n) for n in range(100_000)]})
    fs = kind("lab")
    pq.write_table(table, f"{tmp_path}/table.parquet", filesystem=fs)
    assert pq.read_table(f"{tmp_path}/table.parquet", filesystem=fs, columns=["n"]) == table.select(["n"])
