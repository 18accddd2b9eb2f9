"""`serai nodes`, `serai communities`, and requirements in real runs with a real store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.adverts.service import open_adverts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERAI = [sys.executable, "-m", "serai"]
NODES: dict[str, dict[str, Any]] = {
    "/nodes/r/large": {"Name": "large", "Memory": 8000, "Software": ["openmpi"], "NearestStorage": "s", "Run": "r"},
    "/nodes/r/small": {"Name": "small", "Memory": 2000, "Software": ["openmpi"], "State": "Idle\x1b[2J"},
    "/nodes/q/bare": {"Name": "bare", "Memory": 8000, "Software": [], "Odd": "=not an ( expression"},
}


def serai(*words: str, within_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERAI, *words], capture_output=True, text=True, timeout=within_s, check=False)


def until(what: Callable[[], Any], why: str, within_s: float = 40.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(0.05)
    return found


@pytest.fixture(autouse=True)
def _no_tokens_among_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_CONFIG", str(tmp_path / "config"))


@pytest.fixture
def some() -> None:
    with open_adverts() as adverts:
        for path, ad in NODES.items():
            adverts.put(path, ad, 60.0)
        adverts.put(
            "/stores/s", {"Name": "s", "HasCMSData": True, "Disk": 1 << 20, "AccessURLs": ["http://h:1/"]}, 60.0
        )


def names(*words: str) -> list[str]:
    done = serai("nodes", "--json", *words)
    assert done.returncode in {0, 1}, done.stderr
    return [ad["Name"] for ad in json.loads(done.stdout or "[]")]


@pytest.mark.usefixtures("some")
def test_nodes_are_found_by_what_they_have() -> None:
    assert names() == ["bare", "large", "small"]
    assert names("--where", 'Memory > 4000 && HasSoftware("openmpi")') == ["large"]
    assert names("--where", 'TARGET.Memory > 4000 && HasSoftware("openmpi")') == ["large"]
    assert names("--where", "NearestStorage.HasCMSData") == ["large"]
    assert names("--stores", "--where", "HasCMSData") == ["s"]
    assert names("--where", "Nope > 3") == []


@pytest.mark.usefixtures("some")
def test_nodes_as_people_see_them() -> None:
    done = serai("nodes")
    assert done.stdout.splitlines()[0].split() == ["NODE", "STATE", "MEMORY", "STORE", "RUN"]
    assert "\x1b" not in done.stdout
    none = serai("nodes", "--where", "Memory > 90000")
    assert (none.returncode, none.stderr) == (1, "of 3 nodes, none has Memory > 90000\n")
    wrong = serai("nodes", "--where", "Memory > 90000 and x")
    assert wrong.returncode == 2
    assert "--where: not a ClassAd expression at character 16" in wrong.stderr
    listed = serai("communities").stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["s", "s", "1", "large"],
        ["(none)", "(none)", "2", "bare,", "small"],
    ]


@pytest.mark.usefixtures("some")
def test_a_node_that_says_which_store_it_means_belongs_to_that() -> None:
    with open_adverts() as adverts:
        for name, says in (("cms", "=TARGET.HasCMSData"), ("atlas", "=TARGET.HasATLASData")):
            adverts.put(f"/nodes/r/{name}", {"Name": name, "Memory": 1, "NearestStorage": says, "Run": "r"}, 60.0)
    rows = {row["store"]: row for row in json.loads(serai("communities", "--json").stdout)}
    assert [one["name"] for one in rows["s"]["nodes"]] == ["cms", "large"]
    assert not rows["=TARGET.HasATLASData"]["advertised"]


@pytest.mark.usefixtures("some")
def test_the_store_that_is_meant_is_shown() -> None:
    urls: list[str | int | float | bool | None] = ["file://h/data", "http://h:1/", "store://h:1/"]
    with open_adverts() as adverts:
        adverts.put("/nodes/r/cms", {"Name": "cms", "NearestStorage": "=TARGET.HasCMSData", "Run": "r"}, 60.0)
        adverts.put("/stores/u", {"Name": "u", "AccessURLs": urls}, 60.0)
    rows = {line.split()[0]: line.split() for line in serai("nodes").stdout.splitlines()}
    assert rows["cms"] == ["cms", "s", "r"], "and not the expression"
    listed = {ad["Name"]: ad for ad in json.loads(serai("nodes", "--json").stdout)}
    assert (listed["cms"]["store"], listed["cms"]["NearestStorage"]) == ("s", "=TARGET.HasCMSData")
    assert listed["bare"]["store"] == ""
    stores = {line.split()[0]: line.split() for line in serai("nodes", "--stores").stdout.splitlines()}
    assert stores["u"][-1] == "store://h:1/", "what others can use"
    assert stores["s"][-1] == "http://h:1/"


def test_where_nothing_is_advertised_it_says_what_to_do() -> None:
    done = serai("nodes")
    assert done.returncode == 1
    assert "serai nodes --on SITE checks them in now" in done.stderr
    assert "serai store serve DIR" in serai("nodes", "--stores").stderr


@contextlib.contextmanager
def store(directory: Path) -> Iterator[None]:
    (directory / "CMS").mkdir(parents=True)
    words = [*SERAI, "store", "serve", str(directory), "--listen", "127.0.0.1:0", "--name", "nestore.bologna"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            with open_adverts() as adverts:
                until(lambda: adverts.get("/stores/nestore.bologna"), "the store is advertised")
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


POOL = """
[[site]]
url = "local://infn?slots=1"
nearest_storage = "nestore.bologna"
[[site]]
url = "local://uw?slots=1"
nearest_storage = "nest.wisc"
[[site]]
url = "local://found?slots=1"
[[store]]
name = "nest.wisc"
community = "uw"
HasCMSData = true
"""


def test_three_way_matching_runs_as_the_source_wrote_it_with_a_real_store(tmp_path: Path) -> None:
    pool = tmp_path / "pool.toml"
    pool.write_text(POOL)
    data = "TARGET.NearestStorage.HasCMSData"
    rank = 'TARGET.NearestStorage.Name == "nestore.bologna" ? 10 : 0'
    with store(tmp_path / "data"):
        looked = serai("communities", "--on", str(pool), "--json")
        rows = {row["store"]: [one["name"] for one in row["nodes"]] for row in json.loads(looked.stdout)}
        assert rows == {"nestore.bologna": ["found", "infn"], "nest.wisc": ["uw"]}
        near = names("--on", str(pool), "--where", 'NearestStorage.Name == "nestore.bologna"')
        assert near == ["found", "infn"], "measured, since the expression asks for it"
        assert names("--on", str(pool), "--stores") == ["nest.wisc", "nestore.bologna"]
        flag = tmp_path / "go"
        command = f"while [ ! -e {flag} ]; do sleep 0.1; done; echo {{line}}"
        words = [*SERAI, "run", command, "--each", "1..4", "--on", str(pool), "--show", "none"]
        words += ["--requirements", data, "--rank", rank, "--time-limit", "200s"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as run, open_adverts() as adverts:
            until(lambda: len(adverts.list("/nodes", recursive=True)) == 3, "they are advertised")
            of_file = names("--where", 'NearestStorage.Name == "nest.wisc" && NearestStorage.HasCMSData')
            assert of_file == ["uw"], "also where only the pool file tells of the store"
            assert names("--stores", "--where", 'Community == "uw"') == ["nest.wisc"]
            assert "infn" in names("--where", f'{data} && NearestStorage.Name == "nestore.bologna"')
            # By now it has one, whichever checked in first: two others run one each, and what waits is called back.
            flag.touch()
            assert run.wait(90) == 0
            assert adverts.list("/nodes", recursive=True) == [], "its ads went with it"
            assert adverts.list("/declared", recursive=True) == [], "and its stores'"
    ended = json.loads(serai("status", "--json").stdout)
    done = {node["name"]: node["done"] for node in ended["nodes"]}
    assert done["infn"] >= 1
    assert done["uw"] + done["infn"] + done["found"] == 4


def test_explain_says_which_clause_rejects_which_node_and_what_would_fit(tmp_path: Path) -> None:
    pool = tmp_path / "pool.toml"
    pool.write_text("""
[[site]]
url = "local://a?slots=1"
memory = "2GB"
attributes = { Mips = 600 }
[[site]]
url = "local://b?slots=1"
memory = "1GB"
requirements = 'Owner == "nobody-of-this-name"'
""")
    words = ["--requirements", "Memory > 4000 && Mips > 500", "--on", str(pool), "--show", "none"]
    done = serai("run", "echo {line}", "--each", "1..1", *words)
    assert done.returncode == 1
    told = " ".join(serai("explain", "1").stdout.split())
    for sentence in (
        "It failed (needs): no node of the pool can run it.",
        "It requires Memory > 4000, which is false on a and b; the largest Memory here is 1907.",
        "It requires Mips > 500, and b does not say what that is; Mips here is 600.",
        'b requires of its tasks Owner == "nobody-of-this-name", and Owner is "',
        "Without Memory > 4000, a would run it.",
    ):
        assert sentence in told


def test_requirements_that_are_none_start_nothing() -> None:
    done = serai("run", "echo", "--rank", "Memory and")
    assert done.returncode == 2
    assert "--rank: not a ClassAd expression at character 8: 'and'" in done.stderr
    assert not list(Path(os.environ["SERAI_STATE"]).glob("runs/*"))
