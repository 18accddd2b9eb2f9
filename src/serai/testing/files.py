"""The contract of a host's files, as tests: what fsspec's own suite (``fsspec.tests.abstract``) does not say.

::

    class TestMyFiles(FilesContract):
        @pytest.fixture
        def fs(self) -> AbstractFileSystem:
            return MyFileSystem("host")

        @pytest.fixture
        def room(self) -> str:
            return "/path/of/an/empty/directory/there"

        @pytest.fixture
        def lose(self) -> Lose:
            return my_connection.kill     # as abruptly as can be; by default nothing is lost
"""

# ruff: noqa: D102 - the name of a test says what it shows

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest

from serai.errors import SeraiError

Lose = Callable[[], object]  # ends the connection

ODD_NAMES = [
    "with blank", " leading", "new\nline", "tab\there", "quote'd", 'double"d', "back\\slash", "$HOME", "`id`", "-rf",
    "a%20b", "query?x=1", "hash#tag", "star*", "[a]", "{a,b}", "~", "é", "日本", "bad\udcffbytes", ":", "x" * 255,
]  # fmt: skip
BIG = 9_000_003  # bytes: more than two blocks and no multiple of anything
COUNT_PER_THREAD = 20


class FilesContract:
    """Every test has a directory of its own, ``room``; ``many`` is how many files a full directory tree has."""

    many = 3000
    utf8_only = False  # whether directories with other names cannot be listed, which is then told
    another_version = b"two"  # of the same size and moment as the first; where times are coarse, of another size

    @pytest.fixture
    def lose(self) -> Lose:
        return lambda: None

    # ---- writing

    def test_what_is_written_is_seen_when_closed_and_not_before(self, fs: Any, room: str) -> None:
        path = f"{room}/file"
        fs.pipe_file(path, b"old")
        with fs.open(path, "wb") as file:
            file.write(b"new" * 3_000_000)
            assert fs.cat_file(path) == b"old"
        assert fs.size(path) == 9_000_000
        assert fs.ls(room, detail=False) == [path]

    def test_what_was_not_written_to_its_end_is_not_seen(self, fs: Any, room: str) -> None:
        def write() -> None:
            with fs.open(f"{room}/file", "wb") as file:
                file.write(b"x" * 5_000_000)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write()
        self._until_empty(fs, room)

    @staticmethod
    def _until_empty(fs: Any, room: str) -> None:
        for _ in range(2000):  # an abandoned write is cleaned up beside us: each look is a round trip
            if not fs.ls(room, refresh=True):
                return
        raise AssertionError(fs.ls(room, refresh=True))

    def test_a_file_that_is_replaced_keeps_its_permissions(self, fs: Any, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"old")
        fs.chmod(f"{room}/file", 0o640)
        fs.pipe_file(f"{room}/file", b"new")
        assert fs.info(f"{room}/file")["mode"] & 0o777 == 0o640

    def test_a_link_is_written_through(self, fs: Any, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"old")
        fs.symlink("file", f"{room}/link")
        fs.pipe_file(f"{room}/link", b"new")
        assert fs.cat_file(f"{room}/file") == b"new"
        assert fs.islink(f"{room}/link")

    def test_a_missing_directory_is_told_when_opening(self, fs: Any, room: str) -> None:
        with pytest.raises(FileNotFoundError):
            fs.open(f"{room}/no/file", "wb")
        with pytest.raises(FileNotFoundError):
            fs.pipe_file(f"{room}/no/file", b"")

    def test_appending_goes_on_where_the_file_ended(self, fs: Any, room: str) -> None:
        for text in (b"one ", b"two"):
            with fs.open(f"{room}/file", "ab") as file:
                file.write(text)
                at = file.tell()
        assert (fs.cat_file(f"{room}/file"), at) == (b"one two", 7)

    def test_exclusive_writing_takes_nothing_away(self, fs: Any, room: str) -> None:
        with fs.open(f"{room}/file", "xb") as file:
            file.write(b"mine")
        with pytest.raises(FileExistsError):
            fs.open(f"{room}/file", "xb")
        assert fs.cat_file(f"{room}/file") == b"mine"

    def test_a_transaction_shows_all_or_nothing(self, fs: Any, room: str) -> None:
        with fs.transaction:
            for name in "ab":
                with fs.open(f"{room}/{name}", "wb") as file:
                    file.write(b"x")
            assert not fs.exists(f"{room}/a")
        assert fs.cat_file(f"{room}/b") == b"x"
        with contextlib.suppress(ZeroDivisionError), fs.transaction:
            with fs.open(f"{room}/c", "wb") as file:
                file.write(b"x")
            raise ZeroDivisionError
        assert sorted(fs.ls(room, detail=False)) == [f"{room}/a", f"{room}/b"]

    def test_text_and_compression_are_fsspecs(self, fs: Any, room: str) -> None:
        with fs.open(f"{room}/file.gz", "wt", compression="infer", encoding="utf-8") as file:
            file.write("grüß\n" * 1000)
        assert fs.size(f"{room}/file.gz") < 1000
        with fs.open(f"{room}/file.gz", "rt", compression="infer", encoding="utf-8") as file:
            assert file.read() == "grüß\n" * 1000

    def test_writing_at_an_offset_goes_on_with_a_partial_file(self, fs: Any, room: str) -> None:
        data = random.Random(1).randbytes(3_000_000)
        assert fs.write_at(f"{room}/.partial", [data[:1_000_000]]) == 1_000_000
        assert fs.write_at(f"{room}/.partial", [data[900_000:2_000_000], memoryview(data)[2_000_000:]], 900_000) == len(
            data
        )
        fs.stamp(f"{room}/.partial", mode=0o604, mtime_ns=1_600_000_000_123_456_000)
        fs.replace(f"{room}/.partial", f"{room}/file")
        found = fs.info(f"{room}/file")
        assert (found["mode"] & 0o777, int(found["mtime"])) == (0o604, 1_600_000_000)
        assert b"".join(fs.read_from(f"{room}/file", 500_000)) == data[500_000:]

    # ---- reading

    def test_ranges_are_those_of_slices(self, fs: Any, room: str) -> None:
        data = bytes(range(256))
        fs.pipe_file(f"{room}/file", data)
        ends = [None, 0, 5, 200, 256, 300, -1, -200]
        for start in ends:
            for stop in ends:
                assert fs.cat_file(f"{room}/file", start, stop) == data[start:stop], (start, stop)
        assert (fs.head(f"{room}/file", 3), fs.tail(f"{room}/file", 3)) == (data[:3], data[-3:])

    def test_many_ranges_at_once_and_errors_among_them(self, fs: Any, room: str) -> None:
        data = random.Random(2).randbytes(BIG)
        fs.pipe_file(f"{room}/file", data)
        starts = list(range(0, BIG, 50_000))
        found = fs.cat_ranges([f"{room}/file"] * len(starts), starts, [at + 10 for at in starts])
        assert found == [data[at : at + 10] for at in starts]
        good, bad = fs.cat_ranges([f"{room}/file", f"{room}/no"], 0, 4)
        assert good == data[:4]
        assert isinstance(bad, FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            fs.cat_ranges([f"{room}/no"], [0], [4], on_error="raise")

    def test_a_big_file_is_read_in_order_and_out_of_order(self, fs: Any, room: str) -> None:
        data = random.Random(3).randbytes(BIG)
        fs.pipe_file(f"{room}/file", data)
        assert fs.cat_file(f"{room}/file") == data
        with fs.open(f"{room}/file", "rb", block_size=1 << 20) as file:
            parts = [part for _ in range(100) if (part := file.read(300_000))]
            assert b"".join(parts) == data
            for at in (5_000_000, 0, 8_999_999, 2_500_000):
                file.seek(at)
                assert file.read(1000) == data[at : at + 1000]
            buffer = bytearray(10)
            assert file.readinto(buffer) == 10

    def test_an_open_file_and_a_file_system_can_be_pickled(self, fs: Any, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"0123456789")
        assert pickle.loads(pickle.dumps(fs)).cat_file(f"{room}/file") == b"0123456789"  # noqa: S301 - our own
        with fs.open(f"{room}/file", "rb") as file:
            file.seek(4)
            with pickle.loads(pickle.dumps(file)) as again:  # noqa: S301 - our own
                assert again.read() == b"456789"

    def test_digests_are_those_of_the_bytes(self, fs: Any, room: str) -> None:
        files = {f"{room}/{n}": random.Random(n).randbytes(n * 200_000) for n in range(9)}
        for path, data in files.items():
            fs.pipe_file(path, data)
        assert fs.digest(list(files)) == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        path, data = list(files.items())[-1]
        assert fs.digest([path], 1000, 70_000, "blake2b") == {path: hashlib.blake2b(data[1000:70_000]).hexdigest()}
        with pytest.raises(FileNotFoundError):
            fs.digest([f"{room}/no"])

    # ---- names, kinds, errors

    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_any_name_is_only_a_name(self, fs: Any, room: str, name: str) -> None:
        path = f"{room}/{name}"
        fs.pipe_file(path, b"it")
        assert fs.cat_file(path) == b"it"
        assert fs.info(path)["name"] == path
        if self.utf8_only and not is_utf8(name):
            with pytest.raises(OSError, match="UTF-8"):
                fs.ls(room)
            return
        assert fs.ls(room, detail=False) == [path]
        assert fs.find(room) == [path]
        fs.mkdir(f"{room}/below")
        fs.mv(path, f"{room}/below/{name}")
        fs.cp_file(f"{room}/below/{name}", path)
        assert sorted(fs.find(room)) == sorted([path, f"{room}/below/{name}"])
        fs.rm(path)
        fs.rm(f"{room}/below", recursive=True)
        assert fs.ls(room, refresh=True) == []

    def test_an_empty_file_is_one(self, fs: Any, room: str) -> None:
        fs.touch(f"{room}/touched")
        fs.pipe_file(f"{room}/piped", b"")
        with fs.open(f"{room}/opened", "wb"):
            pass
        assert fs.cat([f"{room}/{name}" for name in ("touched", "piped", "opened")]) == {
            f"{room}/{name}": b"" for name in ("touched", "piped", "opened")
        }
        with fs.open(f"{room}/piped", "rb") as file:
            assert file.read() == b""
        assert fs.du(room) == 0

    def test_errors_are_the_built_in_ones(self, fs: Any, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"")
        fs.makedirs(f"{room}/a/b")
        asking: list[Callable[[str], object]] = [
            fs.info,
            fs.cat_file,
            fs.ls,
            fs.rm,
            fs.rmdir,
            fs.modified,
            fs.checksum,
            fs.open,
        ]
        for ask in asking:
            with pytest.raises(FileNotFoundError):
                ask(f"{room}/no")
        acting: list[tuple[Callable[[], object], type[OSError]]] = [
            (lambda: fs.mkdir(f"{room}/a"), FileExistsError),
            (lambda: fs.makedirs(f"{room}/a/b"), FileExistsError),
            (lambda: fs.cat_file(f"{room}/a"), IsADirectoryError),
            (lambda: fs.info(f"{room}/file/x"), NotADirectoryError),
            (lambda: fs.rmdir(f"{room}/a"), OSError),
            (lambda: fs.mv(f"{room}/no", f"{room}/x"), FileNotFoundError),
            (lambda: fs.cp_file(f"{room}/no", f"{room}/x"), FileNotFoundError),
        ]
        for act, kind in acting:
            with pytest.raises(kind):
                act()
        assert not fs.exists(f"{room}/no")
        assert not fs.exists(f"{room}/file/x")
        assert fs.find(f"{room}/no") == []

    def test_links_lead_where_they_lead_and_no_walk_goes_in_circles(self, fs: Any, room: str) -> None:
        fs.mkdir(f"{room}/dir")
        fs.pipe_file(f"{room}/dir/file", b"it")
        fs.symlink("dir/file", f"{room}/link")
        fs.symlink("../dir", f"{room}/dir/again")
        fs.symlink("nowhere", f"{room}/broken")
        found = fs.info(f"{room}/link")
        assert (found["type"], found["size"], found["islink"], found["destination"]) == ("file", 2, True, "dir/file")
        assert fs.isdir(f"{room}/dir/again")
        assert not fs.exists(f"{room}/broken")
        assert fs.lexists(f"{room}/broken")
        assert len(fs.find(room)) == 4
        fs.rm(f"{room}/dir/again", recursive=True)
        assert fs.cat_file(f"{room}/link") == b"it"
        fs.rm(f"{room}/broken")
        assert not fs.lexists(f"{room}/broken")

    def test_times_permissions_and_versions(self, fs: Any, room: str) -> None:
        fs.pipe_file(f"{room}/file", b"one")
        before = fs.checksum(f"{room}/file"), fs.ukey(f"{room}/file")
        assert before == (fs.checksum(f"{room}/file"), fs.ukey(f"{room}/file"))
        fs.pipe_file(f"{room}/file", self.another_version)
        assert before[0] != fs.checksum(f"{room}/file")
        assert before[1] != fs.ukey(f"{room}/file")
        assert abs((fs.modified(f"{room}/file") - fs.created(f"{room}/file")).total_seconds()) < 60
        fs.touch(f"{room}/file", truncate=False)
        assert fs.cat_file(f"{room}/file") == self.another_version
        fs.touch(f"{room}/file")
        assert fs.size(f"{room}/file") == 0

    # ---- many, at once, and again

    def test_thousands_of_entries(self, fs: Any, room: str) -> None:
        for n in range(10):
            fs.makedirs(f"{room}/t/d{n}")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: fs.pipe_file(f"{room}/t/d{n % 10}/{n:05d}", b"hi"), range(self.many)))
        assert len(fs.find(f"{room}/t")) == self.many
        assert len(fs.ls(f"{room}/t/d3")) == self.many // 10
        assert len(fs.glob(f"{room}/t/*/*7")) == self.many // 10
        assert fs.du(f"{room}/t") == 2 * self.many
        fs.rm(f"{room}/t", recursive=True)
        assert not fs.exists(f"{room}/t")

    def test_threads_do_not_disturb_one_another(self, fs: Any, room: str) -> None:
        def work(one: int) -> None:
            maker = random.Random(one)
            for n in range(COUNT_PER_THREAD):
                path, data = f"{room}/{one}-{n}", maker.randbytes(maker.randrange(200_000))
                fs.pipe_file(path, data)
                assert fs.cat_file(path) == data
                if n % 2:
                    fs.rm(path)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert len(fs.ls(room, refresh=True)) == 8 * COUNT_PER_THREAD // 2

    def test_a_lost_connection_is_told_and_then_made_again(self, fs: Any, room: str, lose: Lose) -> None:
        fs.pipe_file(f"{room}/file", b"it")
        lose()
        assert fs.cat_file(f"{room}/file") == b"it"  # what changes nothing is asked once more
        with contextlib.suppress(SeraiError, OSError), fs.open(f"{room}/other", "wb") as file:
            file.write(b"x")
            lose()
            for _ in range(100):
                file.write(b"x" * 1_000_000)
        assert fs.size(f"{room}/other") == 100_000_001 if fs.exists(f"{room}/other") else True  # whole or not at all
        fs.pipe_file(f"{room}/other", b"again")
        assert fs.cat([f"{room}/file", f"{room}/other"]) == {f"{room}/file": b"it", f"{room}/other": b"again"}

    def test_it_says_whose_files_they_are(self, fs: Any, room: str) -> None:
        facts = fs.host_facts()
        assert facts.host
        assert facts.home.startswith("/")
        assert fs.isdir(facts.home)


def is_utf8(name: str) -> bool:
    """Whether it is text and not only bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
