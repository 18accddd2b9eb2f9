"""Who may do what; tokens expire by a clock that is set."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING

import pytest

from serai.data.appliance.keys import Keys
from serai.data.appliance.rights import (
    ALL,
    ANYBODY,
    Grant,
    Identity,
    letters,
    parse_rights,
    rights_at,
    rights_below,
)
from serai.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ANN = Identity("ann")
R, W = parse_rights("r"), parse_rights("w")


def test_rights_are_written_as_they_are_read() -> None:
    for text in ("r", "rw", "w", "l", "lw", "a", ""):
        assert letters(parse_rights(text)) == text
    assert parse_rights("read,write") == {"read", "write"}
    assert parse_rights("admin") == ALL
    with pytest.raises(UsageError):
        parse_rights("x")


def test_a_token_holds_below_its_path_only() -> None:
    who = Identity("ann", (b"cms",), R)
    assert rights_at(who, [], (b"cms", b"x")) == R
    for path in ((), (b"cmsx",), (b"other",)):
        assert not rights_at(who, [], path)


def test_the_longest_path_decides_and_adds_nothing_to_the_token() -> None:
    grants = [Grant("ann", (), R), Grant("ann", (b"cms",), R | W), Grant("ann", (b"cms", b"raw"), frozenset())]
    assert rights_at(ANN, grants, (b"x",)) == R
    assert rights_at(ANN, grants, (b"cms", b"y")) == R | W
    assert not rights_at(ANN, grants, (b"cms", b"raw", b"z"))
    assert rights_at(Identity("ann", (), R), grants, (b"cms",)) == R
    assert rights_at(Identity("bob"), grants, (b"cms",)) == ALL
    assert not rights_below(ANN, grants, (b"cms",))
    assert rights_below(ANN, grants, (b"x",)) == R


def test_who_has_a_line_elsewhere_only_may_nothing_here() -> None:
    grants = [Grant("ann", (b"cms",), R)]
    assert not rights_at(ANN, grants, (b"x",))
    assert rights_at(ANN, [*grants, Grant(ANYBODY, (), R)], (b"x",)) == R


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(str(tmp_path / "access.json"))


def test_a_token_is_good_until_it_expires(keys: Keys, tmp_path: Path) -> None:
    text, token = keys.make_token("ann", "/cms", "rw", 2000, 1000)
    found = keys.identify(f"Bearer {text}", 1999)
    assert found == Identity("ann", (b"cms",), R | W)
    assert keys.identify(f"bearer  {text}", 1000) == found
    basic = base64.b64encode(f"whoever:{text}".encode()).decode()
    assert keys.identify(f"Basic {basic}", 1000) == found
    assert keys.identify(f"Bearer {text}", 2000) is None
    secret = text.rpartition(token.name)[2][1:]
    path = tmp_path / "access.json"
    assert secret not in path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    "said", [None, "", "Bearer", "Bearer x", "Basic !", "Basic eA==", "Digest x", "Bearer sst_000000000000_" + "A" * 43]
)
def test_anything_else_is_nobody(keys: Keys, said: str | None) -> None:
    text, _ = keys.make_token("ann", "/", "a", 2000, 1000)
    assert keys.identify(said, 1000) is None
    assert keys.identify(f"Bearer {text[:-1]}", 1000) is None
    assert keys.identify(f"Bearer {text[:-1]}{'A' if text[-1] != 'A' else 'B'}", 1000) is None


def test_another_process_revokes(keys: Keys, tmp_path: Path) -> None:
    text, token = keys.make_token("ann", "/", "a", 2000, 1000)
    other = Keys(str(tmp_path / "access.json"))
    assert other.identify(f"Bearer {text}", 1000) is not None
    assert other.revoke(token.name) == 1
    assert keys.identify(f"Bearer {text}", 1000) is None
    other.allow("bob", "/x", "r")
    other.limit("bob", 100)
    keys.refresh()
    assert keys.grants == [Grant("bob", (b"x",), R)]
    assert keys.quotas == {"bob": 100}


@pytest.mark.parametrize(("user", "path"), [("", "/"), ("a b", "/"), ("-x", "/"), ("ann", "cms"), ("ann", "/../x")])
def test_what_cannot_be_is_refused(keys: Keys, user: str, path: str) -> None:
    with pytest.raises(UsageError):
        keys.make_token(user, path, "r", 2000, 1000)
