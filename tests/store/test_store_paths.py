"""No path leads out of what is served, whatever a peer writes and whatever links are there."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serai.data.appliance.paths import BadTarget, Kept, Root, parts_of, parts_of_text, quoted, split_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = [
    "..", "%2e%2e", ".%2E", "%2e.", "%252e%252e", "..%2f", "%2f", "%5c..", "..;", ".", "", "%00", "a%00b", "/etc",
    "%ff%fe", "\udcff", "etc", "passwd", "in", "out", "up", "abs", "deep", "loop", "file", ".serai", ".SERAI", "...",
    "~", "%", "%zz", "#", "?", "file://", "http://h", "%c0%ae%c0%ae", "link%2f..", "C:",
]  # fmt: skip
names = st.one_of(st.sampled_from(HOSTILE), st.text(string.printable, max_size=6))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Root, Path]]:
    base = tmp_path_factory.mktemp("paths")
    top = base / "served"
    (top / "in/deep").mkdir(parents=True)
    (top / ".serai").mkdir()
    (top / ".serai/key.pem").write_text("secret")
    (base / "secret").write_text("secret")
    (top / "in/file").write_text("ours")
    os.symlink("..", top / "in/up")
    os.symlink("../..", top / "out")
    os.symlink("../../secret", top / "in/out")
    os.symlink("/", top / "abs")
    os.symlink(top / "in", top / "here")
    os.symlink("loop", top / "loop")
    os.symlink("../.serai", top / "in/etc")
    root = Root(str(top))
    yield root, top
    root.close()


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, max_size=7), st.sampled_from(["/", "//", "", "http://host/", "/in/", "/in/deep/../"]))
def test_whatever_is_asked_for_is_inside_or_refused(served: tuple[Root, Path], parts: list[str], begin: str) -> None:
    root, top = served
    target = begin + "/".join(parts)
    try:
        path, _ = split_target(target)
        with root.at(parts_of(path)) as place:
            found = os.path.realpath(f"/proc/self/fd/{place.fd}")
            assert found == str(top) or found.startswith(f"{top}/")
            assert not found.startswith(f"{top}/.serai")
            assert place.name not in {b"..", b""}
            assert b"/" not in place.name
            assert not (found == str(top) and place.name.lower() == b".serai")
            there = place.stat_or_none()
            if there is not None and place.name != b".":
                assert os.stat(root.real(place.parts), follow_symlinks=False).st_ino == there.st_ino
                fd = place.open(os.O_RDONLY)
                where = os.readlink(f"/proc/self/fd/{fd}")
                os.close(fd)
                assert where == str(top) or where.startswith(f"{top}/in")
    except (BadTarget, OSError):
        pass


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(names, min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_directories_that_stay_open_lead_where_they_led(
    served: tuple[Root, Path], paths: list[list[str]], follow: bool
) -> None:
    root, _ = served
    kept = Kept(root)
    for path in [*paths, *paths]:  # the second time from what is open
        try:
            parts = parts_of("/" + "/".join(path))
        except BadTarget:
            continue
        told: list[object] = []
        for one in (root, kept):
            try:
                with one.at(parts, follow=follow) as place:
                    where = os.fstat(place.fd)
                    found = None if place.found is None else (place.found.st_ino, place.found.st_mode)
                    told.append((place.parts, place.name, where.st_ino, found))
            except OSError as error:
                told.append((type(error), error.errno, error.filename))
        assert told[0] == told[1]
    kept.close()


def test_directories_that_stay_open_are_looked_for_anew_when_they_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "served/dir").mkdir(parents=True)
    root = Root(str(tmp_path / "served"))
    kept = Kept(root)
    with kept.at((b"dir", b"new")) as place:
        assert (place.found, place.parts) == (None, (b"dir", b"new"))
    (tmp_path / "served/dir").rename(tmp_path / "served/other")
    (tmp_path / "served/dir").mkdir()
    (tmp_path / "served/dir/new").touch()
    kept.forget()
    with kept.at((b"dir", b"new")) as place:
        assert place.found is not None
    kept.close()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):  # so many are not kept open
        (tmp_path / f"served/d{number}").mkdir()
        with kept.at((f"d{number}".encode(), b"x")) as place:
            assert place.found is None
    assert len(os.listdir("/proc/self/fd")) <= before + 64
    kept.close()
    root.close()


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_a_path_that_is_written_is_read_again(names: list[bytes]) -> None:
    try:
        parts = parts_of("/" + "/".join(quote(name, safe="") for name in names))
    except BadTarget:
        assert any(name in {b".", b".."} or b"/" in name or b"\0" in name for name in names)
        return
    assert parts == tuple(names)
    assert parts_of(quoted(parts)) == parts


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("/out/secret", PermissionError),
        ("/in/out", PermissionError),
        ("/abs/etc/passwd", PermissionError),
        ("/abs", PermissionError),
        ("/in/up/../out", BadTarget),
        ("/loop", OSError),
        ("/.serai/key.pem", FileNotFoundError),
        ("/.Serai/key.pem", FileNotFoundError),
        ("/in/etc/key.pem", FileNotFoundError),
        ("/in/file/x", NotADirectoryError),
    ],
)
def test_what_leads_out_is_refused(served: tuple[Root, Path], target: str, what: type[Exception]) -> None:
    def go() -> None:
        with served[0].at(parts_of(target)) as place:
            place.stat()

    with pytest.raises(what):
        go()


@pytest.mark.parametrize(("path", "real"), [("/here/file", "in/file"), ("/in/up/in/file", "in/file"), ("/in/up", "")])
def test_links_that_stay_inside_are_followed(served: tuple[Root, Path], path: str, real: str) -> None:
    with served[0].at(parts_of_text(path)) as place:
        assert b"/".join(place.parts).decode() == real


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "served/dir").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    root = Root(str(tmp_path / "served"))
    with root.at((b"dir", b"new")) as place:
        (tmp_path / "served/dir").rename(tmp_path / "served/moved")
        os.symlink(tmp_path / "outside", tmp_path / "served/dir")
        os.close(place.open(os.O_WRONLY | os.O_CREAT))
    root.close()
    assert (tmp_path / "served/moved/new").exists()
    assert not list((tmp_path / "outside").iterdir())
