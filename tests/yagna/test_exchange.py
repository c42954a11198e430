from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import TransferError
from shem.yagna.assembly import Assembly
from shem.yagna.content import BytesSink, BytesSource
from shem.yagna.exchange import LARGEST_CHUNK, Publication, Reception


@st.composite
def uploads(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Content, and pieces that cover it in any order, with repeats and overlaps."""
    data = draw(st.binary(max_size=300))
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=8))})
    pieces = [(start, data[start:end]) for start, end in pairwise(cuts)]
    spans = st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))
    pieces += [(start, data[start:end]) for start, end in draw(st.lists(spans, max_size=4))]
    return data, draw(st.permutations(pieces))


class Recorder:
    """A sink that insists on what `Reception` promises: in order, no gaps, no overlaps, finished once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.finished = 0

    def write(self, offset: int, content: bytes) -> None:
        assert offset == len(self.data) and content and not self.finished
        self.data += content

    def finish(self) -> None:
        self.finished += 1


def chunk(offset: int, content: bytes) -> dict[str, Any]:
    return {"chunk": {"offset": offset, "content": content}}


def sha3(data: bytes) -> str:
    return hashlib.sha3_256(data).hexdigest()


@given(uploads())
def test_pieces_of_any_order_become_one_gapless_run(upload: tuple[bytes, list[tuple[int, bytes]]]) -> None:
    data, pieces = upload
    assembly = Assembly()
    run = b"".join(ready for offset, piece in pieces for ready in assembly.add(offset, piece))
    assert run == data
    assert assembly.position == len(data) and assembly.gap is None


@given(uploads(), st.booleans(), st.sampled_from([str, str.upper]))
def test_an_upload_in_any_order_ends_in_the_sink(
    upload: tuple[bytes, list[tuple[int, bytes]]], with_hash: bool, spelling: Any
) -> None:
    data, pieces = upload
    sink = Recorder()
    reception = Reception(sink)
    for offset, piece in pieces:
        assert reception.answer("UploadChunk", chunk(offset, piece)) is None
    finish = {"hash": spelling(sha3(data))} if with_hash else {}
    assert reception.answer("UploadFinished", finish) is None
    assert bytes(sink.data) == data and sink.finished == 1


@given(uploads(), st.data())
def test_an_upload_with_a_missing_or_damaged_byte_never_finishes(
    upload: tuple[bytes, list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    content, pieces = upload
    pieces = [piece for piece in pieces if piece[1]]
    if not pieces:
        return
    position = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.booleans())
    sink = Recorder()
    reception = Reception(sink)
    with pytest.raises(TransferError):
        for offset, piece in pieces:
            hit = offset <= position < offset + len(piece)
            if hit and not damage:
                continue
            if hit:
                place = position - offset
                piece = piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
            reception.answer("UploadChunk", chunk(offset, piece))
        reception.answer("UploadFinished", {"hash": sha3(content)})
    assert sink.finished == 0


def test_an_end_that_is_said_twice_is_heard_once() -> None:
    sink = Recorder()
    reception = Reception(sink)
    reception.answer("UploadChunk", chunk(0, b"all"))
    for _ in range(2):
        assert reception.answer("UploadFinished", {"hash": sha3(b"all")}) is None
    assert reception.answer("UploadChunk", chunk(1, b"l")) is None
    assert sink.finished == 1
    with pytest.raises(TransferError, match="after the end"):
        reception.answer("UploadChunk", chunk(3, b"more"))


def test_after_a_failure_everything_is_refused_with_the_first_error() -> None:
    sink = BytesSink(limit=3)
    reception = Reception(sink)
    errors = []
    for component, payload in [
        ("UploadChunk", chunk(0, b"1234")),
        ("UploadChunk", chunk(0, b"1")),
        ("UploadFinished", {}),
    ]:
        with pytest.raises(TransferError) as caught:
            reception.answer(component, payload)
        errors.append(caught.value)
    assert errors[0] is errors[1] is errors[2]
    assert "more than the 3 bytes" in str(errors[0])
    with pytest.raises(TransferError, match="not complete"):
        sink.content()


def test_a_sink_that_raises_anything_makes_a_transfer_error() -> None:
    class Broken:
        def write(self, offset: int, content: bytes) -> None:
            raise ZeroDivisionError("my bug")

        def finish(self) -> None: ...

    with pytest.raises(TransferError, match="ZeroDivisionError: my bug") as caught:
        Reception(Broken()).answer("UploadChunk", chunk(0, b"x"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_provider_cannot_fill_the_memory_with_pieces_that_wait() -> None:
    assembly = Assembly(hold_limit=100)
    assert assembly.add(1, bytes(60)) == []
    with pytest.raises(TransferError, match="byte 0 is still missing"):
        assembly.add(100, bytes(60))


def test_what_waits_longest_for_one_place_is_kept() -> None:
    assembly = Assembly(hold_limit=100)
    for length in (10, 60, 20):
        assert assembly.add(1, b"x" * length) == []
    assert b"".join(assembly.add(0, b"y")) == b"y" + b"x" * 60


def test_a_gap_is_named() -> None:
    reception = Reception(Recorder())
    reception.answer("UploadChunk", chunk(5, b"late"))
    with pytest.raises(TransferError, match="bytes 0 to 4 never came"):
        reception.answer("UploadFinished", {})


def test_closing_discards_what_is_incomplete_and_nothing_else() -> None:
    incomplete, complete = BytesSink(), BytesSink()
    for sink, finish in ((incomplete, False), (complete, True)):
        reception = Reception(sink)
        reception.answer("UploadChunk", chunk(0, b"all"))
        if finish:
            reception.answer("UploadFinished", {})
        reception.close()
    assert complete.content() == b"all"
    assert "0 bytes" in repr(incomplete)
    Reception(Recorder()).close()


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(0, 250))
def test_a_publication_gives_what_a_slice_would(data: bytes, offset: int, size: int) -> None:
    publication = Publication(BytesSource(data))
    assert publication.answer("GetMetadata", {}) == {"fileSize": len(data)}
    answer = publication.answer("GetChunk", {"offset": offset, "size": size})
    assert answer == {"offset": offset, "content": data[offset : offset + size]}


def test_a_source_that_comes_short_is_no_answer() -> None:
    class Short(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length)[:-1]

    with pytest.raises(TransferError, match="gave 4 bytes at 0 where 5 were expected"):
        Publication(Short(b"12345")).answer("GetChunk", {"offset": 0, "size": 5})


@pytest.mark.parametrize(
    ("component", "payload"),
    [
        ("GetChunk", {"offset": -1, "size": 5}),
        ("GetChunk", {"offset": 0, "size": LARGEST_CHUNK + 1}),
        ("GetChunk", {"offset": 0}),
        ("GetChunk", {"offset": "0", "size": 5}),
        ("GetChunk", {"offset": True, "size": 5}),
        ("GetChunk", None),
        ("UploadChunk", chunk(0, b"x")),
        ("Unknown" * 50, {}),
    ],
)
def test_a_publication_refuses_what_it_does_not_serve(component: str, payload: Any) -> None:
    with pytest.raises(TransferError) as caught:
        Publication(BytesSource(b"12345")).answer(component, payload)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("component", "payload"),
    [
        ("UploadChunk", {"offset": 0, "content": b"x"}),
        ("UploadChunk", {"chunk": {"offset": 0, "content": [1, 2]}}),
        ("UploadChunk", {"chunk": {"offset": -1, "content": b"x"}}),
        ("UploadFinished", {"hash": 5}),
        ("GetMetadata", {}),
    ],
)
def test_a_reception_refuses_what_it_does_not_serve(component: str, payload: Any) -> None:
    with pytest.raises(TransferError):
        Reception(Recorder()).answer(component, payload)
