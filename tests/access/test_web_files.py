"""``http://``: what is said when something cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.reading.origin_server import OriginServer

from serai.access.files import filesystem_for
from serai.data.afar import FarSource
from serai.data.transfer import Wishes, copy
from serai.errors import AccessError, HostUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def origin() -> Iterator[OriginServer]:
    made = OriginServer(b"0123456789")
    yield made
    made.close()


def look(url: str) -> object:
    files, path = filesystem_for(url)
    return files.info(path)


def test_a_server_that_is_down_is_no_missing_file() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(HostUnreachable) as down:
        look(f"http://127.0.0.1:{port}/a")
    assert down.value.host == f"127.0.0.1:{port}"
    with pytest.raises(HostUnreachable) as unknown:
        look("http://nobody.invalid/a")
    assert unknown.value.host == "nobody.invalid"


def test_a_refusal_and_a_failure_are_no_missing_file(origin: OriginServer) -> None:
    origin.answers = [403, 403]
    with pytest.raises(PermissionError, match="403"):
        look(origin.url + "/a")
    origin.answers = [503, 503]
    with pytest.raises(AccessError, match="503"):
        look(origin.url + "/a")
    origin.answers = [404, 404]
    with pytest.raises(FileNotFoundError) as missing:
        look(origin.url + "/a")
    assert (missing.value.errno, missing.value.filename) == (errno.ENOENT, origin.url + "/a")


def test_a_certificate_that_nobody_knows_is_said(tmp_path: Path) -> None:
    origin = OriginServer(b"data", tmp_path / "web.pem")
    try:
        with pytest.raises(AccessError, match="certificate"):
            look(origin.url + "/a")
    finally:
        origin.close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_long_file_is_read_whether_or_not_the_server_gives_parts(*, ranges: bool, tmp_path: Path) -> None:
    data = os.urandom(12_000_000)
    origin = OriginServer(data)
    origin.ranges = ranges
    try:
        files, path = filesystem_for(origin.url + "/a")
        with files.open(path, "rb") as file:
            assert b"".join(iter(lambda: file.read(1 << 20), b"")) == data
        with files.open(path, "rb") as file:
            file.seek(5_000_001)  # as when a copy is taken up
            assert file.read(10) == data[5_000_001:5_000_011]
        copy([origin.url + "/a"], str(tmp_path / "copied"), Wishes())
        assert (tmp_path / "copied").read_bytes() == data
    finally:
        origin.close()


def test_a_file_of_the_web_is_a_source_of_mounts(origin: OriginServer) -> None:
    source = FarSource(origin.url + "/a")
    found = source.stat("/")
    assert (found.kind, found.size) == ("file", 10)
    assert b"".join(source.read("/", found.stamp, 2, 3)) == b"234"
    origin.etag = '"v2"'
    assert source.stat("/").stamp != found.stamp
