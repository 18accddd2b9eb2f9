"""Tokens that let some files be read and no more, for machines that are not to have their owner's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from serai.data.appliance import keys as of_keys
from serai.data.appliance.keys import MOST_NARROW_S, MOST_PATHS, Keys
from serai.data.appliance.rights import ANYBODY, READ, Grant, Identity, parse_rights, rights_at
from serai.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.store.conftest import Store

X, Y = (b"d", b"x"), (b"d", b"y")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(str(tmp_path / "access.json"))


def known(keys: Keys, text: str, now: float = 1000) -> Identity:
    found = keys.identify(f"Bearer {text}", now)
    assert found is not None
    return found


def test_it_lets_its_files_be_read_and_no_more(keys: Keys) -> None:
    text, _ = keys.make_token("ann", "/", "a", 9000, 1000)
    narrow, token = keys.narrow(known(keys, text), [X], 2000, 1000)
    who = known(keys, narrow)
    everybody = [Grant(ANYBODY, (), parse_rights("rw"))]
    for grants in ([], everybody):
        assert rights_at(who, grants, X) == {READ}
        for path in ((), (b"d",), Y, (*X, b"z")):
            assert not rights_at(who, grants, path)
    assert not rights_at(who, [Grant("ann", (b"other",), parse_rights("a"))], X)  # what its owner may not, it may not
    assert keys.identify(f"Bearer {narrow}", 2000) is None
    keys.widen(known(keys, text), token.name, [Y], 3000, 1500)
    assert rights_at(known(keys, narrow, 2500), [], Y) == rights_at(known(keys, narrow, 2500), [], X) == {READ}
    assert Keys(keys.path).identify(f"Bearer {narrow}", 2500) == known(keys, narrow, 2500)


def test_it_ends_with_what_it_was_made_from(keys: Keys) -> None:
    text, parent = keys.make_token("ann", "/d", "rw", 5000, 1000)
    owner = known(keys, text)
    narrow, token = keys.narrow(owner, [X], 1e9, 1000)
    assert token.expires == 5000
    other, _ = keys.make_token("ann", "/d", "rw", 1e9, 1000)
    assert keys.narrow(known(keys, other), [X], 1e9, 1000)[1].expires == 1000 + MOST_NARROW_S
    with pytest.raises(KeyError):
        keys.widen(known(keys, other), token.name, [Y], 6000, 1000)
    assert keys.revoke(parent.name) == 2
    assert keys.identify(f"Bearer {narrow}", 1000) is None


def test_it_makes_no_others_and_has_an_end_to_its_files(keys: Keys) -> None:
    text, _ = keys.make_token("ann", "/", "r", 5000, 1000)
    narrow, _ = keys.narrow(known(keys, text), [X], 2000, 1000)
    for who in (known(keys, narrow), Identity(ANYBODY)):
        with pytest.raises(PermissionError):
            keys.narrow(who, [X], 2000, 1000)
    with pytest.raises(UsageError, match=str(MOST_PATHS)):
        keys.narrow(known(keys, text), [(b"%d" % n,) for n in range(MOST_PATHS + 1)], 2000, 1000)


def ask(store: Store, method: str, where: str, said: Any = None, token: str | None = None) -> tuple[int, Any]:
    words = ["-X", method, f"{store.url}/.serai/{where}"]
    data = None if said is None else json.dumps(said).encode()
    status, _, body = store.curl(*words, *(["--data-binary", "@-"] if data else []), data=data, token=token)
    return status, json.loads(body or b"null")


def test_over_the_wire_it_reads_and_is_refused_everything_else(store: Store) -> None:
    (store.room / "d").mkdir()
    for name in ("x", "y", "z"):
        (store.room / "d" / name).write_bytes(name.encode() * 100_000)
    (store.room / "d" / "link").symlink_to("z")
    status, made = ask(store, "POST", "tokens", {"paths": ["/d/x", "/d/link"], "life_s": 60})
    assert (status, made["files"]) == (200, 3)  # and what the link leads to
    token = made["token"]

    def curl(*words: str, data: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        return store.curl(*words, data=data, token=token)

    assert curl("-r", "5-9", f"{store.url}/d/x")[::2] == (206, b"x" * 5)
    assert curl(f"{store.url}/d/link")[::2] == (200, b"z" * 100_000)
    for words in (
        [f"{store.url}/d/y"],
        [f"{store.url}/none"],
        [f"{store.url}/none/y"],  # nor is it seen which directories there are
        ["-I", f"{store.url}/none/y"],
        ["-X", "PROPFIND", "-H", "Depth: 0", f"{store.url}/none/y"],
        [f"{store.url}/d/"],
        ["-X", "PROPFIND", "-H", "Depth: 1", f"{store.url}/d/"],
        ["-T", "-", f"{store.url}/d/x"],
        ["-T", "-", f"{store.url}/d/new"],
        ["-X", "DELETE", f"{store.url}/d/x"],
        ["-X", "MOVE", "-H", f"Destination: {store.url}/d/w", f"{store.url}/d/x"],
        [f"{store.url}/.serai/status"],
    ):
        assert curl(*words, data=b"other" if "-T" in words else None)[0] == 403, words
    assert ask(store, "POST", "tokens", {"paths": ["/d/y"], "life_s": 60}, token)[0] == 403
    assert ask(store, "POST", f"tokens/{made['name']}", {"paths": ["/d/y"], "life_s": 60}, token)[0] == 403
    assert (store.room / "d/x").read_bytes() == b"x" * 100_000
    assert sorted(path.name for path in (store.room / "d").iterdir()) == ["link", "x", "y", "z"]
    status, widened = ask(store, "POST", f"tokens/{made['name']}", {"paths": ["/d/y"], "life_s": 90})
    assert (status, widened["files"], "token" in widened) == (200, 4, False)
    assert curl(f"{store.url}/d/y")[::2] == (200, b"y" * 100_000)
    assert ask(store, "DELETE", f"tokens/{made['name']}") == (200, {"ended": 1})
    assert curl(f"{store.url}/d/x")[0] == 401
    assert ask(store, "DELETE", f"tokens/{made['name']}")[0] == 404


def test_for_what_is_not_there_or_no_file_none_is_made(store: Store) -> None:
    (store.room / "folder").mkdir()
    for path, status in (("/none", 404), ("/folder", 409), ("/.serai/access.json", 403), ("/../etc/passwd", 400)):
        assert ask(store, "POST", "tokens", {"paths": [path], "life_s": 60})[0] in {status, 400, 404}, path
    wrong: list[Any] = [{"paths": "/d", "life_s": 60}, {"paths": [], "life_s": 0}, {"paths": []}]
    for said in wrong:
        assert ask(store, "POST", "tokens", said)[0] == 400


def test_one_user_cannot_take_all_the_tokens_there_are(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_keys, "MOST_NARROWED", 3)
    text, _ = keys.make_token("ann", "/", "r", 5000, 1000)
    made = [keys.narrow(known(keys, text), [X], 2000, 1000)[1] for _ in range(3)]
    with pytest.raises(UsageError, match="3 times"):
        keys.narrow(known(keys, text), [X], 2000, 1000)
    keys.revoke(made[0].name)
    keys.narrow(known(keys, text), [X], 3000, 1000)
    other, _ = keys.make_token("bob", "/", "r", 5000, 1000)
    keys.narrow(known(keys, other), [X], 2000, 1000)
    keys.narrow(known(keys, text), [X], 3000, 2500)  # those that have expired count no longer
