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
        ('[[site]]\nurl = "local:"\n[store]\nname = "s"', "write [[store]], with two brackets"),
    ],
)
def test_mistakes_have_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PoolFileError) as caught:
        read(tmp_path / "p.toml", text)
    assert said in str(caught.value)


def test_a_url_may_say_it_too() -> None:
    site = site_from_url("ssh://a?community=uw&requirements=TARGET.RequestCpus%20%3C%203")
    assert site.requirements == "TARGET.RequestCpus < 3"
    with pytest.raises(UsageError, match="requirements: not a ClassAd expression"):
        site_from_url("ssh://a?requirements=a%20b")
