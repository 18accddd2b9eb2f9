"""MRDL: the published form is read as it is, and every mistake is named with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serai.describe.mapreduce import Binaries, Commands, HostSpec, Session, adverts_url, read_toml, worker_site
from serai.describe.mrdl import read_mrdl
from serai.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """<?xml version="1.0" encoding="ISO-8859-1"?>
<MRDL>
  <MapReduceSession name="wordcount" version="1.0" user="me" priority="2" experimentID="x1" eventLevel="info">
    <OrchestratorDB><Host>advert://db.example.org/saga</Host></OrchestratorDB>
    <TargetHosts>
      <Host arch="i686" OS="Linux">fork://localhost</Host>
      <Host arch="amd64" OS="linux" workers="3">ssh://lab1</Host>
      <Host arch="any" OS="any" slots="2">any://me@lab2/</Host>
    </TargetHosts>
    <ApplicationBinaries>
      <BinaryImage arch="i386" OS="linux" extraArgs="--fold 'a b'">/opt/wordcount32</BinaryImage>
      <BinaryImage arch="x86_64" OS="linux">bin/wordcount</BinaryImage>
    </ApplicationBinaries>
    <OutputPrefix>out/wc-</OutputPrefix>
    <ApplicationFiles>
      <File>texts/*.txt</File>
      <File>ssh://lab1/data/b.txt</File>
      <File>  /abs/c.txt  </File>
    </ApplicationFiles>
  </MapReduceSession>
</MRDL>
"""


def read(tmp_path: Path, text: str, *, name: str = "s.xml") -> Session:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    return read_mrdl(str(path)) if name.endswith(".xml") else read_toml(str(path))


def mistakes(tmp_path: Path, text: str, *, name: str = "s.xml") -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text, name=name)
    return str(caught.value)


def test_the_published_form_is_read(tmp_path: Path) -> None:
    it = read(tmp_path, GOOD)
    assert it.name == "wordcount"
    assert it.facts == {"version": "1.0", "user": "me", "priority": "2", "experimentID": "x1", "eventLevel": "info"}
    assert it.adverts == "postgresql://db.example.org/saga"
    assert [(str(host.site.url), host.workers, host.os, host.arch) for host in it.hosts] == [
        ("local:", None, "linux", "i386"),
        ("ssh://lab1", 3, "linux", "x86_64"),
        ("ssh://me@lab2", 2, "any", "any"),
    ]
    assert isinstance(it.program, Binaries)
    assert it.program.images[0].arguments == ("--fold", "a b")
    assert it.program.images[1].path == str(tmp_path / "bin/wordcount")
    assert not it.program.combine
    assert (it.output, it.prefix) == (str(tmp_path / "out"), "wc-")
    assert it.inputs == (str(tmp_path / "texts/*.txt"), "ssh://lab1/data/b.txt", "/abs/c.txt")
    assert it.partitions is None


def test_the_image_is_chosen_by_system_and_processor(tmp_path: Path) -> None:
    program = read(tmp_path, GOOD).program
    assert isinstance(program, Binaries)
    chosen = [program.image_for("linux", arch) for arch in ("i386", "x86_64", "aarch64", "any")]
    assert [one and one.path.rpartition("/")[2] for one in chosen] == ["wordcount32", "wordcount", None, "wordcount32"]


def test_our_own_attributes(tmp_path: Path) -> None:
    it = read(tmp_path, GOOD.replace('name="wordcount"', 'name="wordcount" Reducers="7" combine="yes"'))
    assert it.partitions == 7
    assert isinstance(it.program, Binaries)
    assert it.program.combine


BAD = {
    "a misspelt element": ("<OutputPrefix>out/wc-</OutputPrefix>", "<OutputPrefiks>o</OutputPrefiks>", 14,
                           "did you mean OutputPrefix?"),
    "a misspelt attribute": ('arch="amd64"', 'arhc="amd64"', 7, "did you mean arch?"),
    "a lower case one": ('OS="linux" workers', 'os="linux" workers', 7, "has no attribute os"),
    "no OS": (' OS="Linux"', "", 6, "<Host> has no OS"),
    "no image for a host": ('arch="amd64"', 'arch="arm64"', 7, "no <BinaryImage> runs on linux aarch64"),
    "an empty host": ("ssh://lab1<", " <", 7, "<Host> is empty"),
    "a host that is no URL": ("ssh://lab1<", "lab1<", 7, "did you mean ssh://lab1?"),
    "a fork elsewhere": ("fork://localhost", "fork://lab3", 6, "did you mean ssh://lab3?"),
    "a way without workers": ("ssh://lab1<", "gram://lab1<", 7, "workers cannot be started over gram:"),
    "a password": ("ssh://lab1<", "ssh://me:secret@lab1<", 7, "holds no password"),
    "workers that are none": ('workers="3"', 'workers="0"', 7, "workers: expected a whole number from 1 to 1000"),
    "too few to leave out": (' name="wordcount"', ' name="w" skip="-1"', 3, "skip: expected a whole number from 0"),
    "workers twice": ('workers="3"', 'workers="3" slots="3"', 7, "they mean the same"),
    "no name": (' name="wordcount"', "", 3, "<MapReduceSession> has no name"),
    "a priority that is none": ('priority="2"', 'priority="high"', 3, "priority: expected a whole number"),
    "text where none belongs": ("<TargetHosts>", "<TargetHosts>lab1", 5, "<TargetHosts> holds text: 'lab1'"),
    "an open quote": ("--fold 'a b'", "--fold 'a b", 11, "close every quote"),
    "an image elsewhere": (">bin/wordcount", ">ssh://lab1/wordcount", 12, "is not on this machine"),
    "two prefixes": ("<OutputPrefix>", "<OutputPrefix>a</OutputPrefix>\n<OutputPrefix>", 15, "a second <OutputPrefix>"),
    "a database that is none": ("advert://db.example.org/saga", "ldap://x", 4, "there is no advert service over ldap:"),
    "not closed": ("</TargetHosts>", "", 20, "<TargetHosts> of line 5 is open"),
    "an ampersand": ("texts/*.txt", "a&b", 16, "not XML"),
    "a document type": ("<MRDL>", '<!DOCTYPE MRDL [<!ENTITY a "b">]>\n<MRDL>', 2, "a document type"),
    "another root": ("MRDL>", "JSDL>", 2, "the root is <JSDL>"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    old, new, line, words = BAD[case]
    assert old in GOOD
    text = GOOD.replace(old, new) if case == "another root" else GOOD.replace(old, new, 1)
    said = mistakes(tmp_path, text)
    assert f"line {line}: " in said
    assert words in said
    assert "secret" not in said


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('OS="Linux"', "").replace("ssh://lab1<", "lab1<").replace("<File>texts/*.txt</File>", "<File/>")
    said = mistakes(tmp_path, text)
    assert said.splitlines()[0].endswith("s.xml has 3 mistakes")
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["  line 6", "  line 7", "  line 16"]


@pytest.mark.parametrize("name", ["TargetHosts", "ApplicationBinaries", "ApplicationFiles", "OutputPrefix"])
def test_what_must_be_there(tmp_path: Path, name: str) -> None:
    first = GOOD.index(f"<{name}>")
    text = GOOD[:first] + GOOD[GOOD.index(f"</{name}>") + len(name) + 3 :]
    assert f"line 3: <MapReduceSession> has no <{name}>" in mistakes(tmp_path, text)


def test_what_is_too_deep_or_too_large_is_refused(tmp_path: Path) -> None:
    assert "more than 16 elements in each other" in mistakes(tmp_path, "<MRDL>" * 100)
    assert "which no description is" in mistakes(tmp_path, "<MRDL>" + " " * (5 << 20))
    assert "no element found" in mistakes(tmp_path, "")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nonesuch\.xml: No such file"):
        read_mrdl(str(tmp_path / "nonesuch.xml"))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("db1", "postgresql://db1/serai"),
        ("db1:5433", "postgresql://db1:5433/serai"),
        ("advert://db1:5433/saga", "postgresql://db1:5433/saga"),
        ("postgresql://me@db1/x", "postgresql://me@db1/x"),
        ("sqlite:", "sqlite:"),
        ("sqlite:/a/b.db", "sqlite:/a/b.db"),
        ("sqlite:b.db", "sqlite:home/b.db"),
    ],
)
def test_databases(text: str, url: str) -> None:
    assert adverts_url(text, "home") == url


@pytest.mark.parametrize("text", ["local:", "fork://localhost/", "any://localhost", "local://127.0.0.1"])
def test_this_machine_has_many_names(text: str) -> None:
    assert worker_site(text).url.scheme == "local"
    assert worker_site(text).scratch is None


TOML = """\
[mapreduce]
mapper = "./split.awk"
reducer = "uniq -c"
combiner = "uniq"
inputs = ["texts/*.txt", "ssh://lab1/data"]
output = "out"
partitions = 4
send = ["split.awk"]
adverts = "sqlite:ads.db"

[[hosts]]
url = "ssh://lab1"
workers = 2
ssh_config = "conf"

[[hosts]]
url = "local:?slots=3"
"""


def test_toml_says_the_same(tmp_path: Path) -> None:
    it = read(tmp_path, TOML, name="job.toml")
    home = str(tmp_path)
    assert it.program == Commands("./split.awk", "uniq -c", "uniq", (f"{home}/split.awk",), home)
    assert it.name == "job"
    assert [(str(host.site.url.scheme), host.workers) for host in it.hosts] == [("ssh", 2), ("local", 3)]
    assert it.hosts[0].site.ssh_config == f"{home}/conf"
    assert it.inputs == (f"{home}/texts/*.txt", "ssh://lab1/data")
    assert (it.output, it.partitions, it.adverts) == (f"{home}/out", 4, f"sqlite:{home}/ads.db")


def test_toml_may_name_a_pool(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('[[site]]\nurls = ["ssh://a", "ssh://b?slots=2"]\n')
    text = TOML.split("[[hosts]]", maxsplit=1)[0] + 'pool = "lab.toml"\n'
    assert [host.workers for host in read(tmp_path, text, name="j.toml").hosts] == [None, 2]
    (tmp_path / "lab.toml").write_text('[[site]]\nurl = "dask://a:1"\n')
    assert "line 11: pool: workers of MapReduce cannot be started at dask://a:1" in mistakes(
        tmp_path, text, name="j.toml"
    )


def test_without_hosts_it_is_this_machine(tmp_path: Path) -> None:
    it = read(tmp_path, TOML.split("[[hosts]]", maxsplit=1)[0], name="job.toml")
    assert it.hosts == (HostSpec(worker_site("local:")),)


@pytest.mark.parametrize("count", [0, 5])
def test_splits_that_may_be_left_out(tmp_path: Path, count: int) -> None:
    """None by default, which a file may say as well."""
    assert read(tmp_path, TOML, name="job.toml").skip == 0
    assert read(tmp_path, TOML.replace("partitions = 4", f"skip = {count}"), name="job.toml").skip == count
    assert read(tmp_path, GOOD.replace(' name="wordcount"', f' name="w" skip="{count}"')).skip == count


BAD_TOML = {
    "unknown key": ("partitions = 4", "partition = 4", 7, "did you mean partitions?"),
    "not a number": ("partitions = 4", 'partitions = "x"', 7, "partitions: expected a whole number"),
    "too few to leave out": ("partitions = 4", "skip = -1", 7, "skip: expected a whole number from 0 to 10000"),
    "no mapper": ('mapper = "./split.awk"\n', "", 1, "there is no mapper"),
    "empty list": ('["texts/*.txt", "ssh://lab1/data"]', "[]", 5, "expected a list of texts"),
    "unknown table": ('[[hosts]]\nurl = "ssh', '[[host]]\nurl = "ssh', 11, "did you mean hosts?"),
    "one bracket": ('[[hosts]]\nurl = "ssh://lab1"\nworkers = 2\nssh_config = "conf"\n\n[[hosts]]',
                    "[hosts]", 11, "write [[hosts]], with two brackets"),
    "host without url": ('url = "ssh://lab1"\n', "", 11, "the host has no url"),
    "host over dask": ('ssh://lab1"\nworkers', 'dask://lab1:1"\nworkers', 12, "cannot be started over dask:"),
    "bad workers": ("workers = 2", "workers = 0", 13, "workers: expected a whole number"),
    "not TOML": ("partitions = 4", "partitions = ", 7, "line 7"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TOML)
def test_a_mistake_in_toml_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    old, new, line, words = BAD_TOML[case]
    assert old in TOML
    said = mistakes(tmp_path, TOML.replace(old, new, 1), name="job.toml")
    assert f"line {line}" in said
    assert words in said
