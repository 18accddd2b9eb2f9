"""What pool files say of stores, communities and nodes' own requirements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serai.describe.ads.stores import declared, stores_of
from serai.describe.poolfile import read_pool_file, site_from_url
from serai.errors import PoolFileError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[[store]]
name = "nestore.bologna"
url = "store://bologna:9094/"
community = "bologna"
HasCMSData = true
attributes = { Mips = 1 }

[[store]]
name = "nest.wisc"

[[site]]
urls = ["ssh://a", "ssh://b?nearest_storage=nest.wisc"]
community = "bologna"
requirements = 'TARGET.Owner == "ann"'
attributes = { Mips = 750, Night = "=ClockHour > 20" }
"""


def read(path: Path, text: str) -> None:
    path.write_text(text)
    read_pool_file(str(path))


def test_a_community_gives_its_nodes_their_store(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(GOOD)
    found = read_pool_file(str(tmp_path / "p.toml"))
    a, b = map(declared, found.sites)
    assert a["nearest_storage"] == "nestore.bologna"
    assert b["nearest_storage"] == "nest.wisc", "what the URL says wins"
    assert a["requirements"] == 'TARGET.Owner == "ann"'
    assert a["attributes"] == {"Mips": 750, "Night": "=ClockHour > 20"}
    stores = stores_of(found.sites)
    assert stores["nestore.bologna"] == {
        "MyType": "Storage", "Name": "nestore.bologna", "AccessURLs": ["store://bologna:9094/"],
        "Community": "bologna", "HasCMSData": True, "Mips": 1,
    }  # fmt: skip
    assert stores["nest.wisc"] == {"MyType": "Storage", "Name": "nest.wisc"}
    assert declared(site_from_url("ssh://c")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[site]]\nurl = "local:"\nrequirements = "a b"', "line 3: requirements: not a ClassAd expression"),
        ('[[site]]\nurl = "local:"\nnearest_storage = "=a b"', "line 3: nearest_storage: not a ClassAd expression"),
        ('[[site]]\nurl = "local:"\nattributes = { Name = "x" }', "line 3: attributes: Name is not for a table"),
        ('[[site]]\nurl = "local:"\nattributes = { X = [[1]] }', "line 3: attributes: X: expected a text"),
        ('[[site]]\nurl = "local:"\n[[store]]\nname = "s"\n[[store]]\nname = "s"', "two stores are called s"),
        ('[[site]]\nurl = "local:"\n[[store]]\nurl = "s"', "line 3: the store has no name"),
        ('[[site]]\nurl = "local:"\nnearest_storage = "a > "', "line 3: nearest_storage: 'a > ' is neither the name"),
        ('[[site]]\nurl = "local:"\nnearest_storage = "TARGET.HasX"', "begins with ="),
        ('[[site]]\nurl = "local:"\nnearest_storage = "a/b"', "line 3: nearest_storage: no store can be called 'a/b'"),
        ('[[store]]\nname = "a > b"\n[[site]]\nurl = "local:"', "line 2: name: no store can be called"),
        (
            '[[store]]\nname = "s"\nurl = "stroe://h"',
            "line 3: url: nothing reads from stroe:\n  hint: did you mean store:",
        ),
        ('[[store]]\nname = "s"\nurl = "gopher://h"', "line 3: url: nothing reads from gopher:\n  hint: known: any,"),
        ('[[store]]\nname = "s"\nurl = "nest.wisc"', "line 3: url: 'nest.wisc' is no URL"),
        ('[[store]]\nname = "s"\nurl = "store:"', "line 3: url: store: names no host"),
        ('[[store]]\nname = "s"\nurl = "s3:///x"', "line 3: url: s3:/x names no host"),
        ('[[store]]\nname = "s"\nurl = "file:"', "line 3: url: file: names no directory"),
        ('[[store]]\nname = "s"\nurl = "store://me:pw@h"', "line 3: url: a URL holds no password"),
        (
            '[[store]]\nname = "s"\nHasX = true\nulr = "store://h"',
            "line 4: ulr: unknown key\n  hint: did you mean url?",
        ),
        ('[[store]]\nname = "s"\nHasX = [[1]]', "line 3: HasX: expected a text"),
        ('[[site]]\nurl = "local:"\n[store]\nname = "s"', "write [[store]], with two brackets"),
    ],
)
def test_mistakes_have_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PoolFileError) as caught:
        read(tmp_path / "p.toml", text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url", ["store://h:9094/", "s3://b/x?endpoint=https://h", "file:///data", "local:/data", "chirp://h", "any://h/d"]
)
def test_where_a_store_may_be(tmp_path: Path, url: str) -> None:
    read(tmp_path / "p.toml", f'[[store]]\nname = "s"\nurl = "{url}"\n[[site]]\nurl = "local:"')


def test_a_url_may_say_it_too() -> None:
    site = site_from_url("ssh://a?community=uw&requirements=TARGET.RequestCpus%20%3C%203")
    assert site.requirements == "TARGET.RequestCpus < 3"
    with pytest.raises(UsageError, match="requirements: not a ClassAd expression"):
        site_from_url("ssh://a?requirements=a%20b")
