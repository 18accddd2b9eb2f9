"""The rules of cp, compared with cp: the same operands in the same directory, and what is there afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.data.transfer import Wishes, copy

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD_S, NEW_S = 1_000_000_000, 1_500_000_000

# What is copied from, what is copied to, and both.
SOURCES = ["f", "g", "empty", "x", "dir", "dir/", "dir/.", "deep", "link", "dirlink", "dirlink/", "dangling", "nope"]
SOURCES += ["dir/f", "deep/dir", "f/", "run"]
TARGETS = ["new", "new/", "g", "into", "into/", "dir", "tolink", "tolink/", "tofile", "nowhere", "no/such", "dangling"]
TARGETS += ["f", "deep", "f/", "into/f", "into/dir", "g/x"]
OPTIONS = ["-r", "-p", "-n", "-u", "-T", "-L", "-P", "-f"]


def furnish(root: Path) -> None:
    """Files, directories and links of every kind that a rule is about."""
    files = {"f": b"f", "g": b"gg", "empty": b"", "x": b"x" * 1_100_000, "dir/f": b"df", "dir/sub/h": b"h"}
    files |= {"deep/dir/f": b"ddf", "deep/dir/sub/i": b"i", "into/f": b"old", "into/dir/f": b"older", "run": b"#!"}
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "run").chmod(0o755)
    (root / "dir/f").chmod(0o640)
    (root / "dir/sub").chmod(0o750)
    links = {"link": "f", "dirlink": "dir", "dangling": "gone", "tolink": "into", "tofile": "g", "nowhere": "lost"}
    links |= {"dir/l": "f", "deep/dir/sub/l": "../f", "into/link": "dir"}
    for name, leads in links.items():
        (root / name).symlink_to(leads)
    for path in sorted(root.rglob("*")):
        when = NEW_S if path.name in {"g", "sub"} or path.parent.name == "into" else OLD_S
        os.utime(path, (when, when), follow_symlinks=False)


def tree(root: Path, *, times: bool) -> dict[str, Any]:
    """What is there: kinds, permissions, contents, where links lead, and times.

    A directory that was there before has a time of its own: cp writes into a file, and we put another in its place.
    """
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        facts = path.lstat()
        what: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        kind = stat.S_IFMT(facts.st_mode)
        mode = 0 if path.is_symlink() else stat.S_IMODE(facts.st_mode)
        old = path.is_dir() and (root.parent / "model" / name).is_dir()
        mtime = int(facts.st_mtime) if times and not path.is_symlink() and not old else 0
        found[name] = (kind, mode, mtime, what)
    return found


@pytest.fixture(scope="module")
def rooms() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rules-"))
    furnish(path / "model")
    yield path
    shutil.rmtree(path)


def wishes_of(options: list[str]) -> tuple[Wishes, Any]:
    wishes = Wishes(
        recursive="-r" in options,
        times="-p" in options,
        keep="-n" in options,
        update="-u" in options,
        as_file="-T" in options,
        force="-f" in options,
    )
    return wishes, "follow" if "-L" in options else "keep" if "-P" in options else None


def both(rooms: Path, options: list[str], sources: list[str], target: str) -> None:
    """Run cp and ours, and compare."""
    results = []
    for name in ("cp", "ours"):
        room = rooms / name
        shutil.rmtree(room, ignore_errors=True)
        shutil.copytree(rooms / "model", room, symlinks=True)
        before = Path.cwd()
        os.chdir(room)
        try:
            if name == "cp":
                done = subprocess.run(
                    ["cp", *options, "--", *sources, target], capture_output=True, text=True, check=False
                )
                results.append((done.returncode == 0, tree(room, times="-p" in options)))
                said = done.stderr
            else:
                wishes, links = wishes_of(options)
                outcome = copy(sources, target, wishes, links=links)
                results.append((outcome.ok, tree(room, times="-p" in options)))
        finally:
            os.chdir(before)
    if "will not create hard link" in said:  # one directory twice under two names; ours merges it with itself
        return
    assert results[0] == results[1], (said, outcome.complaints)


def is_halfway(options: list[str], sources: list[str], target: str) -> bool:
    """Where cp makes something before it notices that it should not have begun, or leaves things half done."""
    root = target.split("/", maxsplit=1)[0]
    return "-r" in options and any(source.split("/")[0] in {root, "dirlink", "deep"} for source in sources)


@settings(deadline=None, max_examples=60)
@given(
    options=st.lists(st.sampled_from(OPTIONS), max_size=3, unique=True),
    sources=st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3),
    target=st.sampled_from(TARGETS),
)
def test_the_same_is_there_afterwards_as_after_cp(
    rooms: Path, options: list[str], sources: list[str], target: str
) -> None:
    if "-L" in options and "-P" in options:
        options.remove("-P")
    if is_halfway(options, sources, target):
        return
    both(rooms, options, sources, target)


@pytest.mark.parametrize(
    ("options", "sources", "target"),
    [
        (["-r"], ["dir"], "new"),
        (["-r"], ["dir"], "into"),
        (["-r"], ["dir/."], "into"),
        (["-r"], ["dir/"], "into/dir"),
        (["-r", "-T"], ["dir"], "into"),
        (["-r"], ["deep/dir", "dir"], "into"),
        (["-r", "-n"], ["deep/dir", "dir"], "into"),
        (["-r", "-u"], ["deep/dir", "dir"], "into"),
        (["-r", "-L"], ["dir", "dirlink"], "into"),
        (["-r", "-p"], ["dir"], "new"),
        (["-r"], ["link", "dirlink", "dangling"], "into"),
        ([], ["link", "dangling"], "into"),
        ([], ["f", "dir/f"], "into"),
        ([], ["dir", "g"], "into"),
        ([], ["f"], "tofile"),
        ([], ["f"], "nowhere"),
        ([], ["f", "g"], "new"),
        ([], ["x", "empty", "run"], "into"),
        ([], ["nope", "f"], "into"),
        (["-r"], ["f"], "dir"),
        (["-r"], ["dir"], "f"),
        ([], ["f"], "f"),
    ],
)
def test_each_rule_is_that_of_cp(rooms: Path, options: list[str], sources: list[str], target: str) -> None:
    both(rooms, options, sources, target)


@pytest.mark.parametrize("target", ["dir", "dir/sub", "dir/sub/new", "dirlink"])
def test_a_directory_is_not_copied_into_itself_and_nothing_of_it_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    furnish(tmp_path / "room")
    monkeypatch.chdir(tmp_path / "room")
    before = tree(tmp_path, times=True)
    outcome = copy(["dir"], target, Wishes(recursive=True))
    assert any("into itself" in what for what in outcome.complaints), outcome
    assert tree(tmp_path, times=True) == before
