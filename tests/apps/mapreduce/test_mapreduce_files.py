"""What the front end reads and writes for workers, and what it does not."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from serai.apps.mapreduce import files
from serai.apps.mapreduce.files import MOST_READ, Outputs, Relay
from serai.apps.mapreduce.inputs import expand, host_key, local_path
from serai.errors import SeraiError, TransferFailed, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    made = Outputs("run", str(tmp_path / "out"), "wc-", "", {})
    made.open(2)
    return made


def send(outputs: Outputs, data: bytes, *, name: str = "part-00000", attempt: int = 1, digest: str = "") -> None:
    for at in range(0, len(data), 5):
        outputs.write({"name": name, "attempt": attempt, "offset": at}, data[at : at + 5])
    digest = digest or hashlib.sha256(data).hexdigest()
    outputs.commit({"name": name, "attempt": attempt, "size": len(data), "digest": f"sha256:{digest}"}, b"")


def test_an_output_appears_when_it_is_accepted(outputs: Outputs, tmp_path: Path) -> None:
    send(outputs, b"well\t1\nroad\t2\n")
    assert os.listdir(tmp_path / "out") == [".serai-mr-run"]
    final = outputs.accept("part-00000", 1, 14)
    assert final == str(tmp_path / "out/wc-part-00000")
    outputs.close()
    assert os.listdir(tmp_path / "out") == ["wc-part-00000"]
    assert (tmp_path / "out/wc-part-00000").read_bytes() == b"well\t1\nroad\t2\n"


def test_what_a_killed_front_end_left_is_removed_by_the_next_run(outputs: Outputs, tmp_path: Path) -> None:
    for name, age_s in ((".serai-mr-dead", 100), (".serai-mr-just-begun", 1), (".serai-other", 100), ("mine", 100)):
        left = tmp_path / "out" / name
        left.mkdir()
        (left / "part-00000.1").touch()
        os.utime(left, (time.time() - age_s, time.time() - age_s))
    os.utime(outputs.landing, (0, 0))
    other = Outputs("other", str(tmp_path / "out"), "wc-", "", {})
    other.open(2)
    there = [".serai-mr-just-begun", ".serai-mr-other", ".serai-mr-run", ".serai-other", "mine"]
    assert sorted(os.listdir(tmp_path / "out")) == there, "one that lives is as it was"
    outputs.close()
    other.close()


def test_an_output_without_records_is_one(outputs: Outputs) -> None:
    send(outputs, b"")
    assert os.path.getsize(outputs.accept("part-00000", 1, 0)) == 0


def test_what_did_not_come_whole_is_refused(outputs: Outputs) -> None:
    with pytest.raises(SeraiError, match="not the one that was written"):
        send(outputs, b"well\t1\n", digest="0" * 64)
    outputs.write({"name": "part-00001", "attempt": 1, "offset": 0}, b"abc")
    with pytest.raises(SeraiError, match="3 of 4 bytes"):
        outputs.accept("part-00001", 1, 4)
    with pytest.raises(OSError, match="part-00001"):
        outputs.accept("part-00001", 2, None)


@pytest.mark.parametrize("name", ["../../etc/passwd", "part-1", "part-00000/../x", "", "part-00000\n"])
def test_names_that_are_none_of_ours_are_refused(outputs: Outputs, name: str) -> None:
    with pytest.raises(UsageError, match="no output of this run"):
        outputs.write({"name": name, "attempt": 1, "offset": 0}, b"x")


@pytest.mark.parametrize("wrong", [{"offset": -1}, {"offset": "0"}, {"attempt": None}, {"attempt": True}])
def test_numbers_that_are_none_are_refused(outputs: Outputs, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is no number"):
        outputs.write({"name": "part-00000", "attempt": 1, "offset": 0, **wrong}, b"x")


def test_outputs_of_a_larger_run_are_not_mixed_with_ours(tmp_path: Path) -> None:
    (tmp_path / "wc-part-00007").touch()
    (tmp_path / "wc-part-00001").touch()
    (tmp_path / "part-00009").touch()
    with pytest.raises(UsageError, match=r"1 outputs of a run with more partitions, such as wc-part-00007"):
        Outputs("run", str(tmp_path), "wc-", "", {}).open(2)


class Moody(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Another file system, of another scheme, that has its troubles."""

    protocol = "moody"
    troubles = 0

    def put_file(self, *args: Any, **kwargs: Any) -> None:
        if Moody.troubles:
            Moody.troubles -= 1
            raise RuntimeError("503 Slow Down")
        super().put_file(*args, **kwargs)


@pytest.mark.parametrize("troubles", [2, 3])
def test_what_was_made_is_not_lost_when_it_cannot_be_brought_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, troubles: int
) -> None:
    fsspec.register_implementation("moody", Moody, clobber=True)
    monkeypatch.setattr(files, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(Moody, "troubles", troubles)
    there = tmp_path / "there"
    made = Outputs("run", f"moody://{there}", "", str(tmp_path / "state"), {})
    made.open(1)
    send(made, b"a\t1\n")
    final = made.accept("part-00000", 1, 4)
    if troubles == 2:
        assert made.deliver([final]) == [f"moody://{there}/part-00000"]
        assert (there / "part-00000").read_bytes() == b"a\t1\n"
    else:
        with pytest.raises(TransferFailed, match="503 Slow Down") as caught:
            made.deliver([final])
        assert caught.value.hint is not None
        assert os.path.dirname(final) in caught.value.hint
    made.close()
    assert os.path.exists(final) == (troubles == 3)


def test_where_outputs_go_elsewhere_is_looked_at_before_anything_is_computed(tmp_path: Path) -> None:
    fsspec.register_implementation("moody", Moody, clobber=True)
    (tmp_path / "file").touch()
    made = Outputs("run", f"moody://{tmp_path}/file/below", "", str(tmp_path / "state"), {})
    with pytest.raises(UsageError, match=r"outputs cannot be written to moody:.*/file/below: "):
        made.open(1)
    made.close()
    (tmp_path / "part-00007").touch()
    made = Outputs("run", f"moody://{tmp_path}", "", str(tmp_path / "state"), {})
    with pytest.raises(UsageError, match="1 outputs of a run with more partitions, such as part-00007"):
        made.open(7)
    made.close()
    assert list((tmp_path / "state").iterdir()) == []


# ---- reading for workers


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    (tmp_path / "a.txt").write_bytes(bytes(range(100)))
    (tmp_path / "secret").write_bytes(b"nobody's business")
    known = {("w1", str(tmp_path / "map-1")): ""}
    return Relay(expand([str(tmp_path / "a.txt")]), {}, lambda worker, path: known.get((worker, path)))


def test_inputs_are_read_in_pieces(relay: Relay, tmp_path: Path) -> None:
    head = {"url": str(tmp_path / "a.txt"), "start": 90, "length": 50}
    assert relay.read_input(head, b"") == ({}, bytes(range(90, 100)))
    assert relay.read_input({**head, "start": 200}, b"") == ({}, b"")
    relay.close()


@pytest.mark.parametrize("how", ["in place", "another file"])
@pytest.mark.parametrize("opened_before", [True, False])
def test_an_input_that_changes_is_not_mixed_with_what_it_was(
    relay: Relay, tmp_path: Path, *, opened_before: bool, how: str
) -> None:
    path, head = tmp_path / "a.txt", {"url": str(tmp_path / "a.txt"), "start": 0, "length": 50}
    if opened_before:
        relay.read_input(head, b"")
    if how == "in place":
        path.write_bytes(bytes(100))
        os.utime(path, (1000, 1000))
    else:
        other = tmp_path / "b.txt"
        other.write_bytes(bytes(100))
        other.replace(path)
    if opened_before and how == "another file":
        assert relay.read_input(head, b"")[1] == bytes(range(50)), "what was opened first is still there"
    else:
        with pytest.raises(UsageError, match="was changed after the run began"):
            relay.read_input(head, b"")
    relay.close()


def test_only_what_belongs_to_the_run_is_read(relay: Relay, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no input of this run"):
        relay.read_input({"url": str(tmp_path / "secret"), "start": 0, "length": 5}, b"")
    with pytest.raises(FileNotFoundError, match="has no output"):
        relay.read_peer({"worker": "w1", "path": str(tmp_path / "secret"), "start": 0, "length": 5}, b"")
    (tmp_path / "map-1").write_bytes(b"run of pairs")
    head = {"worker": "w1", "path": str(tmp_path / "map-1"), "start": 7, "length": 5}
    assert relay.read_peer(head, b"")[1] == b"pairs"


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, -5), (0, MOST_READ + 1), ("0", 5), (None, 5)])
def test_ranges_are_checked(relay: Relay, tmp_path: Path, start: Any, length: Any) -> None:
    with pytest.raises(UsageError, match="no range"):
        relay.read_input({"url": str(tmp_path / "a.txt"), "start": start, "length": length}, b"")


# ---- what inputs are


def test_directories_and_globs_are_sorted_and_hidden_files_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt.gz", ".hidden", "_SUCCESS"):
        (tmp_path / name).write_text("x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/c.txt").write_text("xyz")
    names = [os.path.basename(one.url) for one in expand([str(tmp_path)])]
    assert names == ["a.txt.gz", "b.txt"]
    found = expand([str(tmp_path / "**/*.txt")])
    assert [(one.url[len(str(tmp_path)) :], one.size) for one in found] == [("/b.txt", 1), ("/below/c.txt", 3)]
    assert expand([f"file://{tmp_path}/a.txt.gz"])[0].compression == "gzip"


@pytest.mark.parametrize("name", ["nonesuch", "*.none", "fifo"])
def test_inputs_that_are_none(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo") if name == "fifo" else None
    with pytest.raises(UsageError, match="input"):
        expand([str(tmp_path / name)])


def test_names_of_hosts_and_of_this_machine() -> None:
    urls = ("local:", "ssh://lab1/scratch?slots=2", "ssh://me@lab1:22", "any://lab1/x", "any://localhost/")
    assert [host_key(Url.parse(url)) for url in urls] == ["", "lab1", "me@lab1:22", "lab1", ""]
    texts = ("a/b", "/a:b", "file:///a", "local:/a", "file://localhost/a", "any://localhost/a")
    assert [local_path(text) for text in texts] == ["a/b", "/a:b", "/a", "/a", "/a", "/a"]
    assert [local_path(text) for text in ("ssh://lab1/a", "s3://bucket/a", "any://lab1/a")] == [None] * 3
