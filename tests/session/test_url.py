"""URLs of sites."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.errors import UsageError
from serai.session.url import Url

FORMS = [
    ("local:", Url("local")),
    ("local:?slots=2", Url("local", query={"slots": "2"})),
    ("local:/tmp/x", Url("local", path="/tmp/x")),
    ("ssh://lab1", Url("ssh", host="lab1")),
    (
        "ssh://user@host:2222/scratch?python=python3.9&slots=4",
        Url("ssh", "user", "host", 2222, "/scratch", {"python": "python3.9", "slots": "4"}),
    ),
    ("dask://scheduler:8786", Url("dask", host="scheduler", port=8786)),
    ("dask+tls://h:8786?ca=/etc/ca.pem", Url("dask+tls", host="h", port=8786, query={"ca": "/etc/ca.pem"})),
    ("ssh://me@[2001:db8::7]:22/s", Url("ssh", "me", "2001:db8::7", 22, "/s")),
    ("ssh://[fe80::1%25eth0]", Url("ssh", host="fe80::1%eth0")),
    ("ssh://me%40corp.org@Lab_1/a%20b", Url("ssh", "me@corp.org", "Lab_1", None, "/a b")),
]


@pytest.mark.parametrize(("text", "url"), FORMS)
def test_forms_are_read_and_written(text: str, url: Url) -> None:
    assert Url.parse(text) == url
    assert str(url) == text
    assert hash(Url.parse(text)) == hash(url)
    assert pickle.loads(pickle.dumps(url)) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lab1", "no scheme"),
        ("", "no scheme"),
        ("ssh://-oProxyCommand=x", "host"),
        ("ssh://-l@host", "user"),
        ("ssh://a b", "character"),
        ("ssh://a%2", "character"),
        ("ssh://a\n", "character"),
        ("ssh://h/a#b", "character"),
        ("ssh://h:0", "port"),
        ("ssh://h:65536", "port"),
        ("ssh://h:x", "port"),
        ("ssh://h:", "port"),
        ("ssh://::1", "host"),
        ("ssh://[::1", "host"),
        ("ssh://[::1]x", "host"),
        ("ssh://me@", "host"),
        ("ssh://h%0A", "host"),
        ("ssh://h?slots", "no value"),
        ("ssh://h?slots=1&slots=2", "twice"),
    ],
)
def test_what_is_no_url(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Url.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://me:hunter2@host",
        "ssh://me%3Ahunter2@host",
        "ssh://me:a@hunter2@host",
        "ssh://me:/hunter2@host",
        "ssh://me:x?hunter2@host",
        "ssh://me:hunter2@host:99999",
        "ssh://host?password=hunter2",
        "ssh://host:x?slots=1&password=hunter2",
        "ssh://me: hunter2@host",
        "//me:hunter2@host",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Url.parse(text)
    assert "hunter2" not in str(caught.value)


def test_the_refusal_of_a_password_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="holds no password") as caught:
        Url.parse("ssh://me:hunter2@host")
    assert "ssh-copy-id" in str(caught.value.hint)
    with pytest.raises(UsageError, match="holds no password") as caught:
        Url.parse("postgresql://me:hunter2@host/serai")
    assert "~/.pgpass" in str(caught.value.hint)


def test_options_name_the_nearest_right_one() -> None:
    url = Url.parse("ssh://h?slot=4")
    with pytest.raises(UsageError, match="unknown option 'slot'") as caught:
        url.options(frozenset({"slots", "python"}))
    assert "'slots'" in str(caught.value.hint)
    assert Url.parse("ssh://h?slots=4").options(frozenset({"slots"})) == {"slots": "4"}
    with pytest.raises(UsageError) as caught:
        Url.parse("local:?zzz=4").options(frozenset({"slots"}))
    assert caught.value.hint == "known: slots"


_text = st.text(max_size=12)
_bytes = st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
_keys = st.text("abcxyz_+é &=%", min_size=1, max_size=6)


@given(
    user=st.none() | st.from_regex(r"[a-zé@\\][a-z@é\\%/?-]{0,6}", fullmatch=True),
    host=st.sampled_from(["lab1", "10.0.0.1", "::1", "fe80::1%eth0", "a-b.c_d", "München"]),
    port=st.none() | st.integers(1, 65535),
    path=(_text | _bytes).map(lambda text: "/" + text) | st.just(""),
    query=st.dictionaries(_keys, _text | _bytes, max_size=3),
)
def test_what_is_written_is_read_back(
    user: str | None, host: str, port: int | None, path: str, query: dict[str, str]
) -> None:
    url = Url("ssh", user, host, port, path, query)
    assert Url.parse(str(url)) == url


@given(path=_text | _bytes, query=st.dictionaries(_keys, _text, max_size=3))
def test_what_has_no_host_is_read_back(path: str, query: dict[str, str]) -> None:
    url = Url("local", path=path, query=query)
    assert Url.parse(str(url)) == url


@given(st.text(max_size=30))
def test_any_text_is_a_url_or_a_usage_error(text: str) -> None:
    try:
        url = Url.parse(text)
    except UsageError:
        return
    assert Url.parse(str(url)) == url
