from __future__ import annotations

import gc
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import Blame, TransferError
from shem.yagna.content import BytesSink, BytesSource, FileSink, FileSource


@st.composite
def shuffled_pieces(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Some bytes, and pieces that cover them, in any order, some of them twice or overlapping."""
    data = draw(st.binary(max_size=400))
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=8))})
    pieces = [(start, data[start:end]) for start, end in pairwise(cuts)]
    for start, end in draw(
        st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, len(data))), max_size=3)
    ):
        pieces.append((start, data[start:end]))
    return data, draw(st.permutations(pieces))


@given(shuffled_pieces())
def test_a_bytes_sink_puts_pieces_of_any_order_together(
    example: tuple[bytes, list[tuple[int, bytes]]],
) -> None:
    data, pieces = example
    sink = BytesSink(limit=len(data))
    for offset, piece in pieces:
        sink.write(offset, piece)
    sink.finish()
    assert sink.content() == data


@given(shuffled_pieces())
def test_a_file_sink_puts_pieces_of_any_order_together(
    tmp_path_factory: pytest.TempPathFactory, example: tuple[bytes, list[tuple[int, bytes]]]
) -> None:
    data, pieces = example
    target = tmp_path_factory.getbasetemp() / "shuffled"
    sink = FileSink(target)
    for offset, piece in pieces:
        sink.write(offset, piece)
    sink.finish()
    assert target.read_bytes() == data
    target.unlink()


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 400))
def test_sources_give_what_a_slice_would(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "source"
    path.write_bytes(data)
    for source in (BytesSource(data), FileSource(path)):
        assert source.size == len(data)
        assert source.read(offset, length) == data[offset : offset + length]


def test_a_bytes_source_keeps_what_it_was_made_of() -> None:
    data = bytearray(b"before")
    source = BytesSource(data)
    data[:] = b"after!"
    assert source.read(0, 10) == b"before"


@pytest.mark.parametrize("limit", [0, 3, 5])
def test_a_piece_beyond_the_limit_is_refused_and_not_cut(limit: int) -> None:
    sink = BytesSink(limit)
    with pytest.raises(TransferError, match=f"more than the {limit} bytes allowed"):
        sink.write(1, b"12345")
    sink.finish()
    assert sink.content() == b""


def test_a_sink_without_a_limit_takes_everything() -> None:
    sink = BytesSink()
    sink.write(0, bytes(100_000))
    sink.finish()
    assert len(sink.content()) == 100_000


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(TransferError, match="no meaning"):
        BytesSink(-1)


def test_content_is_not_given_out_before_it_is_complete() -> None:
    sink = BytesSink()
    sink.write(0, b"part")
    with pytest.raises(TransferError, match="4 bytes came so far"):
        sink.content()


@pytest.mark.parametrize("make", [lambda _: BytesSink(), lambda folder: FileSink(folder / "out")])
def test_a_finished_sink_takes_no_more_and_finishes_once(tmp_path: Path, make: Any) -> None:
    sink = make(tmp_path)
    sink.write(0, b"all")
    sink.finish()
    sink.finish()
    sink.discard()
    with pytest.raises(TransferError, match="new sink"):
        sink.write(3, b"more")


@pytest.mark.parametrize("thing", [BytesSource(b"x"), BytesSink()])
def test_negative_positions_are_refused(thing: Any) -> None:
    with pytest.raises(TransferError, match="negative"):
        if isinstance(thing, BytesSource):
            thing.read(-1, 1)
        else:
            thing.write(-1, b"x")


def test_a_discarded_bytes_sink_gives_its_memory_back() -> None:
    sink = BytesSink()
    sink.write(0, b"part")
    sink.discard()
    assert "0 bytes" in repr(sink)


# --- files ------------------------------------------------------------------------------------------------


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    sink = FileSink(target)
    assert list(tmp_path.iterdir()) == [target]
    sink.write(0, b"new")
    assert target.read_bytes() == b"old"
    sink.finish()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_upload_of_nothing_makes_an_empty_file(tmp_path: Path) -> None:
    FileSink(tmp_path / "empty").finish()
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    sink = FileSink(tmp_path / "out")
    sink.finish()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_discarded_file_sink_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    sink.write(0, b"part")
    sink.discard()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_file_sink_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    sink.write(0, b"part")
    del sink
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_two_transfers_to_one_file_do_not_mix(tmp_path: Path) -> None:
    one, other = FileSink(tmp_path / "out"), FileSink(tmp_path / "out")
    one.write(0, b"one")
    other.write(0, b"other")
    other.finish()
    one.finish()
    assert (tmp_path / "out").read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_as_long_as_names_may_be_still_works(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 127)
    sink = FileSink(target)
    sink.write(0, b"x")
    sink.finish()
    assert target.read_bytes() == b"x"


def test_a_sink_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="No such file or directory") as caught:
        FileSink(tmp_path / "no" / "out").write(0, b"x")
    assert caught.value.blame is Blame.USER


@pytest.mark.parametrize("name", ["/", ".", "", "a\0b"])
def test_what_names_no_file_is_refused_at_once(name: str) -> None:
    with pytest.raises(TransferError):
        FileSink(name)


def test_a_full_disk_is_a_transfer_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FileSink(tmp_path / "out")
    sink.write(0, b"x")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TransferError, match="No space left"):
        sink.write(1, b"y")
    sink.discard()


def test_a_target_that_became_a_folder_is_a_transfer_error(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    sink.write(0, b"x")
    (tmp_path / "out").mkdir()
    with pytest.raises(TransferError, match="cannot be put there"):
        sink.finish()
    sink.discard()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "zero byte"])
def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero byte":
        path = Path(f"{path}\0")
    with pytest.raises(TransferError, match="cannot be sent") as caught:
        FileSource(path)
    assert caught.value.blame is Blame.USER


@pytest.mark.parametrize("change", ["grown", "replaced", "removed"])
def test_a_file_that_changes_meanwhile_is_not_sent_as_a_mixture(tmp_path: Path, change: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"first version")
    source = FileSource(path)
    assert source.read(0, 5) == b"first"
    if change == "grown":
        with path.open("ab") as file:
            file.write(b"!")
    else:
        path.unlink()
        if change == "replaced":
            path.write_bytes(b"other version")
    with pytest.raises(TransferError, match="in"):
        source.read(5, 5)


def test_a_source_holds_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"x" * 10)
    before = len(os.listdir("/proc/self/fd"))
    sources = [FileSource(path) for _ in range(20)]
    assert all(source.read(0, 3) == b"xxx" for source in sources)
    assert len(os.listdir("/proc/self/fd")) == before
