"""Durations and sizes, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.errors import UsageError
from serai.quantity import bytes_of, format_bytes, format_seconds, seconds


@pytest.mark.parametrize(
    ("text", "value_s"),
    [
        ("10m", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("200ms", 0.2),
        ("2 s", 2),
        ("10m ", 600),
        ("2d", 172800),
        ("45", 45),
        ("0", 0),
        (" 0.5 ", 0.5),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_durations(text: str, value_s: float) -> None:
    assert seconds(text) == value_s


@pytest.mark.parametrize("text", ["", "m", "10x", "-3s", "inf", "nan", "1e3", "30m1h", "1h1h", "1hm", "٣s", "9" * 50])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration") as caught:
        seconds(text)
    assert "10m" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4GB", 4_000_000_000),
        ("512MiB", 512 * 1024**2),
        ("512 MiB", 512 * 1024**2),
        ("1.5TB", 1_500_000_000_000),
        ("10kb", 10_000),
        ("7", 7),
        ("7B", 7),
        ("0.3KiB", 307),
        ("0.1GB", 100_000_000),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert bytes_of(text) == value


@pytest.mark.parametrize("text", ["", "GB", "4G", "4 XB", "-1GB", "4GBps", "1e9", "4 G B", "1" * 60])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size") as caught:
        bytes_of(text)
    assert "MiB" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0ms"),
        (0.2, "200ms"),
        (0.9999, "1s"),
        (2.5, "2.5s"),
        (59.97, "1m"),
        (61, "1m1s"),
        (3599.9, "1h"),
        (5400, "1h30m"),
        (86399, "1d"),
        (180000, "2d2h"),
        (-90, "-1m30s"),
    ],
)
def test_written_durations(value_s: float, text: str) -> None:
    assert format_seconds(value_s) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (4_200_000_000, "4.2 GB"), (999_999, "1 MB"), (12_345, "12.3 kB")],
)
def test_written_sizes(value: int, text: str) -> None:
    assert format_bytes(value) == text


@given(st.floats(min_value=0.0, max_value=1e9))
def test_a_written_duration_reads_back_nearly(value_s: float) -> None:
    assert seconds(format_seconds(value_s)) == pytest.approx(value_s, rel=0.05, abs=0.001)


@given(st.integers(min_value=0, max_value=10**20))
def test_a_written_size_reads_back_nearly(value: int) -> None:
    assert bytes_of(format_bytes(value)) == pytest.approx(value, rel=0.01)
