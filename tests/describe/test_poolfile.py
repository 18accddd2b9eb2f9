"""Pool files, and sites named on the command line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.describe.poolfile import PoolFile, SiteSpec, read_pool_file, site_from_url, sites_from, with_home_calling
from serai.describe.tomlplaces import places_of
from serai.errors import PoolFileError, UsageError
from serai.session.url import Url

WHOLE = """\
[pool]                      # all optional
name = "lab"
scratch = "/scratch/me"
retries = 2
heartbeat = "2s"

[[site]]
url = "ssh://lab1"
slots = 4
python = "python3.9"
scratch = "/tmp"
ssh_config = "ssh_config"
memory = "4GB"
linger = "10m"

[[site]]
urls = [
  "ssh://lab2?slots=8",     # ] a comment
  "ssh://me@lab3:2222/own",
]
slots = 2

[[site]]
url = "dask+tls://h:8786?ca=ca.pem"
"""


def _write(folder: Path, text: str) -> str:
    path = folder / "lab.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_slash_at_the_end_of_a_url_names_no_directory() -> None:
    assert site_from_url("ssh://lab1/").scratch is None
    assert site_from_url("ssh://lab1/tmp").scratch == "/tmp"
    assert site_from_url("ssh://lab1/?scratch=/").scratch == "/"


def test_a_pool_file_that_is_misspelt_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.toml").touch()
    with pytest.raises(UsageError) as caught:
        sites_from(["lab.tml"])
    assert caught.value.hint == "did you mean lab.toml or ssh://lab.tml?"


def test_a_whole_pool_file(tmp_path: Path) -> None:
    path = _write(tmp_path, WHOLE)
    assert read_pool_file(path) == PoolFile(
        path=path,
        name="lab",
        scratch="/scratch/me",
        retries=2,
        heartbeat_s=2.0,
        sites=(
            SiteSpec(
                Url("ssh", host="lab1"), 4, "python3.9", "/tmp", str(tmp_path / "ssh_config"), 4_000_000_000, 600.0
            ),
            SiteSpec(Url("ssh", host="lab2", query={"slots": "8"}), slots=8, scratch="/scratch/me"),
            SiteSpec(Url("ssh", "me", "lab3", 2222, "/own"), slots=2, scratch="/own"),
            SiteSpec(Url("dask+tls", host="h", port=8786, query={"ca": "ca.pem"}), scratch="/scratch/me"),
        ),
    )


def test_a_small_pool_file_is_named_after_its_file(tmp_path: Path) -> None:
    pool = read_pool_file(_write(tmp_path, "[[site]]\r\nurl = 'local:'\r\nssh_config='~/c'\r\n"))
    assert (pool.name, pool.retries, pool.heartbeat_s, pool.scratch) == ("lab", None, None, None)
    assert pool.sites == (SiteSpec(Url("local"), ssh_config="~/c"),)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ('[pool]\nname = "x"\nretires = 2\n', "line 3: retires: unknown key", "did you mean retries?"),
        ("[pol]\n", "line 1: pol: unknown key", "did you mean pool?"),
        ('\n[[site]]\nurl = "local:"\n\n[[site]]\n# slot = 1\nurl = "local:"\nslot = 4\n',
         "line 8: slot: unknown key", "did you mean slots?"),
        ('[[site]]\nhost = "lab1"\n', "line 2: host: unknown key", "did you mean url?"),
        ('[[site]]\nurl = "local:"\ncores = 4\n', "line 3: cores: unknown key", "did you mean slots?"),
        ('[[site]]\nurl = "local:"\nmemory = "4"\n', "line 3: memory: no task can do with 4 bytes", '"4GB"'),
        ('[[site]]\nurl = "local:"\nzzz = 4\n', "line 3: zzz: unknown key", "the keys here are url, urls, slots"),
        ('[[site]]\nurl = "local:"\nslots = "4"\n', "line 3: slots: expected a whole number from 1", "without quotes"),
        ('[[site]]\nurl = "local:"\nslots = true\n', "line 3: slots: expected a whole number", ""),
        ('[[site]]\nurl = "local:"\nslots = 0\n', "line 3: slots: expected a whole number", ""),
        ('[[site]]\nurl = "local:"\nmemory = 4\n', "line 3: memory: expected a size", "4GB"),
        ('[[site]]\nurl = "local:"\nmemory = "4G"\n', "line 3: memory: '4G' is not a size", "4GB"),
        ('[[site]]\nurl = "local:"\nlinger = "x"\n', "line 3: linger: 'x' is not a duration", "10m"),
        ('[[site]]\nurl = "local:"\npython = 3.9\n', "line 3: python: expected a text", "quotes"),
        ("[pool]\nheartbeat = 2\n", "line 2: heartbeat: expected a duration", "2s"),
        ("[pool]\nretries = -1\n", "line 2: retries: expected a whole number from 0 on", ""),
        ("[[site]]\nslots = 1\n", "line 1: the site has neither", "urls"),
        ('[[site]]\nurl = "local:"\n[[site]]\nurl = "local:"\nurls = []\n', "line 3: the site has both", ""),
        ("[[site]]\nurl = 1\n", "line 2: url: expected a text", ""),
        ("[[site]]\nurls = [1]\n", "line 2: urls: expected a list of texts", ""),
        ("[[site]]\nurls = []\n", "line 2: urls: expected a list of texts", ""),
        ('[[site]]\nurl = "lab1"\n', "line 2: url: 'lab1' has no scheme", "ssh://HOST"),
        ('[[site]]\nurl = "ssh://lab1?slot=3"\n', "line 2: url: unknown option 'slot'", "'slots'"),
        ('[site]\nurl = "local:"\n', "line 1: site: expected a list of tables", "[[site]]"),
        ("pool = 3\n", "line 1: pool: expected a table", "[pool]"),
        ('\n\npool = { name = "x",  nme = 3 }\n', "line 3: nme: unknown key", "name"),
        ('pool.name = "x"\npool.nme = "y"\n', "line 2: nme: unknown key", "name"),
        ('[[site]]\nurl = """\nlocal:"""\nslot = 1\n', "line 4: slot: ", "slots"),
        ('[[site]]\npython = """\nslot = 1\n"""\nurl = \'local:\'\n"slot" = 1\n', "line 6: slot: unknown key", "slots"),
        ('[[site]]\nurl = "local:"\n[site.extra]\nx = 1\n', "line 3: extra: unknown key", ""),
        ('[[site]]\nurl = "local:\n', "at line 2", ""),
        ('[[site]]\nurl = "local:"\nurl = "local:"\n', "at line 3", ""),
        ("[pool]\n", "there is no site", "[[site]]"),
        ("", "there is no site", ""),
    ],
)  # fmt: skip
def test_a_mistake_names_line_key_and_what_is_right(tmp_path: Path, text: str, says: str, hint: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(PoolFileError) as caught:
        read_pool_file(path)
    assert caught.value.what.startswith(path)
    assert says in caught.value.what
    assert hint in str(caught.value.hint)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PoolFileError, match="No such file"):
        read_pool_file(str(tmp_path / "gone.toml"))
    (tmp_path / "latin.toml").write_bytes(b"[pool]\nname = '\xe9'\n")
    with pytest.raises(PoolFileError, match="line 2: not UTF-8"):
        read_pool_file(str(tmp_path / "latin.toml"))


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("local:", SiteSpec(Url("local"))),
        ("local:?slots=2", SiteSpec(Url("local", query={"slots": "2"}), slots=2)),
        ("ssh://h/s", SiteSpec(Url("ssh", host="h", path="/s"), scratch="/s")),
        (
            "ssh://h?memory=1GiB&linger=1m&python=p&ssh_config=c&scratch=/s",
            SiteSpec(
                Url(
                    "ssh",
                    host="h",
                    query={"memory": "1GiB", "linger": "1m", "python": "p", "ssh_config": "c", "scratch": "/s"},
                ),
                None, "p", "/s", "c", 1024**3, 60.0,
            ),
        ),
    ],
)  # fmt: skip
def test_sites_from_urls(text: str, site: SiteSpec) -> None:
    assert site_from_url(text) == site


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ssh://h?slots=x", "slots: expected a whole number"),
        ("ssh://h?slots=0", "slots: expected a whole number"),
        ("ssh://h?memory=4000000", None),
        ("ssh://h?memory=4", "memory: no task can do with 4 bytes"),
        ("ssh://h?memory=x", "memory: 'x' is not a size"),
        ("ssh://h?ca=x", "unknown option 'ca'"),
        ("ssh://h/a?scratch=/b", "two scratch"),
        ("ssh:h", "names no host"),
        ("ssh:///s", "names no host"),
        ("ssh://h?python=", "python: expected a text"),
    ],
)
def test_mistakes_in_urls(text: str, says: str | None) -> None:
    if says is None:
        assert site_from_url(text).memory_bytes == 4_000_000
        return
    with pytest.raises(UsageError, match=says):
        site_from_url(text)


def test_what_on_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, WHOLE)
    assert [site.url.host for site in sites_from(["ssh://a", path, "local:"])] == [
        "a",
        "lab1",
        "lab2",
        "lab3",
        "h",
        None,
    ]
    assert sites_from([]) == ()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").write_text('[[site]]\nurl = "local:"\n', encoding="utf-8")
    assert len(sites_from(["lab"])) == 1


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lab1", "ssh://lab1"),
        ("me@lab1", "ssh://me@lab1"),
        ("lab1:2222", "ssh://lab1:2222"),
        ("ssh:lab1", "ssh://lab1"),
        ("local", "local:"),
        ("gone.toml", ".toml"),
        ("d/gone", ".toml"),
        ("", ".toml"),
    ],
)
def test_a_word_that_is_neither(word: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        sites_from([word])
    assert hint in str(caught.value.hint)


def test_places_of_keys() -> None:
    text = """\
# a = 1
a = [ # [
  1, "]", '''
b = 2
'''
]
"b c".d = { x = 1, y = ["}"] }
[[t]]
e = \"\"\"x\\\"\"\"\"\"
[[t]]
f = 1979-05-27 07:32:00 # a date
[t.u]
g = ''
[[ t . v ]]
[[t.v]]
h = 1"""
    assert places_of(text) == {
        ("a",): 2,
        ("b c",): 7,
        ("b c", "d"): 7,
        ("t",): 8,
        ("t", 0): 8,
        ("t", 0, "e"): 9,
        ("t", 1): 10,
        ("t", 1, "f"): 11,
        ("t", 1, "u"): 12,
        ("t", 1, "u", "g"): 13,
        ("t", 1, "v"): 14,
        ("t", 1, "v", 0): 14,
        ("t", 1, "v", 1): 15,
        ("t", 1, "v", 1, "h"): 16,
    }


_values = st.sampled_from(
    [
        "1",
        '"x"',
        "'#'",
        '"\\""',
        '"""\nk9 = 1\n"""',
        "'''\n[[t]]'\n'''",
        "[\n1,\n[2], # ]\n]",
        "{ z = ']' }",
        "true",
        '""',
        '"""a""\\""""',
        "''''x''''",
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["", "\n", "# k0 = 1\n", "[[t]]\n"]), _values), max_size=8))
def test_places_are_those_where_keys_were_written(entries: list[tuple[str, str]]) -> None:
    text, table, expected = "", -1, {}
    for number, (before, value) in enumerate(entries):
        text += before
        table += before == "[[t]]\n"
        at = () if table < 0 else ("t", table)
        expected[*at, f"k{number}x"] = text.count("\n") + 1
        text += f"k{number}x = {value}\n"
    found = places_of(text)
    assert {key: found.get(key) for key in expected} == expected


@given(st.lists(st.sampled_from([*"ab=.[]{}\"'#\n ,\\1", "[[", "a = ", '"""', "'''", "t"]), max_size=20).map("".join))
def test_places_follow_whatever_is_toml(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert {key[0] for key in places_of(text)} == set(data)


def test_home_calling_is_of_sites_that_ssh_reaches(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(
        '[pool]\nhome_calling = "files"\n[[site]]\nurls = ["ssh://a", "local:", "ssh://b?home_calling=shell"]\n'
        '[[site]]\nurl = "ssh://c"\nhome_calling = "shell"\n'
    )
    assert [site.home_calling for site in read_pool_file(str(path)).sites] == ["files", None, "shell", "shell"]
    sites = with_home_calling(sites_from(["ssh://a", "local:", "ssh://b?home_calling=shell"]), "files")
    assert [site.home_calling for site in sites] == ["files", None, "shell"]
    for text in ("local:?home_calling=files", "ssh://a?home_calling=yes"):
        with pytest.raises(UsageError):
            site_from_url(text)
    path.write_text('[[site]]\nurl = "local:"\nhome_calling = "files"\n')
    with pytest.raises(PoolFileError, match="cannot call home"):
        read_pool_file(str(path))
