"""What is kept of a program's output, whatever pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.capture import Capture, as_text
from shem.devnet.commands import CaptureLimits, CaptureMode

pieces = st.lists(st.binary(max_size=12), max_size=12)
sizes = st.integers(0, 40)


def kept(limits: CaptureLimits, written: list[bytes], *, stream: bool = False) -> object:
    capture = Capture(CaptureMode(stream=limits) if stream else CaptureMode(at_end=limits))
    for piece in written:
        capture.add(piece)
    return capture.result()


def bytes_kept(limits: CaptureLimits, written: list[bytes]) -> bytes:
    return bytes(kept(limits, written) or [])


@given(pieces, st.booleans())
def test_everything_is_kept_without_a_limit(written, stream):
    result = kept(CaptureLimits(format="bin"), written, stream=stream)
    assert bytes(result or []) == b"".join(written)


@given(pieces, sizes)
def test_head_keeps_the_beginning(written, size):
    assert bytes_kept(CaptureLimits(head=size, format="bin"), written) == b"".join(written)[:size]


@given(pieces, sizes)
def test_tail_keeps_the_end(written, size):
    whole = b"".join(written)
    assert (
        bytes_kept(CaptureLimits(tail=size, format="binary"), written) == whole[max(len(whole) - size, 0) :]
    )


@given(pieces, sizes)
def test_head_tail_keeps_both_ends_and_the_larger_half_of_the_beginning(written, size):
    whole = b"".join(written)
    got = bytes_kept(CaptureLimits(head_tail=size, format="bin"), written)
    if len(whole) <= size:
        assert got == whole
    else:
        head = -(-size // 2)
        assert got == whole[:head] + whole[len(whole) - (size - head) :]


@given(st.text(), st.data())
def test_streamed_text_is_the_same_however_it_is_cut(text, data):
    written, pieces_told = text.encode(), []
    capture = Capture(CaptureMode(stream=CaptureLimits()))
    while written:
        cut = data.draw(st.integers(1, len(written)))
        pieces_told.append(capture.add(written[:cut]))
        written = written[cut:]
    assert "".join(told or "" for told in pieces_told) == text
    assert capture.result() == (text or None)


@given(st.binary())
def test_bytes_that_are_no_utf8_become_the_code_points_of_their_numbers(content):
    try:
        expected = content.decode()
    except UnicodeDecodeError:
        expected = "".join(map(chr, content))
    assert as_text(content) == expected


def test_streamed_bytes_that_are_no_utf8_are_told_all_the_same():
    capture = Capture(CaptureMode(stream=CaptureLimits()))
    assert capture.add(b"\xff\xfe") == "\xff\xfe"
    assert capture.add(b"ok") == "ok"


@pytest.mark.parametrize("mode", [None, CaptureMode()])
def test_output_that_is_not_captured_is_thrown_away(mode):
    capture = Capture(mode)
    assert capture.add(b"x") is None
    assert capture.result() is None


def test_collected_output_is_told_to_nobody_before_the_end():
    capture = Capture(CaptureMode(at_end=CaptureLimits()))
    assert capture.add(b"x") is None
    assert capture.result() == "x"
