"""Frames between the node and the init program."""

import os
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.runtime.init import wire

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.text(max_size=8), json_values, max_size=4)


@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 500), max_size=10))
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(sent, cuts):
    data = b"".join(wire.encode(message) for message in sent)
    decoder = wire.Decoder()
    got = []
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for begin, end in pairwise(places):
        got += [message for message, _fds in decoder.feed(data[begin:end])]
    assert got == sent


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_messages_or_a_wire_error_and_nothing_else(data):
    decoder = wire.Decoder()
    try:
        found = list(decoder.feed(data))
    except wire.WireError:
        return
    assert all(isinstance(message, dict) for message, _fds in found)


@pytest.mark.parametrize(
    "body", [b"[1]", b"null", b"{", b"\xff", b"[" * 100_000], ids=["list", "null", "cut", "no-text", "deep"]
)
def test_a_body_that_is_no_object_is_a_wire_error(body):
    with pytest.raises(wire.WireError):
        list(wire.Decoder().feed(len(body).to_bytes(4, "big") + b"\0" + body))


def test_a_frame_without_its_descriptors_is_a_wire_error():
    with pytest.raises(wire.WireError, match="descriptors"):
        list(wire.Decoder().feed(wire.encode({}, fds=1)))


def test_descriptors_that_belong_to_no_frame_are_a_wire_error_before_they_pile_up():
    decoder = wire.Decoder()
    with pytest.raises(wire.WireError, match="no frame"):
        list(decoder.feed(b"", [-1] * 9))


def test_a_message_that_is_too_long_is_refused_by_its_sender():
    with pytest.raises(wire.WireError, match="more than one message"):
        wire.encode({"argv": ["x" * wire.MAX_BODY]})


def test_descriptors_travel_with_their_own_message():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender, receiver = wire.BlockingChannel(ours), wire.BlockingChannel(theirs)
        ends = [os.pipe() for _ in range(2)]
        sender.send({"n": 0})
        for number, (read_end, write_end) in enumerate(ends, 1):
            sender.send({"n": number}, [write_end])
            os.close(write_end)
            assert not os.get_inheritable(read_end)
        got = {}
        while len(got) < 3:
            for message, fds in receiver.receive():
                got[message["n"]] = fds
        assert got[0] == []
        for number, (read_end, _) in enumerate(ends, 1):
            (fd,) = got[number]
            assert not os.get_inheritable(fd)
            os.write(fd, str(number).encode())
            os.close(fd)
            assert os.read(read_end, 10) == str(number).encode()
            os.close(read_end)


def test_sending_into_a_wire_whose_other_end_is_gone_is_no_error_and_reading_tells():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        channel = wire.BlockingChannel(ours)
        channel.send({"x": 1})
        assert channel.receive() is None
