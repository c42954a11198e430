"""What is said in a transfer: the provider's requests and our answers. No I/O but the source's or sink's.

==================  ===================================  =======================
component           the provider sends                   the answer
==================  ===================================  =======================
``GetMetadata``     nothing                              ``fileSize``
``GetChunk``        ``offset``, ``size``                 ``offset``, ``content``
``UploadChunk``     ``chunk``: ``offset``, ``content``   null
``UploadFinished``  ``hash``: SHA3-256 in hex, or none   null
==================  ===================================  =======================

Source: contract of the GSB API, 3.6.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from shem.errors import TransferError
from shem.yagna.api import Sink, Source
from shem.yagna.assembly import Assembly
from shem.yagna.content import Discardable

T = TypeVar("T")
_Count = Annotated[int, msgspec.Meta(ge=0)]

#: Most bytes given out for one request. Providers ask for 40 KiB; the limit keeps one of them from making us
#: read a whole file into memory at once.
LARGEST_CHUNK = 1024 * 1024


class Exchange(Protocol):
    """Our side of one transfer."""

    components: tuple[str, ...]

    def answer(self, component: str, payload: Any) -> Any:
        """The answer to one request. Raises `TransferError`, or whatever the source or sink raises."""

    def close(self) -> None:
        """The transfer ends, complete or not."""


class _ChunkRequest(msgspec.Struct):
    offset: _Count
    size: _Count


class _Chunk(msgspec.Struct):
    offset: _Count
    content: bytes


class _Upload(msgspec.Struct):
    chunk: _Chunk


class _Finish(msgspec.Struct):
    hash: str | None = None


class Publication:
    """A source that a provider reads, as often and in whatever order it likes."""

    components: tuple[str, ...] = ("GetMetadata", "GetChunk")

    def __init__(self, source: Source) -> None:
        self._source = source

    def answer(self, component: str, payload: Any) -> Any:
        """Size, or a piece, of the source."""
        match component:
            case "GetMetadata":
                return {"fileSize": self._source.size}
            case "GetChunk":
                request = _read(component, payload, _ChunkRequest)
                return {"offset": request.offset, "content": self._piece(request.offset, request.size)}
            case _:
                raise _unexpected(component, self.components)

    def close(self) -> None:
        """Nothing to clear away: the source is its owner's."""

    def _piece(self, offset: int, size: int) -> bytes:
        if size > LARGEST_CHUNK:
            raise TransferError(f"{size} bytes were asked for at once; at most {LARGEST_CHUNK} are given")
        content = self._source.read(offset, size)
        expected = max(0, min(size, self._source.size - offset))
        if len(content) != expected:
            # A short piece would leave a hole in the provider's file that nothing but a hash could reveal.
            raise TransferError(
                f"{self._source!r} gave {len(content)} bytes at {offset} where {expected} were expected"
            )
        return content


class Reception:
    """A sink that a provider writes to, once.

    The sink gets the pieces in order and without overlaps. Once something went wrong every further request is
    refused with the same error, since the sink's content is no longer what the provider believes.
    """

    components: tuple[str, ...] = ("UploadChunk", "UploadFinished")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._assembly = Assembly()
        self._hash = hashlib.sha3_256()
        self._stored = 0
        self._finished = False
        self._broken: TransferError | None = None

    def answer(self, component: str, payload: Any) -> Any:
        """Take a piece, or the end."""
        if self._broken is None:
            try:
                self._handle(component, payload)
            except Exception as error:  # whatever a user's sink raises leaves its content undefined
                self._broken = failure(component, error)
        if self._broken is not None:
            # Without the traceback, which would grow each time the same error is raised.
            raise self._broken.with_traceback(None)
        return None

    def close(self) -> None:
        """Let the sink clear away what is incomplete."""
        if not self._finished and isinstance(self._sink, Discardable):
            self._sink.discard()

    def _handle(self, component: str, payload: Any) -> None:
        match component:
            case "UploadChunk":
                self._take(_read(component, payload, _Upload).chunk)
            case "UploadFinished":
                self._finish(_read(component, payload, _Finish).hash)
            case _:
                raise _unexpected(component, self.components)

    def _take(self, chunk: _Chunk) -> None:
        if self._finished and chunk.offset + len(chunk.content) > self._stored:
            raise TransferError(f"a piece at {chunk.offset} came after the end of the upload")
        for piece in self._assembly.add(chunk.offset, chunk.content):
            self._sink.write(self._stored, piece)
            self._hash.update(piece)
            self._stored += len(piece)

    def _finish(self, expected: str | None) -> None:
        if (gap := self._assembly.gap) is not None:
            raise TransferError(f"the upload ended, but bytes {gap[0]} to {gap[1]} never came")
        actual = self._hash.hexdigest()
        if expected and expected.lower().removeprefix("0x") != actual:
            raise TransferError(
                f"the content was damaged on its way: its SHA3-256 is {actual}, not {expected[:80]}"
            )
        # Said twice where our answer was lost; the sink hears it once.
        if not self._finished:
            self._sink.finish()
            self._finished = True


def failure(component: str, error: Exception) -> TransferError:
    """`error` as one of a transfer: itself where it is one, else wrapped."""
    if isinstance(error, TransferError):
        return error
    wrapped = TransferError(f"{component[:80]} failed on our side: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _read(component: str, payload: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise TransferError(f"the request {component} is malformed: {error}") from error


def _unexpected(component: str, known: tuple[str, ...]) -> TransferError:
    return TransferError(f"{component[:80]!r} is none of {', '.join(known)}, which this transfer serves")
