"""What peers may read is what the run looked at, or nothing."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access.stores.certificates import pinned_certificate
from serai.travel import peers
from serai.travel.caching.objects import Cache
from serai.travel.caching.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = os.urandom(300_000)


@pytest.fixture
def lying(tmp_path: Path) -> Path:
    path = tmp_path / "lying"
    path.write_bytes(DATA)
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    return path


@pytest.fixture
def sharing(tmp_path: Path, lying: Path) -> Sharing:
    one = Sharing(Cache(str(tmp_path / "cache"), 1_000_000))
    one.share({"7": [str(lying), len(DATA), "1700000000.123"]})
    return one


@pytest.fixture
def ask(tmp_path: Path, sharing: Sharing) -> Iterator[Callable[[str], bytes]]:
    """Read something as a peer does."""
    secrets = pinned_certificate("test", time.time())
    words = secrets["cert"], secrets["key"], str(tmp_path)
    server = peers.Server(peers.listening_sockets(), *words, sharing.find)
    peer = peers.Peers(*words)

    def fetch(name: str) -> bytes:
        into = io.BytesIO()
        peer.fetch(["127.0.0.1"], server.port, {"path": name, "start": 0, "size": len(DATA)}, into)
        return into.getvalue()

    yield fetch
    peer.close()
    server.close()


def in_place(path: Path) -> None:
    """Write something else of that size, and set the time back."""
    info = path.stat()
    with path.open("r+b") as file:
        file.write(b"something else")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_a_file_that_is_what_it_was_is_given(sharing: Sharing, ask: Callable[[str], bytes]) -> None:
    assert ask("files/7") == DATA
    assert sharing.part("files/7", 10, 20) == DATA[10:30]
    with pytest.raises(peers.Gone, match="files/8"):
        ask("files/8")
    with pytest.raises(FileNotFoundError):
        sharing.part("files/8", 0, 1)


@pytest.mark.parametrize("how", ["written anew", "written in place", "shorter", "replaced", "another time", "a pipe"])
def test_a_file_that_is_not_what_it_was_is_not(
    sharing: Sharing, ask: Callable[[str], bytes], lying: Path, how: str
) -> None:
    if how == "written in place":
        assert ask("files/7") == DATA  # then its times are known to the last
        in_place(lying)
    elif how == "written anew":
        lying.write_bytes(DATA)
    elif how == "shorter":
        os.truncate(lying, 1000)
        os.utime(lying, ns=(5, 1_700_000_000_123_456_789))
    elif how == "replaced":
        assert sharing.part("files/7", 0, 1) == DATA[:1]
        other = lying.with_name("other")
        other.write_bytes(bytes(len(DATA)))
        os.utime(other, ns=(5, 1_700_000_000_123_456_789))
        other.rename(lying)
    elif how == "a pipe":
        lying.unlink()
        os.mkfifo(lying)
    else:
        os.utime(lying, ns=(5, 1_700_000_000_124_456_789))
    with pytest.raises(peers.Gone, match="it has changed since the run looked at it"):
        ask("files/7")
    with pytest.raises(peers.Changed):
        sharing.part("files/7", 0, 1)


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("1700000000.123", True),
        ("1700000000.124", False),
        ("1700000000.000", True),  # by a way that knows whole seconds only
        ("1700000000", True),
        ("1700000001", False),
        ("None", True),
        ("", True),
    ],
)
def test_times_as_they_are_said(sharing: Sharing, lying: Path, said: str, given: bool) -> None:
    sharing.share({"8": [str(lying), len(DATA), said]})
    found = sharing.find("files/8")
    assert found is not None
    if given:
        peers.opened(found).close()
    else:
        with pytest.raises(peers.Changed):
            peers.opened(found)


def test_an_object_that_was_written_to_after_it_was_found_is_not_given(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), 1_000_000)
    filling = cache.begin(len(DATA))
    filling.write(DATA)
    digest = cache.keep(filling)
    sharing = Sharing(cache)
    offer = sharing.find(f"objects/{digest}")
    assert offer is not None
    assert sharing.part(f"objects/{digest}", 0, 9) == DATA[:9]
    path = Path(cache.path(digest))
    path.chmod(0o600)
    path.write_bytes(bytes(len(DATA)))
    with pytest.raises(peers.Changed):
        peers.opened(offer)
    assert sharing.find(f"objects/{digest}") is None
    assert sharing.find("objects/../../../etc/passwd") is None
    assert sharing.find(str(path)) is None
