"""Frames: whatever is sent arrives, however the bytes are cut on their way."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.runners import wire

from .functions import Block

SIZES = st.sampled_from([0, 1, 100, 65_519, 65_520, 65_536, 70_001, 300_000, 1_200_000])


def received(receiver: wire.Receiver, data: bytes, cuts: list[int]) -> list[wire.Frame]:
    """Return the frames of `data`, handed over in pieces of the given sizes, or a little larger when it is long."""
    frames = []
    cuts = [max(cut, len(data) // 300) for cut in cuts]
    position = 0
    while position < len(data):
        for cut in cuts:
            space = receiver.space()
            piece = data[position : position + min(cut, len(space))]
            space[: len(piece)] = piece
            position += len(piece)
            frame = receiver.add(len(piece))
            while frame is not None:
                frames.append(frame)
                frame = receiver.add(0)
    return frames


def value_of(frame: wire.Frame) -> Any:
    body, buffers = frame.split()
    return pickle.loads(body, buffers=buffers)


@given(
    sizes=st.lists(st.tuples(SIZES, st.booleans()), max_size=4),
    cuts=st.lists(st.sampled_from([1, 16, 1_000, 65_536, 250_000]), min_size=1, max_size=3),
)
def test_values_arrive_in_order_however_the_bytes_are_cut(sizes: list[tuple[int, bool]], cuts: list[int]) -> None:
    data = [b"x" * size for size, _ in sizes]
    pairs = zip(data, sizes, strict=True)
    values = [(Block(one) if beside else one, number) for number, (one, (_, beside)) in enumerate(pairs)]
    sent = b"".join(bytes(piece) for value in values for piece in wire.encode(wire.NOTE, value, flags=2))

    frames = received(wire.Receiver([wire.NOTE]), sent, cuts)

    assert [(frame.kind, frame.flags) for frame in frames] == [(wire.NOTE, 2)] * len(values)
    found = [value_of(frame) for frame in frames]
    assert [number for _, number in found] == list(range(len(values)))
    assert [bytes(one.data) if isinstance(one, Block) else one for one, _ in found] == data


@pytest.mark.parametrize(
    ("values", "are_small"),
    [
        ([], True),
        ([None, True, 7, -0.5, "text", b"bytes"], True),
        (["x" * 65_536], False),
        ([b"x" * 65_536], False),
        ([1, (2,)], False),
        ([Block(b"")], False),
        ([bytearray()], False),
    ],
)
def test_plain_values_that_are_small_are_known_at_a_glance(values: list[Any], are_small: bool) -> None:
    assert wire.is_small(values) is are_small


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()))
def test_what_is_small_arrives_as_all_else_does(values: list[Any]) -> None:
    sent = b"".join(bytes(piece) for piece in wire.encode_small(wire.NOTE, values, flags=1))
    (frame,) = received(wire.Receiver([wire.NOTE]), sent, [1_000])

    assert (frame.kind, frame.flags, value_of(frame)) == (wire.NOTE, 1, values)


def test_what_is_no_frame_is_refused_before_memory_is_taken_for_it() -> None:
    receiver = wire.Receiver([wire.RESULT])
    receiver.space()[:16] = b"\xff" * 16

    with pytest.raises(ValueError, match="no frame begins with 255"):
        receiver.add(16)


def test_pieces_are_neither_many_nor_large() -> None:
    pieces = wire.encode(wire.CALL, [Block(bytes(1_000_000)), *(Block(bytes(10)) for _ in range(100)), bytes(600_000)])

    assert max(map(len, pieces)) <= wire.SLICE_BYTES
    assert len(pieces) < 12
