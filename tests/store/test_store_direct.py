"""Reading a store's files by their paths, on its own host and as its own user, and only then."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores import beside
from serai.access.stores.beside import Beside, proof_of
from serai.errors import AccessError, HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store


def _sent(store: Store) -> int:
    """Bytes that the server has read from files or written, as the kernel counts them."""
    text = Path(f"/proc/{store.process.pid}/io").read_text(encoding="ascii")
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("rchar", "wchar")))


def test_the_owner_reads_by_path_and_others_through_the_server(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    fs = StoreFileSystem(store.host, store.port)
    fs.pipe_file("/direct", data)
    assert fs.cat_file("/direct", 5, 10) == data[5:10]
    before = _sent(store)
    assert fs.cat_file("/direct") == data
    assert fs.cat_file("/direct", -7) == data[-7:]
    assert fs.cat(["/direct", "/direct"]) == {"/direct": data}
    assert _sent(store) - before < 1_000_000
    assert StoreFileSystem(store.host, store.port, direct=False).cat_file("/direct") == data
    store.run("token", str(store.room), "--user", "ann", "--rights", "r", "--to", f"{tmp_path}/token")
    ann = StoreFileSystem(store.host, store.port, token_file=f"{tmp_path}/token")
    assert ann.far._beside is not None
    assert ann.far._beside.root() is None
    assert ann.cat_file("/direct") == data


def test_what_is_not_served_is_not_read_by_path(store: Store, tmp_path: Path) -> None:
    fs = StoreFileSystem(store.host, store.port)
    (tmp_path / "secret").write_bytes(b"secret")
    link = store.room / "out"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(PermissionError):
        fs.cat_file("/out")
    link.unlink()
    for path in ("/.serai/owner", "/../served/.serai/owner"):
        with pytest.raises((OSError, AccessError)) as caught:
            fs.cat_file(path)
        assert store.token not in str(caught.value)
    with pytest.raises(IsADirectoryError):
        fs.cat_file("/")
    with pytest.raises(FileNotFoundError):
        fs.cat_file("/nothing")


def test_a_proof_that_is_not_ours_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / ".serai").mkdir()
    (tmp_path / ".serai/owner").write_text("word")
    you = {"rights": "a", "path": "/"}
    told = {"path": str(tmp_path), "proof": proof_of("word")}
    assert Beside(lambda: {"direct": told, "you": you}).root() == os.path.realpath(tmp_path)
    assert Beside(lambda: {"direct": told | {"proof": proof_of("another")}, "you": you}).root() is None
    assert Beside(lambda: {"direct": told, "you": you | {"rights": "rw"}}).root() is None
    assert Beside(lambda: {"direct": told, "you": you | {"path": "/cms"}}).root() is None
    assert Beside(lambda: {"you": you}).root() is None  # an older one


def test_a_server_that_has_ended_is_missed(start: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "VALID_S", 0.0)
    one = start()
    fs = StoreFileSystem(one.host, one.port)
    fs.pipe_file("/x", b"it")
    assert fs.cat_file("/x") == b"it"
    one.stop(signal.SIGKILL)
    with pytest.raises(HostUnreachable):
        fs.cat_file("/x")


def test_a_server_that_names_what_keeps_waiting_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / ".serai").mkdir()
    os.mkfifo(tmp_path / ".serai/owner")
    told = {"you": {"rights": "a", "path": "/"}, "direct": {"path": str(tmp_path), "proof": proof_of("x")}}
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(Beside(lambda: told).root()), daemon=True)
    asking.start()
    asking.join(40)
    assert found == [None]
