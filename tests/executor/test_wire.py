"""Frames survive any cut of the stream."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.executor import wire

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
frames = st.tuples(
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**64 - 1),
    st.dictionaries(st.text(), values, max_size=4),
    st.binary(max_size=300),
)
Parts = tuple[int, int, int, dict[str, Any], bytes]


@given(frames)
def test_parts_come_back(parts: Parts) -> None:
    frame = wire.pack(*parts)
    assert wire.unpack(frame) == parts
    assert wire.peek(frame) == parts[:3]


def test_no_head_reads_as_an_empty_one() -> None:
    assert wire.unpack(wire.pack(wire.BYE)) == (wire.BYE, 0, 0, {}, b"")


def test_names_that_are_not_text_come_back() -> None:
    name = os.fsdecode(b"caf\xe9 \xff")
    assert wire.unpack(wire.pack(wire.RUN, head={"argv": [name]}))[3]["argv"] == [name]


@given(rest=st.binary(min_size=1, max_size=8), more=st.booleans())
def test_lengths_that_do_not_agree_are_refused(*, rest: bytes, more: bool) -> None:
    frame = wire.pack(wire.RUN, head={"w": 1}, body=b"12345678")
    with pytest.raises(ValueError, match="a frame of"):
        wire.unpack(frame + rest if more else frame[: -len(rest)])


@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 400), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Parts], cuts: list[int]) -> None:
    stream = b"".join(wire.pack(*parts) for parts in sent)
    out, into = os.pipe()
    reader = wire.Reader(out)
    got: list[bytes] = []
    try:
        for cut in [*cuts, len(stream) + 1]:
            piece, stream = stream[:cut], stream[cut:]
            if piece:
                wire.write(into, piece)
                some = reader.read()
                assert some is not None
                got += some
        assert [wire.unpack(frame) for frame in got] == sent
        os.close(into)
        into = -1
        assert reader.read() is None
    finally:
        os.close(out)
        if into >= 0:
            os.close(into)


def test_nothing_to_read_now_is_not_the_end() -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)
    assert wire.Reader(out).read() == []
    os.close(into)
    os.close(out)


def test_a_frame_that_is_too_long_ends_the_stream_after_those_before_it() -> None:
    out, into = os.pipe()
    good = wire.pack(wire.PING, head={"t": 1})
    wire.write(into, good + wire.HEADER.pack(wire.RUN, 0, 0, 10, wire.LIMIT))
    reader = wire.Reader(out)
    assert reader.read() == [good]
    assert reader.read() is None
    os.close(into)
    os.close(out)
