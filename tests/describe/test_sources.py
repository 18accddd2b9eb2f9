"""Where tasks come from."""

from __future__ import annotations

import io
import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.describe.sources import Source, StandardInput, each, files, source_from
from serai.describe.task import Item
from serai.errors import UsageError


def _write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _again(source: Source) -> Source:
    return source_from(json.loads(json.dumps(source.describe())))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0..3", [0, 1, 2, 3]),
        ("-1..1", [-1, 0, 1]),
        ("5..5", [5]),
        ("range:0:5:2", [0, 2, 4]),
        ("range:3:0:-1", [3, 2, 1]),
        ("range:1:3", [1, 2]),
    ],
)
def test_ranges(text: str, numbers: list[int]) -> None:
    source = each(text)
    assert [item.line for item in source] == [str(number) for number in numbers]
    assert source.length == len(numbers)
    assert source.resumable
    assert source.fingerprint() is None
    assert list(_again(source)) == list(source)


@pytest.mark.parametrize("text", ["3..0", "range:0:0", "range:0:5:0", "range:0:5:-1", "0..9999999999999999999"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="the range"):
        each(text)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\n b \n", ["a", "", " b "]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        (b"\xff\xe9\n", ["\udcff\udce9"]),
        ("é\u2028x\x0b\x85\n".encode(), ["é\u2028x\x0b\x85"]),
        (b"a\r", ["a\r"]),
    ],
)
def test_lines(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    source = each(_write(tmp_path, "list", content))
    assert [item.line for item in source] == lines
    assert list(_again(source)) == list(source)
    assert (source.length, source.columns, source.resumable) == (None, (), True)


@given(st.lists(st.binary(max_size=10).filter(lambda raw: b"\n" not in raw and not raw.endswith(b"\r")), min_size=1))
def test_lines_are_those_that_wc_counts(lines: list[bytes]) -> None:
    content = b"x" + b"".join(line + b"\n" for line in lines)
    read = [os.fsencode(item.line or "") for item in StandardInput(io.BytesIO(content))]
    assert b"".join(line + b"\n" for line in read) == content


def test_standard_input_is_read_once_and_not_resumed() -> None:
    source = each("-", stdin=io.BytesIO(b"a\nb\n"))
    assert [item.line for item in source] == ["a", "b"]
    assert not source.resumable
    assert source.fingerprint() is None
    with pytest.raises(UsageError, match="cannot be resumed") as caught:
        _again(source)
    assert "--each FILE" in str(caught.value.hint)


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serai.describe.sources._LONGEST_LINE_BYTES", 8)
    assert [item.line for item in each(_write(tmp_path, "a", b"1234567\n12345678"))] == ["1234567", "12345678"]
    with pytest.raises(UsageError, match="line 2: longer than 8 bytes"):
        list(each(_write(tmp_path, "b", b"a\n123456789")))


def test_tables(tmp_path: Path) -> None:
    source = each(_write(tmp_path, "t.CSV", '\ufeffname, alpha\r\n"a, ""b""",1.10\r\n\r\n"two\r\nlines",\r\n'))
    assert source.columns == ("name", "alpha")
    assert list(source) == [
        Item(line='a, "b"', columns={"name": 'a, "b"', "alpha": "1.10"}),
        Item(line="two\nlines", columns={"name": "two\nlines", "alpha": ""}),
    ]
    assert list(_again(source)) == list(source)
    assert list(each(_write(tmp_path, "t.tsv", "a\tb\n1,5\t2"))) == [Item(line="1,5", columns={"a": "1,5", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1: there is no header"),
        ("a,,b\n", "line 1: a column has no name"),
        ("a,b, a\n", "line 1: the column 'a' is there twice"),
        ("a,b\n1,2\n\n1\n", "t.csv, line 4: 1 fields where the header names 2"),
        ("a,b\n1,2,3\n", "line 2: 3 fields"),
        ('a,b\n"1"x,2\n', "line 2: "),
        ('a,b\n"1,2\n', "line 2: unexpected end"),
    ],
)
def test_mistakes_in_tables_name_file_and_line(tmp_path: Path, content: str, says: str) -> None:
    path = _write(tmp_path, "t.csv", content)
    with pytest.raises(UsageError, match=says):
        list(each(path))


def test_json_lines(tmp_path: Path) -> None:
    source = each(
        _write(
            tmp_path,
            "t.jsonl",
            '{"alpha": 1.10, "in": ["a", "b"], "out": ["c"], "line": 7}\n\n{"alpha": "\\u00e9", "beta": 1e3}\n',
        )
    )
    assert source.columns == ("alpha",)
    assert list(source) == [
        Item(("a", "b"), "7", {"alpha": "1.10"}, ("c",)),
        Item((), None, {"alpha": "é", "beta": "1e3"}, ()),
    ]
    assert list(_again(source)) == list(source)
    assert each(_write(tmp_path, "e.jsonl", "\n")).columns == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n{"a": \n', "t.jsonl, line 2: "),
        ("[1]\n", "line 1: not a JSON object"),
        ('{"in": "a"}', "line 1: 'in' is not a list of paths"),
        ('{"out": [null]}', "line 1: 'out' is not a list of paths"),
        ('{"in": [""]}', "line 1: 'in' is not a list of paths"),
        ('{"a": true}', "line 1: the value of 'a' is neither"),
        ('{"line": {}}', "line 1: the value of 'line' is neither"),
        ('{"a": NaN}', "line 1: NaN"),
        ('{"a": 1}\n\n{"b": 1}', "line 3: no 'a'"),
        ("[" * 100_000, "line 1: "),
    ],
)
def test_mistakes_in_json_lines_name_file_and_line(tmp_path: Path, content: str, says: str) -> None:
    path = _write(tmp_path, "t.jsonl", content)
    with pytest.raises(UsageError, match=says):
        list(each(path))


def test_files() -> None:
    source = files(["a", "b", "c"], group=2)
    assert list(source) == [Item(("a", "b")), Item(("c",))]
    assert source.length == 2
    assert source.fingerprint() is None
    assert list(_again(source)) == list(source)
    assert _again(files(["\udcff"])) == files(["\udcff"])


@pytest.mark.parametrize(("paths", "group"), [([], 1), (["a"], 0)])
def test_no_files(paths: list[str], group: int) -> None:
    with pytest.raises(UsageError):
        files(paths, group)


@pytest.mark.parametrize("text", ["", "gone.csv", "0...5", "1..x", "a\0b"])
def test_what_is_no_source_names_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="there is no file") as caught:
        each(text)
    assert "0..100" in str(caught.value.hint)


def test_a_directory_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        each(str(tmp_path))


def test_a_pipe_is_read_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a\nb\n")
    os.close(writing)
    try:
        source = each(f"/dev/fd/{reading}")
        assert not source.resumable
        assert [item.line for item in source] == ["a", "b"]
    finally:
        os.close(reading)


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    path = _write(tmp_path, "t.csv", "a,b\n1,2\n")
    source = each(path)
    before = source.fingerprint()
    assert before == each(path).fingerprint()
    description = source.describe()
    _write(tmp_path, "t.csv", "b,a,c\n1,2,3\n")
    assert source.fingerprint() != before
    with pytest.raises(UsageError, match="have changed"):
        source_from(description)
    with pytest.raises(UsageError, match="has changed"):
        list(source)
    Path(path).unlink()
    with pytest.raises(UsageError, match="No such file"):
        source.fingerprint()


def test_a_description_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "0..1", "x\n")
    monkeypatch.chdir(tmp_path)
    source = each("./0..1")
    monkeypatch.chdir("/")
    assert list(_again(source)) == [Item(line="x")]


def test_a_source_is_read_as_it_is_needed() -> None:
    class Endless(io.RawIOBase):
        def readline(self, _size: int | None = -1, /) -> bytes:
            return b"x\n"

    assert len(list(itertools.islice(each("-", stdin=Endless()), 3))) == 3  # type: ignore[arg-type]
    assert next(iter(each("0..999999999999"))).line == "0"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown kind"):
        source_from({"kind": "x"})
